"""Conversion of earlier models, under the name that scripts import."""

from ptycho_backend.compat.predecessor.conversion import Conversion, convert

__all__ = ["Conversion", "convert"]
