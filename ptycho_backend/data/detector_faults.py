"""
Detector faults: bad pixels found from the statistics of a stack of patterns (spec: data 9).

The far field of a probe that fills half of its window varies over about two pixels. Light is therefore never far above
all of its neighbours, and never absent in every pattern between bright neighbours.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ptycho_backend.data.pixel_statistics import (
    PixelStatistics,
    invalid_in_any,
    pixel_statistics,
    pixel_windows,
    sampled,
)

Real = NDArray[np.float64]
Mask = NDArray[np.bool_]
Pixels = NDArray[np.intp]

MIN_PATTERNS = 16  # with fewer patterns only markers are searched
# Of a pixel to the second brightest of its eight neighbours. Clean scans reach 1.6, and 6 in the direct beam.
HOT_RATIO = 3.0
RIM_FACTOR = 2.0  # more at the rim of masked areas, to the brightest neighbour
SIGNIFICANCE = 8.0  # standard deviations
HOT_SHARE = 0.1  # of the patterns, at least: fewer are cosmic rays
MAX_ROUNDS = 3  # the brightest pixels of a cluster are removed first
BEAM_RADIUS_PX = 3.0  # around the direct beam, which may be one pixel wide
# Photons of each neighbour of a dark pixel in the whole scan. In clean scans the dimmest neighbour reaches 5.
MIN_SURROUNDING = 50.0
MIN_POSITIVE = 20  # patterns in which each of these neighbours has counts, or
POSITIVE_SHARE = 0.9  # of the patterns: a rule without a unit, for detectors with a gain
DEAD_PIXELS = 9  # in the largest area that counts as dead pixels; larger areas are gaps
STREAK_RATIO = 1.5  # of the inner to the outer half of a line through the direct beam: a streak fades
GAP_WIDTH = 0.25  # of the widest gap of rows or columns over the detector side
LINE_SHARE = 0.75  # of the pixels of a bright line above its neighbours
AROUND = np.ones((3, 3), dtype=bool)
KINDS = {
    "hot": "far above the neighbours, or one value in every pattern",
    "dead": "0 in every pattern although the neighbours have counts",
    "stripe": "rows or columns far above the lines on both sides",
    "gap": "rows, columns or areas that do not measure",
    "saturated": "NaN, negative, or the largest value of the dtype",
}
LISTED = 5  # pixels in a line of a summary


def _no_pixels() -> Pixels:
    return np.zeros((0, 2), dtype=np.intp)


@dataclass(frozen=True, eq=False)
class BadPixels:
    """
    Mask of good pixels, and the bad pixels that were found, by kind.

    Parameters
    ----------
    mask : bool, shape (y, x)
        True for good pixels: the given mask without the pixels that were found.
    hot, dead, stripe, gap, saturated : int, shape (pixel, 2), (y, x)
        Pixels of one kind, described in `KINDS`. Each pixel has one kind.
    """

    mask: Mask
    hot: Pixels = field(default_factory=_no_pixels)
    dead: Pixels = field(default_factory=_no_pixels)
    stripe: Pixels = field(default_factory=_no_pixels)
    gap: Pixels = field(default_factory=_no_pixels)
    saturated: Pixels = field(default_factory=_no_pixels)

    def __len__(self) -> int:
        return sum(len(pixels) for pixels in self.by_kind().values())

    def by_kind(self) -> dict[str, Pixels]:
        """Return the pixels (pixel, 2), (y, x), of each kind."""
        return {kind: getattr(self, kind) for kind in KINDS}

    def summary(self) -> str:
        """Return one line for every kind with pixels."""
        lines = [_line(kind, pixels) for kind, pixels in self.by_kind().items() if len(pixels)]
        return "\n".join(lines) or "no bad pixels found"


def find_bad_pixels(patterns: NDArray[Any], mask: Mask | None = None, measurement: str | None = "counts") -> BadPixels:
    """
    Find bad pixels from the statistics of a stack of patterns.

    Parameters
    ----------
    patterns : array, shape (position, y, x), any integer or real dtype, may be memory-mapped
        Raw patterns; they may hold NaN, negative numbers and markers. They are read in chunks. A sample of a large
        stack is examined.
    mask : bool, shape (y, x), optional
        Good pixels as known so far. The others are neither examined nor used as neighbours.
    measurement : {"counts", "amplitude"}, optional
        Domain of the patterns; None stands for counts in any unit.

    Returns
    -------
    BadPixels

    Notes
    -----
    Spec: data 9.1 to 9.7.
    """
    every, patterns = patterns, sampled(patterns)
    good = np.ones(patterns.shape[1:], dtype=bool) if mask is None else np.array(mask, dtype=bool)
    squared = measurement == "amplitude"
    statistics = pixel_statistics(patterns, good, squared)
    found = {kind: np.zeros_like(good) for kind in KINDS}
    found["saturated"] = statistics.marked & good
    if len(every) > len(patterns):
        found["saturated"] |= invalid_in_any(every, good & ~found["saturated"])
    good &= ~found["saturated"]
    varying = good & (statistics.highest > statistics.lowest)
    # Equal patterns, as of an empty object without noise, show no fault.
    if statistics.n_patterns >= MIN_PATTERNS and varying.any():
        photons = _photons(statistics, unit=1.0 if measurement == "counts" else 0.0)
        constant, dark = _constant(statistics, good), _dark(photons, good)
        good &= ~(constant | dark)
        lines = _bright_lines(statistics.mean, good)
        good &= ~lines
        hot = _hot(patterns, statistics, good, squared)
        good &= ~hot
        large = _large_areas(dark), _large_areas(constant)
        found["gap"], found["stripe"] = large[0] | large[1], lines
        found["dead"], found["hot"] = dark & ~large[0], hot | (constant & ~large[1])
    return BadPixels(good, **{kind: np.argwhere(pixels) for kind, pixels in found.items()})


def _constant(statistics: PixelStatistics, good: Mask) -> Mask:
    """Return pixels with one value above 0 in every pattern, if most bright pixels vary."""
    bright = good & (statistics.lowest > 0)
    same = bright & (statistics.lowest == statistics.highest)
    varying = good & (statistics.highest > statistics.lowest)
    return same & bool(same.sum() < varying.sum())


def _photons(statistics: PixelStatistics, unit: float) -> Real:
    """
    Return the photons of every pixel in the whole scan, with at least `unit` per photon, shape (y, x).

    Pixels with counts in too few patterns stay below `MIN_SURROUNDING`, whatever their values.
    """
    photons = statistics.total / max(statistics.unit, unit)
    enough = statistics.n_positive >= min(MIN_POSITIVE, POSITIVE_SHARE * statistics.n_patterns)
    return np.where(enough, photons, np.minimum(photons, 0.9 * MIN_SURROUNDING))


def _dark(total: Real, good: Mask) -> Mask:
    """Return pixels without a photon in the whole scan, in areas and lines with bright pixels all around."""
    dark = good & (total == 0)
    areas, n = ndimage.label(dark, structure=AROUND)
    lowest = ndimage.grey_erosion(np.where(good & ~dark, total, np.inf), footprint=AROUND, mode="constant", cval=np.inf)
    counted = ndimage.convolve((good & ~dark).astype(int), AROUND.astype(int), mode="constant")
    index = np.arange(1, n + 1)
    enclosed = np.atleast_1d(ndimage.minimum(lowest, areas, index)) >= MIN_SURROUNDING if n else np.zeros(0, bool)
    enclosed &= np.atleast_1d(ndimage.maximum(counted, areas, index)) >= 3 if n else True
    within = np.concatenate([[False], enclosed])[areas]
    return np.asarray(dark & (within | _dark_lines(total, good) | _dark_lines(total.T, good.T).T))


def _dark_lines(total: Real, good: Mask) -> Mask:
    """Return dark halves of rows between bright rows; a module has one or two halves."""
    N = len(total)
    lines = np.zeros_like(good)
    for half in (slice(0, N // 2), slice(N // 2, N)):
        bright_rows = np.flatnonzero((total[:, half] * good[:, half]).sum(axis=1) > 0)
        for above, below in itertools.pairwise(bright_rows):
            both = np.minimum(*(np.where(good, total, 0)[row, half] for row in (above, below)))
            width = below - above - 1
            if 0 < width <= GAP_WIDTH * N and (both >= MIN_SURROUNDING).sum() >= max(4, N // 16):
                lines[above + 1 : below, half] = True
    return lines


def _bright_lines(mean: Real, good: Mask) -> Mask:
    """Return halves of rows and of columns that are far above the lines on both sides."""
    lines, beams = np.zeros_like(good), _beams(mean, good)
    for axis, values, mask, result in ((0, mean, good, lines), (1, mean.T, good.T, lines.T)):
        N = len(values)
        padded = np.pad(np.where(mask, values, -1.0), ((2, 2), (0, 0)), constant_values=-1.0)
        around = np.sort([padded[i : i + N] for i in (0, 1, 3, 4)], axis=0)
        # At the rim of the detector or of a gap the brighter side may be missing.
        second = np.where(around[1] < 0, RIM_FACTOR * around[-1], around[-2])
        usable = mask & (around[-2] >= 0)
        # A sharp edge of the probe, as of a slit, gives a streak through the direct beam; it fades away from there.
        beside = np.abs(np.arange(N)[:, None] - beams[:, axis]).min(axis=1) > BEAM_RADIUS_PX
        outer, inner = (np.median(values[:, columns], axis=1) for columns in _outer_and_inner(N))
        beside |= outer > inner / STREAK_RATIO
        for half in (slice(0, N // 2), slice(N // 2, N)):
            n_usable = usable[:, half].sum(axis=1)
            n_above = (usable & (values > HOT_RATIO * second))[:, half].sum(axis=1)
            result[beside & (n_above >= LINE_SHARE * n_usable) & (n_usable >= N // 4), half] = True
    return lines & good


def _outer_and_inner(N: int) -> tuple[Pixels, Pixels]:
    """Return the half of the columns that is far from the middle, and the other half."""
    far = np.abs(np.arange(N) - N / 2 + 0.5) > N / 4
    return np.flatnonzero(far), np.flatnonzero(~far)


def _beams(mean: Real, good: Mask) -> Pixels:
    """Return places of the direct beam, (2, 2), (y, x): zero frequency, the pixel with bright light on most sides."""
    surrounding = np.where(good, np.median(_neighbours(np.where(good, mean, -1.0)), axis=0), -1.0)
    brightest = np.unravel_index(np.argmax(surrounding), good.shape)
    return np.array([[len(good) // 2] * 2, brightest])


def _hot(patterns: NDArray[Any], statistics: PixelStatistics, good: Mask, squared: bool) -> Mask:
    """Return pixels far above their neighbours, in the mean and in most patterns."""
    hot = np.zeros_like(good)
    for _ in range(MAX_ROUNDS):
        candidates = np.argwhere(_isolated(statistics, good & ~hot, good))
        if not len(candidates):
            break
        windows = pixel_windows(patterns, candidates, squared).reshape(-1, len(candidates), 9)
        centre, second = windows[..., 4], np.sort(np.delete(windows, 4, axis=-1), axis=-1)[..., -2]
        above = (centre > second).sum(axis=0)
        confirmed = (above > (centre < second).sum(axis=0)) & (above > HOT_SHARE * len(windows))
        hot[tuple(candidates[confirmed].T)] = True
        if not confirmed.any():
            break
    return hot


def _isolated(statistics: PixelStatistics, good: Mask, measured: Mask) -> Mask:
    """
    Return pixels outside of the direct beam whose mean is far above their neighbours.

    `good` lacks the hot pixels found so far, which `measured` contains.
    """
    mean, error = statistics.mean, statistics.standard_error
    ring = _neighbours(np.where(good, mean, -1.0))
    order = np.argsort(ring, axis=0)
    second = np.take_along_axis(ring, order[-2:-1], axis=0)[0]
    second_error = np.take_along_axis(_neighbours(error), order[-2:-1], axis=0)[0]
    # At the rim of a gap the brighter side may be hidden.
    inside = _neighbours(np.ones(good.shape)) > 0
    hidden = (inside & (_neighbours(measured.astype(float)) < 1.0)).sum(axis=0)
    reference = np.where(hidden > 0, RIM_FACTOR * ring.max(axis=0), np.maximum(second, 0.0))
    steps = np.indices(good.shape)[None] - _beams(mean, good)[:, :, None, None]
    # A probe that its window cuts off gives a streak along each axis; its last pixel has one bright neighbour.
    reference = np.where((steps == 0).any(axis=(0, 1)), np.maximum(reference, ring.max(axis=0)), reference)
    usable = good & (2 * (ring >= 0).sum(axis=0) >= inside.sum(axis=0))
    significance = SIGNIFICANCE * np.hypot(error, HOT_RATIO * second_error)
    outside = np.hypot(steps[:, 0], steps[:, 1]).min(axis=0) > BEAM_RADIUS_PX
    return np.asarray(usable & outside & (mean - HOT_RATIO * reference > significance))


def _neighbours(values: Real) -> Real:
    """Return the eight neighbours of every pixel, shape (8, y, x); −1 beyond the detector."""
    height, width = values.shape
    padded = np.pad(values, 1, constant_values=-1.0)
    steps = [(a, b) for a in range(3) for b in range(3) if (a, b) != (1, 1)]
    return np.array([padded[a : a + height, b : b + width] for a, b in steps])


def _large_areas(pixels: Mask) -> Mask:
    """Return the connected areas that are too large for single bad pixels."""
    areas, _ = ndimage.label(pixels, structure=AROUND)
    return np.asarray(pixels & (np.bincount(areas.ravel())[areas] > DEAD_PIXELS))


def _line(kind: str, pixels: Pixels) -> str:
    listed = ", ".join(f"({y}, {x})" for y, x in pixels[:LISTED].tolist())
    more = ", …" if len(pixels) > LISTED else ""
    plural = "s" if len(pixels) > 1 else ""
    return f"{len(pixels)} {kind} pixel{plural} ({KINDS[kind]}) at (y, x) = {listed}{more}"
