"""Dictionary with lazy values: large arrays are computed at their first use (spec: ptychodus_api_spec 4.14.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class GroupedData(dict[str, Any]):
    """Dictionary that computes each :class:`LazyValue` at its first use and stores the result."""

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        if isinstance(value, LazyValue):
            self[key] = value = value.compute()
        return value

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, or the default."""
        try:
            return self[key]
        except KeyError:
            return default

    def values(self) -> Any:
        """Return all values, computed."""
        return [self[key] for key in self]

    def items(self) -> Any:
        """Return all keys and values, computed."""
        return [(key, self[key]) for key in self]


class LazyValue:
    """A value with the function that computes it."""

    def __init__(self, compute: Callable[[], Any]) -> None:
        self.compute = compute
