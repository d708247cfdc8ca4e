"""Numbers in their file of the patterns of a scan (spec: data 3.8, 10.6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.errors import DataError

EXCLUDED = "excluded_patterns"  # attribute of a scan: numbers in its file


def measured_rows(n: int, attributes: Mapping[str, Any]) -> NDArray[np.intp]:
    """Return the numbers in their file of the `n` patterns of a scan."""
    excluded = np.asarray(attributes.get(EXCLUDED, []), dtype=np.intp)
    return np.setdiff1d(np.arange(n + len(excluded)), excluded)


def checked_rows(rows: Any, n: int, source: str) -> NDArray[np.intp]:
    """
    Return numbers of excluded patterns, ascending, each once.

    Raises
    ------
    DataError
        If one is no whole number from 0 to `n` − 1, or all patterns are excluded.

    Notes
    -----
    Spec: data 10.5.
    """
    numbers = np.unique(np.atleast_1d(np.asarray(rows)))
    whole = numbers.dtype.kind in "iu"
    outside = numbers[(numbers < 0) | (numbers >= n)] if whole else numbers
    if len(outside):
        rule, fix = "Excluded patterns belong to the scan.", "count patterns from 0"
        expected, received = f"whole numbers from 0 to {n - 1}", f"{outside[0].item()!r}"
        raise DataError.in_field(rule, expected, received, fix, "patterns", source)
    if len(numbers) == n:
        rule, fix = "A scan holds at least one pattern.", "exclude fewer patterns"
        raise DataError.in_field(rule, "some patterns left", f"all {n} excluded", fix, "patterns", source)
    return numbers.astype(np.intp)
