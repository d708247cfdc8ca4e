"""Training as existing users of the PyTorch package call it."""
