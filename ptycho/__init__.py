"""TensorFlow engine of `ptycho_backend`, and import names of the earlier TensorFlow package."""
