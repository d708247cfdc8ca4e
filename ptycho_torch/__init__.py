"""The PyTorch engine: use it through `ptycho_backend`."""
