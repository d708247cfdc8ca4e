"""Checks of the numbers of a scan: finite, not negative, and within the range of float32 (spec: data 2)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.fields import wrong_shape
from ptycho_backend.errors import DataError
from ptycho_backend.runtime.memory_map import CHUNK, chunks

# Sums over patterns and squares of sums are float32 in the engines, whose range is 1e-38 to 3e38.
LARGEST_COUNTS, SMALLEST_COUNTS = 1e30, 1e-30
LONGEST_M = 1e6  # of an object pixel and of an origin in metres; real ones are below a millimetre


def largest_value(patterns: NDArray[Any], mask: NDArray[np.bool_], source: str) -> float:
    """
    Return the largest value on good pixels; 1 for integers without a sign, which need no check.

    Raises
    ------
    DataError
        If a value is negative or not finite.
    """
    if patterns.dtype.kind == "u":
        return 1.0
    largest = 0.0
    for number, chunk in enumerate(chunks(patterns)):
        bad = (~np.isfinite(chunk) | (chunk < 0)) & mask
        if bad.any():
            position, y, x = np.argwhere(bad)[0]
            rule = "Diffraction patterns are finite and not negative on good pixels."
            fix = "subtract the dark field with clipping at 0 and mark bad pixels in 'bad_pixels'"
            received = f"{chunk[position, y, x]} at pattern {number * CHUNK + position}, pixel ({y}, {x})"
            raise DataError.in_field(rule, "numbers ≥ 0", received, fix, "patterns", source)
        largest = max(largest, float(np.max(chunk, where=mask, initial=0)))
    return largest


def check_range(largest: float, measurement: str, source: str) -> None:
    """
    Check that float32 holds the counts of the brightest pixel, with room for sums.

    Raises
    ------
    DataError
    """
    power = 1.0 if measurement == "counts" else 0.5
    low, high = SMALLEST_COUNTS**power, LARGEST_COUNTS**power
    if largest == 0 or low <= largest <= high:  # 0 has an error of its own
        return
    rule, fix = "Engines compute in float32, which holds numbers of a limited size.", "store photons, or their roots"
    received = f"{largest:.4g} at the brightest pixel of {measurement} data"
    raise DataError.in_field(rule, f"{low:.0e} to {high:.0e}", received, fix, "patterns", source)


def object_pixel(size_m: Any, source: str) -> tuple[float, float] | None:
    """
    Return the size (y, x) of an object pixel, metres; None if it is unknown.

    Raises
    ------
    DataError, ShapeError
        If it is no pair of positive numbers.
    """
    if size_m is None:
        return None
    y, x = _pair(size_m, "pixel_size_m", source)
    if not (0 < y < LONGEST_M and 0 < x < LONGEST_M):
        rule, fix = "Lengths are above zero.", "write the object pixel in metres, or leave the field out"
        expected, received = "two numbers > 0, in metres", f"({y:g}, {x:g})"
        raise DataError.in_field(rule, expected, received, fix, "pixel_size_m", source)
    return y, x


def object_origin(origin_px: Any, source: str) -> tuple[float, float]:
    """
    Return the position (y, x) of the object's pixel (0, 0), pixels.

    Raises
    ------
    DataError, ShapeError
        If it is no pair of finite numbers.
    """
    return _pair(origin_px, "obj_origin_px", source)


def not_finite(key: str, source: str) -> DataError:
    """Return the error of a field with NaN, infinity, or numbers that float32 cannot hold."""
    rule, fix = "Numbers in a scan are finite.", "repair the program that wrote the file"
    expected = "no NaN, no infinity, and numbers that float32 can hold"
    return DataError.in_field(rule, expected, "non-finite values", fix, key, source)


def _pair(values: Any, key: str, source: str) -> tuple[float, float]:
    try:
        array = np.asarray(values)
    except ValueError:  # lists of unequal lengths
        array = np.asarray(())
    if array.shape != (2,) or array.dtype.kind not in "iuf":
        rule, fix = "This field is a (y, x) pair.", "give two numbers (y, x)"
        raise wrong_shape(array, key, source, rule, f"two finite numbers, not {values!r:.60}", fix)
    if not np.isfinite(array).all():
        raise not_finite(key, source)
    return float(array[0]), float(array[1])
