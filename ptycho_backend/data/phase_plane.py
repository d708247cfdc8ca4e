"""
Phase plane of a complex image: constant phase and linear ramp, fitted and removed (spec: metrics 2).

Diffraction data leave both free. The phase has no absolute zero, and a wrong detector centre adds a ramp.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Complex = NDArray[np.complex128]
Real = NDArray[np.float64]

# A detector centre wrong by n pixels adds a ramp of 2π·n/N. A steeper ramp is a real error and must stay visible.
MAX_SLOPE_RAD_PER_PX = 0.5


def fit_plane(product: Complex) -> Real:
    """
    Fit a phase plane to a complex image: maximise Σ Re(product · exp(−i·plane)).

    Parameters
    ----------
    product : complex128, shape (y, x)
        For two images: one times the conjugate of the other. Phase wraps are allowed.

    Returns
    -------
    float64, shape (3,)
        Phase at the array's centre, rad, and slopes along y and x, rad per pixel, at most about 0.5.
        Zeros for an image of zeros.

    Notes
    -----
    Spec: metrics 2.2.
    """
    if not np.any(product):
        return np.zeros(3)
    slope_y, slope_x = (2 * np.pi * scipy.fft.fftfreq(n) for n in product.shape)
    allowed = (np.abs(slope_y) <= MAX_SLOPE_RAD_PER_PX)[:, None] & (np.abs(slope_x) <= MAX_SLOPE_RAD_PER_PX)
    spectrum = np.abs(scipy.fft.fft2(product)) * allowed
    iy, ix = np.unravel_index(int(spectrum.argmax()), spectrum.shape)
    plane = np.array([0.0, slope_y[iy], slope_x[ix]])
    # Without the coarse plane the product varies slowly: block sums suffice.
    blocks, coordinates = _blocks(level(product, plane))
    return plane + _refined_plane(blocks, coordinates)


def level(image: NDArray[Any], plane: Real) -> Complex:
    """Remove a phase plane: phase at the array's centre (rad), slopes along y and x (rad per pixel)."""
    y, x = (np.arange(n) - (n - 1) / 2 for n in image.shape)
    ramp_y = np.exp(-1j * (plane[0] + plane[1] * y))
    return np.asarray(image * ramp_y[:, None] * np.exp(-1j * plane[2] * x)[None, :])


def _blocks(product: Complex, max_blocks: int = 64) -> tuple[Complex, Real]:
    """Return block sums of an image, and their coordinates about the array's centre, shape (2, block)."""
    size = max(1, min(product.shape) // max_blocks)
    starts = [np.arange(0, n, size) for n in product.shape]
    sums = np.add.reduceat(np.add.reduceat(product, starts[0], axis=0), starts[1], axis=1)
    # The last block may be narrower.
    middles = [(s + np.minimum(s + size, n) - n) / 2 for s, n in zip(starts, product.shape, strict=True)]
    y, x = np.meshgrid(*middles, indexing="ij")
    return sums.ravel(), np.stack([y.ravel(), x.ravel()])


def _refined_plane(blocks: Complex, coordinates: Real, iterations: int = 50) -> Real:
    """Maximise Σ Re(blocks · exp(−i·plane)) by Newton-like steps, starting at the phase of the sum."""
    columns = np.stack([np.ones(coordinates.shape[1]), *coordinates], axis=1)
    weights = np.abs(blocks)
    normal = columns.T @ (weights[:, None] * columns)
    plane = np.array([np.angle(blocks.sum()), 0.0, 0.0])
    for _ in range(iterations):
        levelled = blocks * np.exp(-1j * (columns @ plane))
        # Sine, not angle: outliers and wrapped pixels cannot dominate the step.
        step = np.linalg.lstsq(normal, columns.T @ np.imag(levelled), rcond=None)[0]
        plane = plane + step
        if float(np.abs(columns @ step).max()) < 1e-9:
            break
    return np.asarray(plane)
