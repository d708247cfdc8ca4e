"""Configuration of the earlier TensorFlow package; new code uses `ptycho_backend`."""
