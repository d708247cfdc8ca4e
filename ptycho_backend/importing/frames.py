"""
Patterns of a scan as they are written: read twice, once for statistics and once to write them, block by block.

Notes
-----
Spec: data 12.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.pixel_statistics import invalid_values
from ptycho_backend.errors import ConfigError, DataError
from ptycho_backend.importing.centre import found_centre_px, is_in_corner
from ptycho_backend.importing.description import DetectorDescription, PatternsDescription
from ptycho_backend.importing.detector import (
    Corrections,
    DetectorImages,
    Mask,
    Orientation,
    Window,
    corrections,
    in_window,
    window_around,
)
from ptycho_backend.importing.frame_statistics import FrameStatistics, frame_statistics
from ptycho_backend.importing.stack import PatternStack, pattern_stack

if TYPE_CHECKING:
    from ptycho_backend.importing.arrays import ArraySource

logger = logging.getLogger(__name__)

Measurement = Literal["counts", "amplitude"]
MAX_COUNTS = 1e30  # of a pixel
MIDDLE_PX = 1.0  # a centre found this near to the middle of the detector is the middle: noise moves it by less


@dataclass(frozen=True, eq=False)
class Frames:
    """
    Patterns as they are written, from an array in a file.

    Parameters
    ----------
    stack : PatternStack
        Kept patterns of the file.
    corrections : Corrections
        Corrections on the pixels of the window.
    orientation : Orientation
        Order of the detector pixels.
    window : Window
        Window around the zero frequency.
    good : bool, shape (size_px, size_px)
        Good pixels of the window before binning.
    dtype : dtype
        Numbers that are written.
    measurement : {"counts", "amplitude"}
    centre_px : (float, float), pixels, (y, x)
        Zero frequency on the oriented detector, before binning.
    mean_pattern : float64, shape (N, N), counts
        Mean of the patterns, 0 on bad pixels.
    repaired : bool
        True if some values on good pixels are negative or no counts: they are written as 0.
    notes : list of str
        Sentences on what was found and changed.
    """

    stack: PatternStack
    corrections: Corrections
    orientation: Orientation
    window: Window
    good: Mask
    dtype: np.dtype[Any]
    measurement: Measurement
    centre_px: tuple[float, float]
    mean_pattern: NDArray[np.float64]
    repaired: bool
    notes: list[str]

    def __len__(self) -> int:
        return len(self.stack)

    @property
    def N(self) -> int:
        """Side of the written patterns, pixels."""
        return self.window.N

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the written patterns, (pattern, y, x)."""
        return len(self), self.N, self.N

    @property
    def size_px(self) -> int:
        """Side of the window before binning, detector pixels."""
        return self.window.size_px

    @property
    def mask(self) -> Mask:
        """Good pixels of the written patterns, (N, N)."""
        return self.window.all_in_bins(self.good)

    @property
    def rows(self) -> NDArray[np.intp]:
        """Numbers of the kept patterns, in the order of the files."""
        return self.stack.rows

    @property
    def n_patterns(self) -> int:
        """Number of the patterns of the files, before a slice selects some."""
        return self.stack.n_patterns

    @property
    def raster(self) -> tuple[int, int] | None:
        """Rows and columns of the scan in the files, None for a list of patterns."""
        return self.stack.raster

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield the patterns in order, as blocks (pattern, N, N); bad pixels are 0. Each call reads the file once."""
        squared, mask = self.measurement == "amplitude", self.mask
        for block in self.stack.blocks():
            raw = self.window.cut(self.orientation.apply(block))
            values = self.corrections.apply(_as_counts(raw) if self.repaired else raw)
            patterns = self.window.binned(values, self.dtype, squared)
            patterns[:, ~mask] = 0
            yield patterns


def frames(
    source: ArraySource,
    patterns: PatternsDescription,
    detector: DetectorDescription,
    images: DetectorImages | None = None,
) -> Frames:
    """
    Return the patterns of an array as they are written; statistics of all kept patterns are made at once.

    Parameters
    ----------
    source : ArraySource, shape of three or four axes, real numbers
        Array of patterns.
    patterns : PatternsDescription
        Axes, slice and unit.
    detector : DetectorDescription
        Corrections, axes and window. The saturation is a value of the file, before any correction.
    images : DetectorImages, optional
        Dark frame, flat field and mask, as they are in the files.

    Raises
    ------
    ConfigError
        If the description contradicts itself or the detector.
    DataError
        If the unit is unclear, no pixel is good, or no pattern is kept.
    ShapeError
        If axes or sides differ.
    OutputError
        If the disk has no space for a stack that is put in order.

    Notes
    -----
    Spec: data 12.
    """
    stack = pattern_stack(source, patterns)
    given, good = corrections(images or DetectorImages(), detector, stack.sides, stack.name)
    _check_unit(stack, patterns, given)
    statistics = frame_statistics(stack, given, detector.saturation, squared=patterns.unit == "amplitude")
    good, notes = _good_pixels(statistics, good, stack.name)
    if patterns.unit == "auto":
        _check_whole(statistics, good, stack.name)
    repaired = bool((statistics.n_negative + statistics.n_invalid)[good].any())
    _check_range(statistics, good, patterns.unit, stack.name)
    mean = np.where(good, statistics.mean, 0.0)
    orientation = _orientation(mean, good, detector, notes)
    mean, good, highest = (orientation.apply(array) for array in (mean, good, statistics.highest))
    window, centre = _window(mean, good, detector, notes)
    good = window.cut(good, outside=False)
    _check_some_good(window.all_in_bins(good), stack.name)
    result = Frames(
        stack=stack,
        corrections=in_window(given, orientation, window),
        orientation=orientation,
        window=window,
        good=good,
        dtype=_written_dtype(stack.dtype, given, window, float(np.where(good, window.cut(highest), 0).max())),
        measurement="amplitude" if patterns.unit == "amplitude" else "counts",
        centre_px=centre,
        mean_pattern=np.where(window.all_in_bins(good), window.binned(window.cut(mean), np.dtype(float), False), 0.0),
        repaired=repaired,
        notes=notes,
    )
    _check_photons(result)
    for note in notes:
        logger.info("'%s': %s", stack.name, note)
    return result


def _check_unit(stack: PatternStack, patterns: PatternsDescription, given: Corrections) -> None:
    if patterns.unit != "amplitude":
        return
    if stack.dtype.kind in "ui":
        raise DataError.in_field(
            *("Amplitudes are real numbers, square roots of counts.", "a real dtype", f"dtype {stack.dtype}"),
            *("--patterns.unit counts", "patterns", stack.name),
        )
    if given.active:
        raise ConfigError(
            "Dark frame, flat field and gain belong to counts.",
            expected="amplitudes as they are",
            received="--patterns.unit amplitude with a dark frame, a flat field or a gain",
            fix="leave out --detector.dark, --detector.flat and --detector.gain, or --patterns.unit counts",
        )


def _check_whole(statistics: FrameStatistics, good: Mask, name: str) -> None:
    fractional = statistics.fractional & good
    if not fractional.any():
        return
    y, x = np.argwhere(fractional)[0]
    raise DataError.in_field(
        "Patterns with fractions have a declared unit.",
        "whole numbers, or a unit",
        f"fractions, for example at detector pixel ({y}, {x})",
        "--patterns.unit counts for intensities with fractions, --patterns.unit amplitude for their square roots",
        *("patterns", name),
    )


def _good_pixels(statistics: FrameStatistics, good: Mask, name: str) -> tuple[Mask, list[str]]:
    """Return good pixels without markers and saturated ones, and sentences on what was masked or changed."""
    notes, n_bad = [], int((~good).sum())
    if n_bad:
        notes.append(f"{n_bad} pixels are masked by the mask, the dark frame or the flat field")
    marked = statistics.marked & good
    if marked.any():
        notes.append(f"{int(marked.sum())} pixels hold a marker instead of counts: they are masked")
    good = good & ~marked
    saturated = statistics.saturated & good
    if saturated.any():
        logger.warning(
            "'%s': %d pixels reach the saturation in some pattern: they are masked", name, int(saturated.sum())
        )
        notes.append(f"{int(saturated.sum())} pixels reach the saturation in some pattern: they are masked")
    good = good & ~saturated
    negative = int(statistics.n_negative[good].sum())
    if negative:
        share = 100 * negative / (max(int(good.sum()), 1) * statistics.n_patterns)
        logger.warning("'%s': %.2g %% of the values are below 0: they are written as 0", name, share)
        notes.append(f"{share:.2g} % of the values are below 0: they are written as 0")
    if len(statistics.broken):
        numbers = ", ".join(str(number) for number in statistics.broken[:10])
        more = ", …" if len(statistics.broken) > 10 else ""
        logger.warning("'%s': patterns %s%s hold no counts: they are written as 0", name, numbers, more)
        notes.append(f"patterns {numbers}{more} hold no counts: they are written as 0")
    _check_some_good(good, name)
    return good, notes


def _check_range(statistics: FrameStatistics, good: Mask, unit: str, name: str) -> None:
    """Raise an error for values whose sums, or squares, are beyond the range of float32."""
    limit = math.sqrt(MAX_COUNTS) if unit == "amplitude" else MAX_COUNTS
    highest = float(statistics.highest[good].max())
    if highest > limit or not np.isfinite(statistics.mean[good]).all():
        raise DataError.in_field(
            *("Patterns hold photons.", f"values up to {limit:.0e}, also after the corrections", f"{highest:.3g}"),
            *("check the array, --patterns.unit, --detector.gain and --detector.flat", "patterns", name),
        )


def _check_photons(result: Frames) -> None:
    """Raise an error for patterns without light, and for counts below one photon (spec: data 2.9)."""
    light = float(result.mean_pattern.sum())
    if light == 0 or (result.measurement == "counts" and light < 1):
        raise DataError.in_field(
            "Patterns hold photons.",
            "light" if light == 0 else "one photon per pattern on average, or amplitudes",
            f"{light:.3g} per pattern on the good pixels of the window",
            "undo a normalisation, or declare --patterns.unit; check --detector.gain, --detector.flat, mask and window",
            *("patterns", result.stack.name),
        )


def _check_some_good(good: Mask, name: str) -> None:
    if not good.any():
        raise DataError.in_field(
            *("Some detector pixels are good.", "good pixels in the window", "no good pixel"),
            "check --detector.mask and --detector.mask_convention, --detector.saturation and --detector.bin",
            *("mask", name),
        )


def _orientation(mean: NDArray[np.float64], good: Mask, detector: DetectorDescription, notes: list[str]) -> Orientation:
    shifted = is_in_corner(mean, good) if detector.fftshift == "auto" else detector.fftshift == "on"
    if shifted:
        notes.append("the zero frequency is moved from the corner of the detector to its middle")
    return Orientation(shifted, detector.transpose, detector.flip_y, detector.flip_x)


def _window(
    mean: NDArray[np.float64], good: Mask, detector: DetectorDescription, notes: list[str]
) -> tuple[Window, tuple[float, float]]:
    """Return window and centre on the oriented detector."""
    sides = (int(mean.shape[0]), int(mean.shape[1]))
    given = (detector.centre_y_px, detector.centre_x_px)
    found = found_centre_px(mean, good) if None in given else (0.0, 0.0)
    centre = _near_middle(given, found, sides)
    window = window_around(centre, sides, detector)
    origin = "found" if given == (None, None) else "given" if None not in given else "given along one axis"
    notes.append(f"the zero frequency is at (y, x) = ({centre[0]:.1f}, {centre[1]:.1f}) px, {origin}")
    size = window.size_px
    if window.start != (0, 0) or sides != (size, size):
        y, x = window.start
        notes.append(
            f"the window of {size}×{size} px is cut from {sides[0]}×{sides[1]} px: rows {y} to {y + size - 1}, "
            f"columns {x} to {x + size - 1}"
        )
    if window.bin > 1:
        notes.append(f"{window.bin}×{window.bin} pixels are added to one: patterns of {window.N}×{window.N} px")
    return window, centre


def _near_middle(
    given: tuple[float | None, float | None], found: tuple[float, float], sides: tuple[int, int]
) -> tuple[float, float]:
    """Return the given centre, completed by the found one; a centre found near the middle is the middle."""
    middle = (sides[0] // 2, sides[1] // 2)
    near = all(
        value is not None or abs(seen - half) <= MIDDLE_PX
        for value, seen, half in zip(given, found, middle, strict=True)
    )
    taken = [float(half) if near else seen for seen, half in zip(found, middle, strict=True)]
    y, x = (seen if value is None else float(value) for value, seen in zip(given, taken, strict=True))
    return y, x


def _written_dtype(dtype: np.dtype[Any], given: Corrections, window: Window, highest: float) -> np.dtype[Any]:
    """Return float32, or an integer dtype that holds the sum of a bin."""
    if dtype.kind == "f" or given.active:
        return np.dtype(np.float32)
    needed = max(highest, 0.0) * window.bin**2
    for n_bytes in (1, 2, 4, 8):
        wider = np.dtype(f"{dtype.kind}{n_bytes}")
        if n_bytes >= dtype.itemsize and (window.bin == 1 or needed <= np.iinfo(wider).max):
            return wider
    return np.dtype(np.float32)


def _as_counts(values: NDArray[Any]) -> NDArray[Any]:
    """Return values with 0 in place of negative numbers and of values that are no counts, changed in place."""
    with np.errstate(invalid="ignore"):
        values[invalid_values(values) | (values < 0)] = 0
    return values
