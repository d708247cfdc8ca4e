"""The TensorFlow engine: use it through `ptycho_backend`."""
