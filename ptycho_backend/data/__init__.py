"""Scans: data model, readers, writers, groups and batches."""
