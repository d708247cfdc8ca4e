"""Conversion of NumPy values, paths and dataclasses to plain Python values for JSON, YAML and CSV."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any


def to_plain(value: Any) -> Any:
    """
    Return a value as plain Python.

    NumPy arrays and tensors become lists, their scalars numbers, paths text, and dataclasses dictionaries. The values
    of a dictionary are converted too; all other objects are returned unchanged.
    """
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_plain(dataclasses.asdict(value))
    if isinstance(value, Path):
        return str(value)
    return value.tolist() if hasattr(value, "tolist") else value
