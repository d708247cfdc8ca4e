"""A mean over groups that grows batch by batch."""

from __future__ import annotations

import math


class Mean:
    """
    A weighted mean that grows.

    Parameters
    ----------
    total, weight : float
        What has been taken in before.
    """

    def __init__(self, total: float = 0.0, weight: float = 0.0) -> None:
        self.total, self.weight = total, weight

    def add(self, value: float, weight: float) -> None:
        """Take in one more value."""
        self.total += float(value) * float(weight)
        self.weight += float(weight)

    @property
    def value(self) -> float:
        """The mean so far; NaN before the first value."""
        return self.total / self.weight if self.weight else math.nan
