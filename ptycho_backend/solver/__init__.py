"""Iterative reconstruction from all patterns of a scan."""
