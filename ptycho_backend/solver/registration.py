"""
What two images of one object may differ in without either being wrong: a small shift and a phase plane.

Diffraction fixes an object only up to a constant phase; a detector centre that is a fraction of a pixel off
adds a linear phase ramp; scan coordinates have no absolute origin. Spec: metrics 2 and 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Complex = NDArray[np.complex128]
Real = NDArray[np.float64]

MARGIN_PX = 16  # around a piece that is moved by fractions of a pixel: ringing dies out in it
SPLINE_ORDER = 5
# A detector centre that is n pixels off makes a ramp of 2π·n/N; a steeper one is no such trace but an error
# (half a window off, for example) that must stay visible.
STEEPEST_RAD_PER_PX = 0.5
SEARCH = ((0.1, 11), (0.01, 11), (0.001, 11))  # step (px) and reach (steps) of each refinement of a shift


def remove_ramp(obj: NDArray[Any], weights: NDArray[Any] | None = None) -> tuple[NDArray[np.complex64], Real]:
    """
    Remove the linear phase ramp of an object, the trace of a detector centre that is off.

    Parameters
    ----------
    obj : complex, shape (y, x)
    weights : float, shape (y, x), optional
        How far a pixel can be trusted, for example the coverage; None trusts all alike.

    Returns
    -------
    obj : complex64, shape (y, x)
        Without the ramp; the phase at the array's centre stays.
    ramp_rad_per_px : float64, shape (2,), (y, x)
        What was removed.

    Notes
    -----
    Spec: metrics 2.3.
    """
    wide = np.asarray(obj, dtype=np.complex128)
    plane = fit_plane(wide if weights is None else wide * weights)
    levelled = level(wide, np.array([0.0, *plane[1:]]))
    return levelled.astype(np.complex64), plane[1:]


def fit_plane(product: Complex) -> Real:
    """
    Fit a phase plane to a complex image: the plane that makes Σ Re(product · exp(−i·plane)) largest.

    Parameters
    ----------
    product : complex128, shape (y, x)
        For two images, one times the conjugate of the other; phase wraps do no harm.

    Returns
    -------
    float64, shape (3,)
        Phase at the array's centre, rad, and slopes along y and x, rad per pixel, at most about 0.5.
        Zeros for a dark image.

    Notes
    -----
    Spec: metrics 2.2.
    """
    if not np.any(product):
        return np.zeros(3)
    slope_y, slope_x = (2 * np.pi * scipy.fft.fftfreq(n) for n in product.shape)
    allowed = (np.abs(slope_y) <= STEEPEST_RAD_PER_PX)[:, None] & (np.abs(slope_x) <= STEEPEST_RAD_PER_PX)
    spectrum = np.abs(scipy.fft.fft2(product)) * allowed
    iy, ix = np.unravel_index(int(spectrum.argmax()), spectrum.shape)
    plane = np.array([0.0, slope_y[iy], slope_x[ix]])
    # Once the coarse plane is gone the product varies slowly, so blocks of it say as much as pixels.
    blocks, coordinates = _blocks(level(product, plane))
    return plane + _refined_plane(blocks, coordinates)


def level(image: NDArray[Any], plane: Real) -> Complex:
    """Remove a phase plane: phase at the array's centre (rad), slopes along y and x (rad per pixel)."""
    y, x = (np.arange(n) - (n - 1) / 2 for n in image.shape)
    ramp_y = np.exp(-1j * (plane[0] + plane[1] * y))
    return np.asarray(image * ramp_y[:, None] * np.exp(-1j * plane[2] * x)[None, :])


def find_shift(image: Complex, truth: Complex, max_shift_px: float) -> Real:
    """
    Find how far an image lies from the truth: image(x + shift) ≈ truth(x).

    The peak of the cross-correlation (Hann window, means removed), searched within the bound on whole pixels
    and then down to a thousandth of a pixel.

    Parameters
    ----------
    image, truth : complex128, shape (y, x)
        Without relative phase plane.
    max_shift_px : float

    Returns
    -------
    float64, shape (2,), pixels, (y, x)
    """
    cross = windowed_spectrum(image) * np.conj(windowed_spectrum(truth))
    shift = _peak(cross, np.zeros(2), 1.0, int(max_shift_px), max_shift_px)
    for step, reach in SEARCH:
        shift = _peak(cross, shift, step, reach, max_shift_px)
    return shift


