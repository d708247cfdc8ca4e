"""Network architectures, weights and prediction."""
