"""Training and inference as existing users of the TensorFlow package call them."""
