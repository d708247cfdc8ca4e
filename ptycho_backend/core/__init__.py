"""The physics in NumPy: the reference that every engine is compared with."""
