"""
Statistics of raw patterns, from one reading of the file: mean, markers, saturation, fractions.

Notes
-----
Spec: data 12.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.pixel_statistics import CHUNK_PIXELS, UNUSUAL, always_marked, invalid_values
from ptycho_backend.importing.detector import Corrections, Mask
from ptycho_backend.importing.stack import PatternStack
from ptycho_backend.runtime.memory_map import chunks


@dataclass(frozen=True, eq=False)
class FrameStatistics:
    """
    Statistics of the kept patterns for every pixel of the detector in the file.

    Parameters
    ----------
    n_patterns : int
    mean : float64, shape (y, x), counts
        Mean of corrected patterns; values that are no counts as 0.
    highest : float64, shape (y, x)
        Largest value, before corrections.
    marked : bool, shape (y, x)
        Pixels with a marker in every pattern, or with NaN, infinity or a four-byte marker in a valid one.
    saturated : bool, shape (y, x)
        Pixels that reach the saturation in any pattern.
    fractional : bool, shape (y, x)
        Pixels with a fraction in any pattern.
    n_invalid : int, shape (y, x)
        Number of patterns with NaN, infinity or a four-byte marker.
    n_negative : int, shape (y, x)
        Number of patterns with a value below 0 that no correction explains.
    broken : int, shape (pattern,)
        Numbers of patterns in the files that are mostly invalid.
    """

    n_patterns: int
    mean: NDArray[np.float64]
    highest: NDArray[np.float64]
    marked: Mask
    saturated: Mask
    fractional: Mask
    n_invalid: NDArray[np.intp]
    n_negative: NDArray[np.intp]
    broken: NDArray[np.intp]


def frame_statistics(
    stack: PatternStack, corrections: Corrections, saturation: float | None, squared: bool
) -> FrameStatistics:
    """
    Compute the statistics of a stack, with one reading of the file.

    Parameters
    ----------
    stack : PatternStack
        Kept patterns.
    corrections : Corrections
        Corrections on the detector of the file.
    saturation : float, optional
        Least value of a saturated pixel, in the numbers of the file.
    squared : bool
        Amplitudes: the mean is that of their squares.

    Notes
    -----
    Spec: data 12. A pattern is mostly invalid if its number of invalid pixels is above twice the median by 5 % of the
    detector (data 9.2). A pixel is marked if more patterns than these hold no counts there.
    """
    total, highest = np.zeros(stack.sides), np.zeros(stack.sides)
    saturated, fractional = np.zeros((2, *stack.sides), dtype=bool)
    marked = np.ones(stack.sides, dtype=bool)
    n_invalid, n_negative = np.zeros((2, *stack.sides), dtype=np.intp)
    of_pattern: list[NDArray[np.intp]] = []
    for chunk in _chunks(stack):
        marked = always_marked(chunk, marked) if marked.any() else marked
        invalid = invalid_values(chunk)
        n_invalid += invalid.sum(axis=0)
        of_pattern.append(invalid.sum(axis=(1, 2)))
        with np.errstate(invalid="ignore"):
            negative = chunk < 0
            n_negative += negative.sum(axis=0)
            if saturation is not None:
                saturated |= (chunk >= saturation).any(axis=0)
            values = np.where(invalid | negative, 0, chunk)
        if chunk.dtype.kind == "f":
            fractional |= (values != np.rint(values)).any(axis=0)
        highest = np.maximum(highest, values.max(axis=0))
        counts = corrections.apply(values).astype(np.float64)
        total += (np.square(counts) if squared else counts).sum(axis=0)
    counted = np.concatenate(of_pattern)
    broken = counted > 2.0 * np.median(counted) + UNUSUAL * marked.size
    marked = marked | (n_invalid > broken.sum())
    if corrections.dark is not None:  # a dark frame explains values below it
        n_negative[:] = 0
    rows, n = stack.rows[broken], len(stack)
    return FrameStatistics(n, total / n, highest, marked, saturated, fractional, n_invalid, n_negative, rows)


def _chunks(stack: PatternStack) -> Iterator[NDArray[Any]]:
    """Yield the patterns in chunks that take little memory as float64."""
    for block in stack.blocks():
        yield from chunks(block, max(1, CHUNK_PIXELS // block[0].size))
