"""Pretraining of the shipped network, or of a network for one instrument."""
