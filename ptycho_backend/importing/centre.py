"""
Place of the zero frequency in a mean pattern, by inversion symmetry.

Notes
-----
Spec: data 12.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.errors import DataError

Real = NDArray[np.float64]
Mask = NDArray[np.bool_]

CORNER_RATIO = 0.8  # largest ratio of mean square distances, from the corner and from the middle, of a shifted pattern
SIDE_SHARE = 0.03  # least share of the light on both sides of the corner, along each axis
NEAR_CORNER = 1 / 8  # of the side: no detector stands with its corner so near to the beam
MIN_OVERLAP = 0.3  # least share of the light that takes part in a comparison with the mirror image
SPIKE = 10.0  # largest ratio of a pixel to the third brightest around it; one for a beam of 1 px is 8
SEARCH_SHARE = 0.25  # largest distance from the centre of mass, as a share of the shorter side


def is_in_corner(mean_pattern: NDArray[np.floating], mask: Mask | None = None) -> bool:
    """
    Return True for a pattern whose zero frequency stands in the corner, as FFT code keeps it.

    Distances from the corner are counted around the edges. The amplitude above the median is nearer to the corner
    than to the middle. The brightest part is less than an eighth of the side from the corner, or light lies on both
    sides of both edges. A beam farther from the corner, on one side of an edge, is an off-centre beam.

    Parameters
    ----------
    mean_pattern : float, shape (y, x), counts
        Mean of the patterns.
    mask : bool, shape (y, x), optional
        True marks a good pixel.

    Notes
    -----
    Spec: data 12. Limit: a pattern that fills its detector evenly is neither; it counts as not in the corner.
    """
    good = _good(mean_pattern, mask)
    above = _above_median(mean_pattern, good)
    signed = np.sign(above) * np.sqrt(np.abs(above))  # the root: a hot pixel counts less
    light = np.maximum(signed, 0.0)
    from_middle = [np.arange(side) - side // 2 for side in light.shape]
    from_corner = [np.fft.ifftshift(axis) for axis in from_middle]  # -side // 2 to side // 2, from 0
    at_middle, at_corner = (_square_distance(axes, light.shape) for axes in (from_middle, from_corner))
    if (light * at_corner).sum() >= CORNER_RATIO * (light * at_middle).sum():
        return False
    if all(abs(place) < NEAR_CORNER for place in _brightest_place(above)):
        return True
    nearer = np.where(at_corner <= at_middle, signed, 0.0)  # noise has both signs and cancels
    profiles = [nearer.sum(axis=1), nearer.sum(axis=0)]
    sides = [part.sum() for p, k in zip(profiles, from_corner, strict=True) for part in (p[k <= 0], p[k >= 0])]
    return bool(min(sides) >= SIDE_SHARE * nearer.sum())


def found_centre_px(mean_pattern: NDArray[np.floating], mask: Mask | None = None) -> tuple[float, float]:
    """
    Return the centre about which a mean pattern agrees best with its mirror image.

    The light f above its median is compared with f(2c − q) for every c on a grid of half pixels, by FFT: the
    overlap Σ f(q) f(2c − q) over Σ f(q)², on pixels q that are good together with their mirror pixels. The centre is
    within a quarter of the side of the centre of f². A parabola through the best value and its neighbours refines it.

    Parameters
    ----------
    mean_pattern : float, shape (y, x), counts
        Mean of the patterns.
    mask : bool, shape (y, x), optional
        True marks a good pixel: gaps, a beam stop and their mirror images take no part.

    Returns
    -------
    (float, float), pixels, (y, x)
        Centre to about half a pixel, for discs, rings and Gaussian beams, also beside weaker scatter on one side.

    Raises
    ------
    DataError
        If the good pixels hold no light.

    Notes
    -----
    Spec: data 12. Source: Padfield, *Masked object registration in the Fourier domain*, 2012, for sums over masks.
    Limits: a beam without inversion symmetry has no such centre, and the lattice of a crystal has several. An
    opaque beam stop that is not masked draws the centre toward its own.
    """
    good = _good(mean_pattern, mask)
    light = _without_spikes(np.maximum(_above_median(mean_pattern, good), 0.0))
    if not light.any():
        raise DataError(
            "The centre of the beam is found in the mean pattern.",
            expected="some good pixels that are brighter than the others",
            received="a mean pattern of one value",
            fix="give the centre with --detector.centre_y_px and --detector.centre_x_px; check --detector.mask",
        )
    agreement = _agreement(light, good)
    mass = [float((light**2).sum(axis=1 - axis) @ np.arange(side) / (light**2).sum()) for axis, side in _sides(light)]
    reach = SEARCH_SHARE * min(light.shape)
    near = _square_distance([np.arange(n) / 2 - m for n, m in zip(agreement.shape, mass, strict=True)], agreement.shape)
    agreement = np.where(near <= reach**2, agreement, 0.0)
    y, x = np.unravel_index(int(np.argmax(agreement)), agreement.shape)
    return (
        (int(y) + _peak_offset(agreement[:, x], int(y))) / 2,
        (int(x) + _peak_offset(agreement[y], int(x))) / 2,
    )


def _brightest_place(above: Real) -> list[float]:
    """Return the place of the light, weighted by its square: (y, x) on a circle, −0.5 to 0.5 sides from pixel 0."""
    light = _without_spikes(np.maximum(above, 0.0)) ** 2
    circles = [np.exp(2j * np.pi * np.arange(side) / side) for side in light.shape]
    angles = np.angle(light.sum(axis=1) @ circles[0]), np.angle(light.sum(axis=0) @ circles[1])
    return [float(angle) / (2 * np.pi) for angle in angles]


def _agreement(light: Real, good: Mask) -> Real:
    """Return Σ f(q) f(s − q) / Σ f(q)² for every s = 2c, shape (2·y − 1, 2·x − 1); 0 where little light takes part."""
    from scipy.fft import irfft2, next_fast_len, rfft2

    shape = [2 * side - 1 for side in light.shape]
    padded = [next_fast_len(side, real=True) for side in shape]
    spectrum = rfft2(light, padded)
    product = irfft2(spectrum * spectrum, padded)[: shape[0], : shape[1]]
    energy = irfft2(rfft2(light**2, padded) * rfft2(good.astype(np.float64), padded), padded)[: shape[0], : shape[1]]
    enough = energy >= MIN_OVERLAP * float((light**2).sum())
    return np.asarray(np.divide(product, energy, out=np.zeros(shape), where=enough))


def _peak_offset(values: Real, peak: int) -> float:
    """Return the vertex of the parabola through a peak and its neighbours, from −0.5 to 0.5; 0 at the edge."""
    if not 0 < peak < len(values) - 1:
        return 0.0
    before, top, after = (float(values[peak + k]) for k in (-1, 0, 1))
    curvature = before - 2 * top + after
    if min(before, after) <= 0 or curvature >= 0:
        return 0.0
    return float(np.clip((before - after) / 2 / curvature, -0.5, 0.5))


def _above_median(mean_pattern: NDArray[np.floating], good: Mask) -> Real:
    """Return the difference of counts from their median; 0 on bad pixels."""
    if not good.any():
        return np.zeros(good.shape)
    values = np.where(good, mean_pattern, 0).astype(np.float64)
    return np.asarray(np.where(good, values - float(np.median(values[good])), 0.0))


def _without_spikes(light: Real) -> Real:
    """Return light with hot pixels limited by the third brightest of the 3×3 pixels around them."""
    from scipy.ndimage import rank_filter

    limited = np.minimum(light, SPIKE * rank_filter(light, -3, size=3, mode="constant"))
    return limited if limited.any() else light


def _good(mean_pattern: NDArray[np.floating], mask: Mask | None) -> Mask:
    finite = np.asarray(np.isfinite(mean_pattern))
    return finite if mask is None else finite & mask


def _square_distance(axes: Sequence[NDArray[Any]], shape: tuple[int, ...]) -> Real:
    return np.asarray(np.broadcast_to(axes[0][:, None].astype(float) ** 2 + axes[1][None].astype(float) ** 2, shape))


def _sides(array: Real) -> list[tuple[int, int]]:
    return list(enumerate(array.shape))
