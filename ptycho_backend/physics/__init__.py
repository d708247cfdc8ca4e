"""Equations of ptychography in NumPy float64: the reference for every engine."""
