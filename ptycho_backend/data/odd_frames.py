"""
Odd frames: patterns that cannot belong to a scan by their own statistics (spec: data 10).

Robust statistics over the patterns: median and median absolute deviation of total counts, and of the correlation of
logarithmic counts with the mean pattern. Neighbours in the scan then decide about rare shapes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.pixel_statistics import CHUNK_PIXELS, invalid_values, limit_values
from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import DataError

Real = NDArray[np.float64]
Rows = NDArray[np.intp]

MIN_PATTERNS = 16  # fewer patterns have no statistics
EMPTY_SHARE = 1e-3  # of the median photons; no object absorbs so much
DIM_SHARE = 0.1  # of the median photons: an odd shape below is empty, with a background
BRIGHT_FACTOR = 5.0  # over the median photons and over the third brightest neighbour
CLEAR_SHARE = 0.05  # of the patterns: so many bright ones lie beside an opaque part of the object
CLEAR_FACTOR = 2.0  # over the dimmest of these
LIMIT_SHARE = 0.005  # of the good pixels at the largest value of the dtype, above four times the median
DEVIATIONS = 8.0  # median absolute deviations as standard deviations; clean scans reach 5 among neighbours
CANDIDATE_DEVIATIONS = 5.0  # from the correlation with the mean pattern
LOCAL_FACTOR = 3.0  # over the second largest deviation among the neighbours
UNRELATED = 0.1  # of the usual correlations: not even the outline of the beam is shared
MIN_DROP = 0.1  # of a correlation
NEIGHBOURS = 8
SAMPLE = 256  # patterns that give the usual correlation of neighbours
MAD_SCALE = 1.4826  # standard deviation over median absolute deviation of normal numbers
AMPLITUDE_PHOTONS = 1e5  # per pattern, assumed for amplitudes without a unit
REASONS = {
    "empty": "no photons, or far too few without the shape of the others",
    "saturated": "many pixels at the largest value of the dtype, or far too many photons",
    "mad": "a shape that no neighbour in the scan shares",
}
MIN_SHARE = 0.1  # of the patterns, which are not odd
LISTED = 10  # numbers in a line of a summary


def _no_rows() -> Rows:
    return np.zeros(0, dtype=np.intp)


@dataclass(frozen=True, eq=False)
class OddFrames:
    """
    Patterns that cannot belong to a scan, by reason.

    Parameters
    ----------
    empty, saturated, mad : int, shape (pattern,)
        Numbers of patterns, from 0, ascending; `REASONS` describes the reasons. Each pattern has one reason.
    """

    empty: Rows = field(default_factory=_no_rows)
    saturated: Rows = field(default_factory=_no_rows)
    mad: Rows = field(default_factory=_no_rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def rows(self) -> Rows:
        """Numbers of all odd patterns, ascending; input of :meth:`~ptycho_backend.data.scan.Scan.without`."""
        return np.sort(np.concatenate(list(self.by_reason().values())))

    def by_reason(self) -> dict[str, Rows]:
        """Return the numbers of the patterns for each reason."""
        return {"empty": self.empty, "saturated": self.saturated, "mad": self.mad}

    def summary(self) -> str:
        """Return one line for every reason with patterns."""
        lines = [_line(reason, rows) for reason, rows in self.by_reason().items() if len(rows)]
        return "\n".join(lines) or "no odd patterns found"


def odd_frames(scan: Scan) -> OddFrames:
    """
    Find the patterns that cannot belong to a scan by their own statistics.

    Parameters
    ----------
    scan : Scan
        Good pixels are used. Patterns are read in chunks.

    Returns
    -------
    OddFrames

    Notes
    -----
    Spec: data 10.
    """
    photons, at_limit = _totals(scan)
    median = _usual_photons(photons)
    empty = photons <= EMPTY_SHARE * median
    limit = np.maximum(LIMIT_SHARE * scan.mask.sum(), 4.0 * np.median(at_limit))
    saturated = (at_limit > limit) & ~empty
    if len(scan) < MIN_PATTERNS or median == 0.0:
        return OddFrames(np.flatnonzero(empty), np.flatnonzero(saturated))
    near = _nearest(scan.positions_px)
    third = np.sort(photons[near], axis=1)[:, -3]
    brightest = CLEAR_FACTOR * np.quantile(photons, 1.0 - CLEAR_SHARE)
    saturated |= photons > np.maximum(BRIGHT_FACTOR * np.maximum(median, third), brightest)
    usual = ~(empty | saturated)
    shapes = _Shapes(scan, 1.0 if scan.measurement == "counts" else AMPLITUDE_PHOTONS / median)
    odd = _odd_shapes(shapes, near, usual, usual & (photons >= DIM_SHARE * median))
    empty |= odd & (photons < DIM_SHARE * median)
    return OddFrames(np.flatnonzero(empty), np.flatnonzero(saturated), np.flatnonzero(odd & ~empty))


def usable(scan: Scan) -> tuple[Scan, OddFrames]:
    """
    Return the scan without its odd patterns, and these patterns.

    Returns
    -------
    Scan
        The same object, if no pattern is odd.
    OddFrames

    Raises
    ------
    DataError
        If less than a tenth of the patterns is left.

    Notes
    -----
    Spec: data 10.6.
    """
    found = odd_frames(scan)
    left = len(scan) - len(found)
    if left < max(1.0, MIN_SHARE * len(scan)):
        rule, fix = "Most patterns of a scan show light through the object.", "check shutter, detector, unit and mask"
        counts = ", ".join(f"{len(rows)} {reason}" for reason, rows in found.by_reason().items() if len(rows))
        expected, received = f"at least {MIN_SHARE:.0%} usable patterns", f"{left} of {len(scan)} ({counts})"
        raise DataError.in_field(rule, expected, received, fix, "patterns", scan.source)
    return scan.without(found.rows), found


def _totals(scan: Scan) -> tuple[Real, Real]:
    """Return photons and number of pixels at the largest value of the dtype, of every pattern."""
    photons, at_limit = np.zeros(len(scan)), np.zeros(len(scan))
    for rows in _blocks(np.arange(len(scan)), scan.N**2):
        raw = scan.patterns[rows]
        photons[rows] = scan.counts(rows).sum(axis=(1, 2), dtype=np.float64)
        at_limit[rows] = ((invalid_values(raw) | limit_values(raw)) & scan.mask).sum(axis=(1, 2))
    return photons, at_limit


def _usual_photons(photons: Real) -> float:
    """Return the median photons of patterns with light; of the bright ones, if most patterns show a background."""
    illuminated = photons[photons > 0]
    if not len(illuminated):
        return 0.0
    bright = illuminated[illuminated > BRIGHT_FACTOR * np.median(illuminated)]
    return float(np.median(bright if len(bright) >= MIN_SHARE * len(illuminated) else illuminated))


class _Shapes:
    """Patterns as unit vectors: logarithmic counts on good pixels, without their mean."""

    def __init__(self, scan: Scan, scale: float) -> None:
        self.scan, self.scale = scan, scale

    def vectors(self, rows: Rows) -> Real:
        values = np.log1p(self.scan.counts(rows)[:, self.scan.mask].astype(np.float64) * self.scale)
        return _unit(values)

    def with_mean(self, usual: Rows) -> Real:
        """Return the correlation of every pattern with the mean of the usual ones."""
        n, N = len(self.scan), self.scan.N
        mean = np.zeros(np.count_nonzero(self.scan.mask))
        for rows in _blocks(usual, N**2):
            mean += self.vectors(rows).sum(axis=0)
        mean = _unit(mean[None])[0]
        return np.concatenate([self.vectors(rows) @ mean for rows in _blocks(np.arange(n), N**2)])

    def with_neighbours(self, rows: Rows, near: Rows) -> Real:
        """Return the largest correlation of some patterns with any of their neighbours."""
        best = [
            np.einsum("jp,jkp->jk", self.vectors(part), self.vectors(near[part].ravel()).reshape(*near[part].shape, -1))
            for part in _blocks(rows, self.scan.N**2 * (1 + near.shape[1]))
        ]
        return np.concatenate(best).max(axis=1)


def _odd_shapes(
    shapes: _Shapes, near: Rows, usual: NDArray[np.bool_], reference: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return usual patterns whose shape neither most patterns of the reference nor any neighbour share."""
    odd = np.zeros(len(usual), dtype=bool)
    correlation = shapes.with_mean(np.flatnonzero(reference))
    centre, spread = median_and_deviation(correlation[reference])
    drop = centre - correlation
    candidates = np.flatnonzero(usual & (drop > np.maximum(CANDIDATE_DEVIATIONS * spread, MIN_DROP)))
    if not len(candidates):
        return odd
    rows = np.flatnonzero(reference)
    sample = rows[np.unique(np.linspace(0, len(rows) - 1, SAMPLE).astype(int))]
    needed = np.unique(np.concatenate([candidates, near[candidates].ravel(), sample]))
    best = np.full(len(usual), np.nan)
    best[needed] = shapes.with_neighbours(needed, near)
    usual_best, spread = median_and_deviation(best[sample])
    local = np.sort(1.0 - best[near[candidates]], axis=1)[:, -2]
    lonely = best[candidates] < usual_best - max(DEVIATIONS * spread, MIN_DROP)
    # A strongly scattering part of the object has several patterns, which differ from each other alike.
    different = 1.0 - best[candidates] > LOCAL_FACTOR * local
    unrelated = np.maximum(best[candidates] / usual_best, correlation[candidates] / centre) < UNRELATED
    odd[candidates[lonely & (different | unrelated)]] = True
    return odd


