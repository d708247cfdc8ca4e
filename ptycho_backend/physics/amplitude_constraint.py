"""
Amplitude constraint on single patches: first estimate, constraint step, accelerated steps (spec: physics 6).

Each step keeps the predicted phase, takes the measured amplitude and divides the probe out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.physics.momentum import extrapolate
from ptycho_backend.physics.propagation import far_field, near_field

REGULARISATION = 0.05  # relative to the maximum of Σ|P|²: bounds the division where the probe is dark
BACKGROUND = 1e-3  # the mean intensity is 1/4; the phase of a much darker wave is rounding noise


def fill_amplitude(probe: NDArray[Any]) -> NDArray[np.float64]:
    """Return the amplitude (y, x) that an object of 1 gives: it fills bad pixels of a network input."""
    return np.sqrt((np.abs(far_field(np.asarray(probe, dtype=np.complex128))) ** 2).sum(axis=0))


def initial_estimate(x: NDArray[Any], probe: NDArray[Any]) -> NDArray[Any]:
    """
    Estimate patches without a network: the amplitude constraint on an object of 1, O⁰ = o₀ + (1 − W).

    Parameters
    ----------
    x : float, shape (..., y, x)
        Normalised amplitude r·A, bad pixels filled.
    probe : complex, shape (mode, y, x)

    Returns
    -------
    complex, shape (..., y, x)

    Notes
    -----
    Spec: physics 6.1. The probe determines the share W = 1 − regularisation / denominator of a pixel.
    """
    return constrain_amplitude(np.ones_like(x, dtype=np.result_type(x, np.complex64)), x, probe)


def constrain_amplitude(
    patches: NDArray[Any], x: NDArray[Any], probe: NDArray[Any], mask: NDArray[Any] | float = 1.0
) -> NDArray[Any]:
    """
    Return D(O) = O + Σ_m P̄_m·F⁻¹(c·F(P_m O)) / (Σ|P|² + 0.05·max Σ|P|²), c = sqrt((x² + β)/(Σ|F(P_m O)|² + β)) − 1.

    The measured amplitude replaces the predicted one; each mode keeps its phase and its share.
    The background β damps the change of pixels that are dark in both. Bad pixels (mask 0) keep the predicted wave.

    Notes
    -----
    Spec: physics 6.2.

    References
    ----------
    Gerchberg and Saxton (1972): amplitude projection.
    Rodenburg and Faulkner (2004): object update with a regularised denominator.
    """
    waves = patches[..., None, :, :] * probe
    detector = far_field(waves)
    predicted = (np.abs(detector) ** 2).sum(axis=-3, keepdims=True)
    relative_residual = (np.sqrt((x[..., None, :, :] ** 2 + BACKGROUND) / (predicted + BACKGROUND)) - 1.0) * mask
    object_update = (np.conj(probe) * near_field(detector * relative_residual)).sum(axis=-3)
    return patches + object_update / regularised_intensity(probe)


def accelerated(
    patches: NDArray[Any], x: NDArray[Any], probe: NDArray[Any], mask: NDArray[Any] | float, iterations: int
) -> NDArray[Any]:
    """
    Repeat the amplitude constraint with momentum: O_{k+1} = D(O_k + k/(k + 3)·(O_k − O_{k−1})).

    Notes
    -----
    Spec: physics 6.5.
    """
    previous = patches
    for k in range(iterations):
        extrapolated = extrapolate(patches, previous, k)
        previous, patches = patches, constrain_amplitude(extrapolated, x, probe, mask)
    return patches


def regularised_intensity(probe: NDArray[Any]) -> NDArray[Any]:
    """Return Σ_m|P_m|² + 0.05·max Σ_m|P_m|², shape (y, x)."""
    total = (np.abs(probe) ** 2).sum(axis=-3)
    return np.asarray(total + REGULARISATION * total.max())
