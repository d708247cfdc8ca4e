"""Measures of image quality, with and without a known object."""