def _nearest(positions_px: Real) -> Rows:
    """Return the nearest other patterns of every pattern, shape (position, neighbour)."""
    from scipy.spatial import cKDTree

    k = min(NEIGHBOURS + 1, len(positions_px))
    _, near = cKDTree(positions_px).query(positions_px, k=k)
    itself = near == np.arange(len(near))[:, None]
    itself[~itself.any(axis=1), -1] = True  # more than k patterns at one place
    return np.asarray(near[~itself].reshape(len(near), k - 1), dtype=np.intp)


def median_and_deviation(values: Real) -> tuple[float, float]:
    """Return the median, and the standard deviation of normal numbers with this median absolute deviation."""
    centre = float(np.median(values))
    return centre, MAD_SCALE * float(np.median(np.abs(values - centre)))


def _unit(vectors: Real) -> Real:
    centred = vectors - vectors.mean(axis=1, keepdims=True)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-30))


def _blocks(rows: Rows, pixels: int) -> list[Any]:
    size = max(1, CHUNK_PIXELS // pixels)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _line(reason: str, rows: Rows) -> str:
    listed = ", ".join(str(row) for row in rows[:LISTED].tolist()) + (", …" if len(rows) > LISTED else "")
    plural = "s" if len(rows) > 1 else ""
    return f"{len(rows)} {reason} pattern{plural} ({REASONS[reason]}): {listed}"
