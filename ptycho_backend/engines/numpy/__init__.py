"""The NumPy engine: solver kernels on CPU threads, without a framework."""
