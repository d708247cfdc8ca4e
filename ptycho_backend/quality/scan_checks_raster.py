"""Check of a raster for drift: its lines move along the fast axis."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.quality.scan_check import Check, ScanNumbers

Real = NDArray[np.float64]

MIN_LINES, MIN_LENGTH = 4, 4  # of a raster
CANDIDATES = 4  # lengths of lines that are tried
TURNED = 0.5  # relative change of a step that ends a line
LIKE_A_RASTER = 0.2  # largest rms distance from the lattice, in steps
SHEARED_DEG, OBLIQUE_DEG = 2.0, 15.0  # angle of drift; a larger one is an oblique lattice by intention


def check_drift(numbers: ScanNumbers) -> Check:
    """Check that the lines of a raster are perpendicular to the direction in which they follow each other."""
    fit = _raster(numbers.scan.positions_px)
    if fit is None:
        return Check("drift", "good", "no raster to compare with")
    length, (slow, fast), residual = fit
    cosine = float(slow @ fast / np.maximum(np.linalg.norm(slow) * np.linalg.norm(fast), 1e-30))
    angle = float(np.degrees(np.arcsin(np.clip(cosine, -1.0, 1.0))))
    found = f"lines of {length} patterns, sheared by {angle:.1f}°; {residual:.2g} of a step off their raster"
    if not SHEARED_DEG < abs(angle) < OBLIQUE_DEG:
        return Check("drift", "good", found)
    reason = "the lines move along themselves: the sample drifts, or the axes of the stage are not perpendicular"
    return Check("drift", "doubtful", found, reason, "--inference.fit_positions on, if the encoders do not show it")


def _raster(positions_px: Real) -> tuple[int, Real, float] | None:
    """Return length of a line, lattice vectors (slow and fast) and rms residual in steps; None without a raster."""
    n = len(positions_px)
    fits = [
        (length, *_lattice(positions_px, length, snake))
        for length in _line_lengths(positions_px)
        if length >= MIN_LENGTH and n >= MIN_LINES * length
        for snake in (False, True)
    ]
    best = min(fits, key=lambda fit: fit[2], default=None)
    return None if best is None or not best[2] < LIKE_A_RASTER else best


def _line_lengths(positions_px: Real) -> list[int]:
    """Return the most frequent numbers of patterns between two turns of the path."""
    steps = np.diff(positions_px, axis=0)
    if len(steps) < MIN_LINES * MIN_LENGTH:
        return []
    size = float(np.median(np.linalg.norm(steps, axis=1)))
    ends = np.flatnonzero(np.linalg.norm(np.diff(steps, axis=0), axis=1) > TURNED * size)
    lengths, counts = np.unique(np.diff(ends), return_counts=True)
    frequent = lengths[np.argsort(-counts, kind="stable")][:CANDIDATES]
    # A return of one long step ends one line and begins the next: two turns, one pattern apart.
    return sorted({int(length) + more for length in frequent for more in (0, 1)})


def _lattice(positions_px: Real, length: int, snake: bool) -> tuple[Real, float]:
    """Return the lattice vectors (2, 2), slow and fast, that fit a raster, and the rms residual in steps."""
    line, place = np.divmod(np.arange(len(positions_px)), length)
    if snake:
        place = np.where(line % 2 == 1, length - 1 - place, place)
    design = np.stack([line, place, np.ones(len(line))], axis=1).astype(np.float64)
    solution = np.linalg.lstsq(design, positions_px, rcond=None)[0]
    residual = np.sqrt(np.square(positions_px - design @ solution).sum(axis=1).mean())
    step = float(np.linalg.norm(solution[:2], axis=1).min())
    return np.asarray(solution[:2], dtype=np.float64), float(residual / step) if step > 0 else float("inf")
