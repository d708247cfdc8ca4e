"""Training and inference functions of the earlier TensorFlow package."""
