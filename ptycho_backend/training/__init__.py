"""The training loop and its options, shared by both engines."""
