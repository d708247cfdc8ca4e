"""Training functions of the earlier PyTorch package."""
