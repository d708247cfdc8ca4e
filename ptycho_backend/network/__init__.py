"""Network architectures, weights, prediction and training domain."""
