"""Configuration under the names that existing users import; new code uses that of `ptycho_backend`."""
