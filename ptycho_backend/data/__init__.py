"""Scans: the data model, readers, writers and simulation."""
