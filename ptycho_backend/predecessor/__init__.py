"""Conversion of earlier models, under the name that scripts import."""
