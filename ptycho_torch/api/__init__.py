"""Classes and functions of the earlier PyTorch package, as translations to :mod:`ptycho_backend`."""
