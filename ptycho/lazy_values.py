"""
Dictionaries whose large arrays are made when they are asked for.

Notes
-----
Spec: ptychodus_api_spec 4.14.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class GroupedData(dict[str, Any]):
    """A dictionary that makes the arrays which few scripts read when they are first asked for."""

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        if isinstance(value, Later):
            self[key] = value = value.make()
        return value

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, or the default."""
        try:
            return self[key]
        except KeyError:
            return default

    def values(self) -> Any:
        """Return all values, made."""
        return [self[key] for key in self]

    def items(self) -> Any:
        """Return all keys and values, made."""
        return [(key, self[key]) for key in self]


class Later:
    """A value that is made when it is asked for."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make
