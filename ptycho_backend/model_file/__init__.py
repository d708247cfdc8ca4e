"""The model file and the run folder."""
