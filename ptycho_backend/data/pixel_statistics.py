"""Sums over a stack of patterns for every detector pixel, made chunk by chunk (spec: data 9.1, 9.2, 9.7)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.runtime.memory_map import chunks

Real = NDArray[np.float64]
Mask = NDArray[np.bool_]

CHUNK_PIXELS = 2**21  # detector pixels in memory at a time
SAMPLE_PIXELS = 2**26  # detector pixels that are examined: every n-th pattern of a larger stack,
MIN_SAMPLE = 64  # but at least so many patterns
UNIT_STEP = 16  # every 16th pattern gives the smallest value, because a comparison of all values is slow
# Largest values of four-byte integers, also after a conversion to float32: no detector counts that far.
NO_COUNTS = (2.0**31 - 1, 2.0**31, 2.0**32 - 1, 2.0**32)
FLOAT_LIMITS = (65535.0, -1.0, -2.0)  # markers that a conversion from integers leaves in floating point
MARKED_SHARE = 0.5  # of the patterns: a counter that is full in fewer patterns is the direct beam
UNUSUAL = 0.05  # invalid pixels of a pattern above twice the median, as a share of the detector


@dataclass(frozen=True, eq=False)
class PixelStatistics:
    """
    Sums over the patterns for every detector pixel, in counts.

    Parameters
    ----------
    n_patterns : int
        Number of patterns in the sums; patterns that are mostly invalid take no part.
    total, squares : float64, shape (y, x)
        Sums of counts and of their squares.
    lowest, highest : float64, shape (y, x)
        Extreme counts.
    n_positive : int, shape (y, x)
        Number of patterns with counts above 0.
    unit : float
        Smallest value above 0 on good pixels: the value of one photon, if the detector has a gain.
    marked : bool, shape (y, x)
        Pixels with a marker instead of counts.
    """

    n_patterns: int
    total: Real
    squares: Real
    lowest: Real
    highest: Real
    n_positive: NDArray[np.intp]
    unit: float
    marked: Mask

    @property
    def mean(self) -> Real:
        """Mean counts, shape (y, x)."""
        return self.total / max(self.n_patterns, 1)

    @property
    def standard_error(self) -> Real:
        """Standard error of the mean counts, from the differences between patterns, shape (y, x)."""
        n = max(self.n_patterns, 1)
        return np.asarray(np.sqrt(np.maximum(self.squares / n - self.mean**2, 0.0) / n))


def always_marked(patterns: NDArray[Any], mask: Mask) -> Mask:
    """
    Return good pixels, (y, x), that hold a marker in every pattern: NaN, a negative number, the dtype's largest value.

    Notes
    -----
    Spec: data 2.9.
    """
    marked = np.array(mask, dtype=bool)
    for chunk in chain([patterns[:1]], _chunks(patterns)):
        marked &= (invalid_values(chunk) | limit_values(chunk)).all(axis=0)
        if not marked.any():
            break
    return marked


def pixel_statistics(patterns: NDArray[Any], good: Mask, squared: bool) -> PixelStatistics:
    """
    Compute the sums over a stack of patterns, two chunk-wise readings.

    Parameters
    ----------
    patterns : array, shape (position, y, x), any integer or real dtype, may be memory-mapped
    good : bool, shape (y, x)
        Pixels that decide whether a pattern is mostly invalid.
    squared : bool
        Square the values: amplitudes become counts.

    Notes
    -----
    Spec: data 9.1, 9.2.
    """
    invalid = np.concatenate([(invalid_values(chunk) & good).sum(axis=(1, 2)) for chunk in _chunks(patterns)])
    usual = invalid <= 2.0 * np.median(invalid) + UNUSUAL * good.size
    n, shape = int(usual.sum()), patterns.shape[1:]
    total, squares, n_invalid, n_limit = (np.zeros(shape) for _ in range(4))
    lowest, highest, start = np.full(shape, np.inf), np.zeros(shape), 0
    n_positive, unit = np.zeros(shape, dtype=np.intp), np.inf
    for chunk in _chunks(patterns):
        part = chunk[usual[start : start + len(chunk)]]
        start += len(chunk)
        n_invalid += invalid_values(part).sum(axis=0)
        n_limit += limit_values(part).sum(axis=0)
        values = as_counts(part, squared)
        total += values.sum(axis=0)
        squares += np.square(values).sum(axis=0)
        lowest = np.minimum(lowest, values.min(axis=0, initial=np.inf))
        highest = np.maximum(highest, values.max(axis=0, initial=0.0))
        n_positive += np.count_nonzero(values, axis=0)
        some = values[::UNIT_STEP, good]
        unit = min(unit, float(some[some > 0].min(initial=np.inf)))
    marked = (n_invalid > 0) | (n_limit >= MARKED_SHARE * max(n, 1))
    return PixelStatistics(n, total, squares, lowest, highest, n_positive, unit, marked)


def sampled(patterns: NDArray[Any]) -> NDArray[Any]:
    """Return every n-th pattern, a view; the numbers have no common divisor with periods of 2, 3 or 5 patterns."""
    step = max(1, min(-(-patterns.size // SAMPLE_PIXELS), len(patterns) // MIN_SAMPLE))
    while math.gcd(step, 30) > 1:
        step += 1
    return patterns[::step]


def invalid_in_any(patterns: NDArray[Any], good: Mask) -> Mask:
    """Return good pixels, (y, x), with an invalid value in any pattern that is mostly valid."""
    marked = np.zeros_like(good)
    if patterns.dtype.kind in "ui" and patterns.dtype.itemsize < 4:
        return marked
    for chunk in _chunks(patterns):
        invalid = invalid_values(chunk) & good
        few = invalid.sum(axis=(1, 2)) <= UNUSUAL * good.size
        marked |= invalid[few].any(axis=0)
    return marked


def as_counts(patterns: NDArray[Any], squared: bool) -> Real:
    """Return patterns as counts, float64; invalid values and negative numbers as 0."""
    values = np.where(invalid_values(patterns) | (patterns < 0), 0, patterns).astype(np.float64)
    return np.asarray(values**2) if squared else values


def pixel_windows(patterns: NDArray[Any], pixels: NDArray[np.intp], squared: bool) -> Real:
    """Return the counts around some pixels in every pattern, shape (position, pixel, 3, 3); 0 beyond the detector."""
    step_y, step_x = np.mgrid[-1:2, -1:2]
    y, x = pixels[:, 0, None, None] + step_y, pixels[:, 1, None, None] + step_x
    height, width = patterns.shape[1:]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    return np.concatenate([as_counts(chunk[:, y, x], squared) * inside for chunk in _chunks(patterns)])


def _chunks(patterns: NDArray[Any]) -> Iterator[NDArray[Any]]:
    return chunks(patterns, max(1, CHUNK_PIXELS // patterns[0].size))


def invalid_values(values: NDArray[Any]) -> Mask:
    """Return values that are never counts: NaN, infinity, the largest value of a four-byte or larger dtype."""
    if values.dtype.kind == "f":
        return np.asarray(~np.isfinite(values) | _equals_any(values, NO_COUNTS))
    if values.dtype.itemsize < 4:
        return np.zeros(values.shape, dtype=bool)
    limits = {limit for limit in map(int, NO_COUNTS) if limit <= np.iinfo(values.dtype).max}
    limits.add(int(np.iinfo(values.dtype).max))
    return np.asarray(np.isin(values, np.array(sorted(limits), dtype=values.dtype)))


def _equals_any(values: NDArray[Any], markers: tuple[float, ...]) -> Mask:
    """Compare floating-point values with markers in their own precision; a cast of some kinds of NaN would warn."""
    with np.errstate(over="ignore"):
        rounded = {float(marker) for marker in np.array(markers).astype(values.dtype)}
    result = np.zeros(values.shape, dtype=bool)
    for marker in rounded:
        result |= values == values.dtype.type(marker)
    return result


def limit_values(values: NDArray[Any]) -> Mask:
    """Return values that mark a pixel if most patterns have them: a full counter, a negative number."""
    if values.dtype.kind == "f":
        return np.asarray(_equals_any(values, FLOAT_LIMITS))
    return np.asarray((values == np.iinfo(values.dtype).max) | (values < 0))