def windowed_spectrum(image: NDArray[Any]) -> Complex:
    """Return the Fourier transform of an image without its mean, under a Hann window."""
    wy, wx = (np.hanning(n + 2)[1:-1] for n in image.shape)
    window = wy[:, None] * wx[None, :]
    # The mean under the window: any other would leave a peak that the window spreads over the first rings.
    mean = (image * window).sum() / window.sum()
    return np.asarray(scipy.fft.fft2((image - mean) * window))


def sample(image: NDArray[Any], corner_px: Real, shape: tuple[int, int]) -> Complex:
    """
    Cut a piece out of an image at a fractional corner, by a spline.

    Parameters
    ----------
    image : complex, shape (y, x)
    corner_px : float64, shape (2,), (y, x)
        Index of the piece's first pixel; what lies outside the image repeats its edge.
    shape : (int, int)

    Returns
    -------
    complex128, shape `shape`
    """
    whole = np.rint(corner_px).astype(int)
    rest = corner_px - whole
    moving = bool(np.abs(rest).max() > 1e-6)
    margin = MARGIN_PX if moving else 0
    rows, columns = (
        np.clip(np.arange(first - margin, first + n + margin), 0, side - 1)
        for first, n, side in zip(whole, shape, image.shape, strict=True)
    )
    piece = np.asarray(image[np.ix_(rows, columns)], dtype=np.complex128)
    return _moved(piece, rest)[margin:-margin, margin:-margin] if moving else piece


def _moved(piece: Complex, shift_px: Real) -> Complex:
    """Return piece(x + shift) by a quintic spline, which rings neither at edges nor at noise next to Nyquist."""
    import scipy.ndimage

    real, imaginary = (
        scipy.ndimage.shift(part, -shift_px, order=SPLINE_ORDER, mode="nearest") for part in (piece.real, piece.imag)
    )
    return np.asarray(real + 1j * imaginary)


def _peak(cross: Complex, around_px: Real, step_px: float, reach: int, bound_px: float) -> Real:
    """Return where the correlation is largest on a small grid of shifts, by a matrix Fourier transform."""
    grid = [np.clip(c + step_px * np.arange(-reach, reach + 1), -bound_px, bound_px) for c in around_px]
    to_y, to_x = (
        np.exp(2j * np.pi * shifts[:, None] * scipy.fft.fftfreq(n)[None, :])
        for shifts, n in zip(grid, cross.shape, strict=True)
    )
    correlation = np.real(to_y @ cross @ to_x.T)
    iy, ix = np.unravel_index(int(correlation.argmax()), correlation.shape)
    return np.array([grid[0][iy], grid[1][ix]])


def _blocks(product: Complex, most: int = 64) -> tuple[Complex, Real]:
    """Return block sums of an image, and their coordinates about the array's centre, shape (2, block)."""
    size = max(1, min(product.shape) // most)
    starts = [np.arange(0, n, size) for n in product.shape]
    sums = np.add.reduceat(np.add.reduceat(product, starts[0], axis=0), starts[1], axis=1)
    # The last block may be narrower, so its middle lies elsewhere.
    middles = [(s + np.minimum(s + size, n) - n) / 2 for s, n in zip(starts, product.shape, strict=True)]
    y, x = np.meshgrid(*middles, indexing="ij")
    return sums.ravel(), np.stack([y.ravel(), x.ravel()])


def _refined_plane(blocks: Complex, coordinates: Real, iterations: int = 50) -> Real:
    """Climb to the plane of largest Σ Re(blocks · exp(−i·plane)) from the phase of the sum."""
    columns = np.stack([np.ones(coordinates.shape[1]), *coordinates], axis=1)
    weights = np.abs(blocks)
    normal = columns.T @ (weights[:, None] * columns)
    plane = np.array([np.angle(blocks.sum()), 0.0, 0.0])
    for _ in range(iterations):
        levelled = blocks * np.exp(-1j * (columns @ plane))
        # Sine instead of angle: a step uphill that outliers and wrapped pixels cannot dominate.
        step = np.linalg.lstsq(normal, columns.T @ np.imag(levelled), rcond=None)[0]
        plane = plane + step
        if float(np.abs(columns @ step).max()) < 1e-9:
            break
    return np.asarray(plane)
