"""What clients of the PyTorch package call; every part only translates to :mod:`ptycho_backend`."""
