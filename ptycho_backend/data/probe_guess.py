"""Probe guess from the patterns alone, and the place of a probe in its window (spec: physics 8.6, data 2.10, 2.11)."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.runtime.memory_map import release

logger = logging.getLogger(__name__)

AXES = (-2, -1)
Real = NDArray[np.float64]
PATTERNS = 500  # that the mean is taken of
PROBE_GUESS, FROM_PATTERNS = "probe_guess", "patterns"  # attribute of a scan, and its value for a guess made here
SPLIT_SHARE = 0.5  # least share of the light within a quarter of the side from the corner, for a split probe
SPLIT_RATIO = 4.0  # least ratio of this light to that as near to the middle; 1 for a probe that fills its window
SPLIT_PIECE = 0.02  # least share of the light at each of the four corners


def guess_of(patterns: NDArray[Any], mask: NDArray[np.bool_], measurement: str) -> NDArray[np.complex64]:
    """
    Return a probe guess without defocus, shape (1, y, x).

    Parameters
    ----------
    patterns : array, shape (position, y, x)
        At most 500 of them are read, spread over the scan.
    mask : bool, shape (y, x)
        True marks a good pixel; others are filled in from their neighbours.
    measurement : {"counts", "amplitude"}

    Returns
    -------
    complex64, shape (1, y, x)
        Probe in √counts: its energy is the mean counts of a pattern.

    Notes
    -----
    Spec: data 2.11.
    """
    rows = range(0, len(patterns), max(1, -(-len(patterns) // PATTERNS)))
    total = np.zeros(mask.shape)
    for row in rows:  # one at a time: large patterns would fill the memory
        values = np.where(mask, np.asarray(patterns[row], dtype=np.float64), 0)
        total += values if measurement == "counts" else values**2
    release(patterns)
    return spot(filled(total / len(rows), mask))


def out_of_corner(probe: NDArray[np.complex64], source: str) -> NDArray[np.complex64]:
    """
    Return a probe (mode, y, x) with its middle at ``[N//2, N//2]``; a split one is moved there, with a warning.

    Notes
    -----
    Spec: data 2.10.
    """
    if not is_split(probe):
        return probe
    middle = probe.shape[-1] // 2
    logger.warning(
        "'%s': the probe's middle stands in the corner of its array, as FFT code keeps it: it is moved to pixel "
        "[%d, %d], where specs/data.md expects it",
        *(source, middle, middle),
    )
    return np.ascontiguousarray(np.fft.fftshift(probe, AXES))


def is_split(probe: NDArray[np.complex64]) -> bool:
    """
    Return True for a probe (mode, y, x) whose middle stands in the corner, in four pieces.

    Notes
    -----
    Spec: data 2.10.
    """
    light = (np.abs(probe.astype(np.complex128)) ** 2).sum(axis=0)
    light /= light.sum()
    N = light.shape[-1]
    y, x = np.indices((N, N)) - N // 2
    near = np.hypot(y, x) <= N / 4
    at_corner, at_middle = np.fft.fftshift(light) * near, light * near
    sides = (slice(None, N // 2), slice(N // 2, None))
    pieces = [at_corner[rows, columns].sum() for rows in sides for columns in sides]
    split = at_corner.sum() > max(SPLIT_SHARE, SPLIT_RATIO * at_middle.sum())
    return bool(split and min(pieces) > SPLIT_PIECE)


def filled(mean: Real, mask: NDArray[np.bool_]) -> Real:
    """Return a mean pattern (y, x), smoothed by 1 px and with bad pixels filled in from their neighbours."""
    good = mask.astype(np.float64)
    total, weight = mean * good, good
    found, known = np.zeros_like(mean), np.zeros(mask.shape, dtype=bool)
    for _ in range(max(mean.shape)):
        total, weight = smoothed(total), smoothed(weight)
        new = ~known & (weight > 1e-6)
        found[new], known = total[new] / weight[new], known | new
        if known.all():
            break
    return np.asarray(found)


def smoothed(values: Real) -> Real:
    """Return values (y, x), smoothed twice by [1 2 1]/4 along both axes; edges are repeated."""
    for _ in range(2):
        for axis in (0, 1):
            padded = np.pad(values, [(1, 1) if axis == i else (0, 0) for i in (0, 1)], mode="edge")
            n = values.shape[axis]
            low, middle, high = (np.take(padded, np.arange(n) + k, axis) for k in range(3))
            values = (low + 2 * middle + high) / 4
    return values


def spot(mean: Real, curvature: float = 0.0, astigmatism: tuple[float, float] = (0.0, 0.0)) -> NDArray[np.complex64]:
    """
    Return a probe whose far field has a given mean pattern and a quadratic phase.

    Parameters
    ----------
    mean : float64, shape (y, x)
        Mean pattern, zero frequency at ``[N//2, N//2]``, without noise and bad pixels.
    curvature : float
        Defocus: the phase is curvature·(y² + x²), rad, with y and x in cycles per pixel.
    astigmatism : (float, float)
        Coefficients of (x² − y²) and of 2yx.

    Returns
    -------
    complex64, shape (1, y, x)
        Centred probe, in the unit of the square root of `mean`.
    """
    q = np.fft.fftshift(np.fft.fftfreq(len(mean)))
    y, x = q[:, None], q[None]
    phase = curvature * (y * y + x * x) + astigmatism[0] * (x * x - y * y) + astigmatism[1] * 2 * x * y
    far_field = np.sqrt(np.maximum(mean, 0)) * np.exp(1j * phase)
    near = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(far_field), norm="ortho"))
    return np.asarray(near[None], dtype=np.complex64)


def unit_curvature(mean: Real) -> float:
    """Return the curvature that blurs a spot by one pixel (root mean square): π over the rms frequency."""
    q = np.fft.fftshift(np.fft.fftfreq(len(mean)))
    total = max(float(mean.sum()), np.finfo(float).tiny)
    centre = (mean.sum(axis=1) @ q) / total, (mean.sum(axis=0) @ q) / total
    square = (q[:, None] - centre[0]) ** 2 + (q[None] - centre[1]) ** 2
    return float(np.pi / np.sqrt((square * mean).sum() / total))


def centred(probe: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Return a probe (mode, y, x), rolled by whole pixels so that the centre of its light is ``[N//2, N//2]``."""
    y, x = offset_px((np.abs(probe) ** 2).sum(axis=0))
    return np.asarray(np.roll(probe, (-round(y), -round(x)), AXES))


def offset_px(light: NDArray[Any]) -> tuple[float, float]:
    """
    Return the centre of light (y, x) on a circle, pixels from ``[N//2, N//2]``.

    It is the mean direction: a probe in the corner of its array has four pieces.
    """
    N = light.shape[-1]
    circle = np.exp(2j * np.pi * (np.arange(N) - N // 2) / N)
    y, x = (float(np.angle(light.sum(axis=axis) @ circle)) * N / (2 * np.pi) for axis in (1, 0))
    return y, x
