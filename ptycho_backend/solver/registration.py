"""
Image registration: the shift between two images of one object, and the ramp of one (spec: metrics 2, 3).

Diffraction data leave both free. The phase has no absolute zero, and scan coordinates have no origin.
A wrong detector centre adds a linear phase ramp.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from ptycho_backend.data.phase_plane import fit_plane, level

Complex = NDArray[np.complex128]
Real = NDArray[np.float64]

MARGIN_PX = 16  # around a piece before a sub-pixel shift: spline ringing decays within it
SPLINE_ORDER = 5
SEARCH = ((0.1, 11), (0.01, 11), (0.001, 11))  # step (px) and half width (steps) of each refinement of a shift


def remove_ramp(obj: NDArray[Any], weights: NDArray[Any] | None = None) -> tuple[NDArray[np.complex64], Real]:
    """
    Remove the linear phase ramp that a wrong detector centre adds to an object.

    Parameters
    ----------
    obj : complex, shape (y, x)
    weights : float, shape (y, x), optional
        Weight of each pixel, for example the coverage; None: equal weights.

    Returns
    -------
    obj : complex64, shape (y, x)
        Object without the ramp; the phase at the array's centre is unchanged.
    ramp_rad_per_px : float64, shape (2,), (y, x)
        Slopes of the removed ramp.

    Notes
    -----
    Spec: metrics 2.3.
    """
    obj = np.asarray(obj, dtype=np.complex128)
    plane = fit_plane(obj if weights is None else obj * weights)
    return level(obj, np.array([0.0, *plane[1:]])).astype(np.complex64), plane[1:]


def find_shift(image: Complex, truth: Complex, max_shift_px: float) -> Real:
    """
    Return the shift with image(x + shift) ≈ truth(x): the peak of the cross-correlation.

    Means are removed and a Hann window is applied. The search starts on whole pixels and ends at 0.001 pixels.

    Parameters
    ----------
    image, truth : complex128, shape (y, x)
        Images without a relative phase plane.
    max_shift_px : float

    Returns
    -------
    float64, shape (2,), pixels, (y, x)
    """
    cross = windowed_spectrum(image) * np.conj(windowed_spectrum(truth))
    shift = _peak(cross, np.zeros(2), 1.0, int(max_shift_px), max_shift_px)
    for step_px, half_width in SEARCH:
        shift = _peak(cross, shift, step_px, half_width, max_shift_px)
    return shift


def windowed_spectrum(image: NDArray[Any]) -> Complex:
    """Return the Fourier transform of an image without its mean, under a Hann window."""
    wy, wx = (np.hanning(n + 2)[1:-1] for n in image.shape)
    window = wy[:, None] * wx[None, :]
    # The windowed mean: any other leaves a peak that the window spreads over the lowest frequencies.
    mean = (image * window).sum() / window.sum()
    return np.asarray(scipy.fft.fft2((image - mean) * window))


def sample(image: NDArray[Any], corner_px: Real, shape: tuple[int, int]) -> Complex:
    """
    Extract a piece of an image at a fractional corner, by a quintic spline.

    Parameters
    ----------
    image : complex, shape (y, x)
    corner_px : float64, shape (2,), (y, x)
        Index of the piece's first pixel. Edge pixels are repeated outside the image.
    shape : (int, int)

    Returns
    -------
    complex128, shape `shape`
    """
    nearest_px = np.rint(corner_px).astype(int)
    fraction_px = corner_px - nearest_px
    fractional = bool(np.abs(fraction_px).max() > 1e-6)
    margin = MARGIN_PX if fractional else 0
    rows, columns = (
        np.clip(np.arange(first - margin, first + n + margin), 0, side - 1)
        for first, n, side in zip(nearest_px, shape, image.shape, strict=True)
    )
    piece = np.asarray(image[np.ix_(rows, columns)], dtype=np.complex128)
    return _shift_spline(piece, fraction_px)[margin:-margin, margin:-margin] if fractional else piece


def _shift_spline(piece: Complex, shift_px: Real) -> Complex:
    """Return piece(x + shift). A spline rings less than a Fourier shift at edges and at noise near Nyquist."""
    import scipy.ndimage

    real, imaginary = (
        scipy.ndimage.shift(part, -shift_px, order=SPLINE_ORDER, mode="nearest") for part in (piece.real, piece.imag)
    )
    return np.asarray(real + 1j * imaginary)


def _peak(cross: Complex, centre_px: Real, step_px: float, half_width: int, bound_px: float) -> Real:
    """Return the shift of largest correlation on a small grid, by a matrix Fourier transform."""
    grid = [np.clip(c + step_px * np.arange(-half_width, half_width + 1), -bound_px, bound_px) for c in centre_px]
    to_y, to_x = (
        np.exp(2j * np.pi * shifts[:, None] * scipy.fft.fftfreq(n)[None, :])
        for shifts, n in zip(grid, cross.shape, strict=True)
    )
    correlation = np.real(to_y @ cross @ to_x.T)
    iy, ix = np.unravel_index(int(correlation.argmax()), correlation.shape)
    return np.array([grid[0][iy], grid[1][ix]])
