"""Centred orthonormal FFT between the sample and a far-field detector (spec: physics 3)."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

AXES = (-2, -1)


def far_field(exit_wave: NDArray[Any]) -> NDArray[Any]:
    """
    Propagate an exit wave to a far-field detector.

    Unitary: total intensity is conserved. Zero frequency lies on pixel ``(y // 2, x // 2)``.

    Parameters
    ----------
    exit_wave : complex64 or complex128, shape (..., y, x), sqrt(photons)
        Field just behind the sample.

    Returns
    -------
    complex, same shape, dtype and unit
        Field on the detector.

    Notes
    -----
    Spec: physics 3.1.

    References
    ----------
    Goodman, *Introduction to Fourier Optics*, section 4.3.
    """
    # ifftshift, not fftshift: they differ if a side is odd.
    centred = np.fft.ifftshift(exit_wave, axes=AXES)
    return np.fft.fftshift(scipy.fft.fft2(centred, axes=AXES, norm="ortho"), axes=AXES)


def near_field(detector_wave: NDArray[Any]) -> NDArray[Any]:
    """Propagate a detector wave back to the sample: inverse and adjoint of :func:`far_field`."""
    centred = np.fft.ifftshift(detector_wave, axes=AXES)
    return np.fft.fftshift(scipy.fft.ifft2(centred, axes=AXES, norm="ortho"), axes=AXES)
