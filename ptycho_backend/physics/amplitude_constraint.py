"""
The physics inside the unrolled network: first estimate and data-consistency step (spec: physics 6).

Both keep the measured amplitude, borrow a phase, and divide out the probe.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.physics.propagation import far_field, near_field

REGULARISATION = 0.05  # of the brightest probe pixel: bounds the division where the probe is dark
BACKGROUND = 1e-3  # of a mean intensity of 1/4; a wave far below it has the phase of its rounding


def fill_amplitude(probe: NDArray[Any]) -> NDArray[np.float64]:
    """Return the amplitude that fills bad pixels of a network input: what an object of 1 would give, (y, x)."""
    return np.sqrt((np.abs(far_field(np.asarray(probe, dtype=np.complex128))) ** 2).sum(axis=0))


def initial_estimate(x: NDArray[Any], probe: NDArray[Any]) -> NDArray[Any]:
    """
    Estimate patches without any network: O⁰ = o₀ + (1 − W).

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
    Spec: physics 6.1. It is the data-consistency step applied to an object of 1; W = 1 − regularisation / denominator
    is the share of a pixel that the probe determines.
    """
    return constrain_amplitude(np.ones_like(x, dtype=np.result_type(x, np.complex64)), x, probe)


def constrain_amplitude(
    patches: NDArray[Any], x: NDArray[Any], probe: NDArray[Any], mask: NDArray[Any] | float = 1.0
) -> NDArray[Any]:
    """
    Return D(O) = O + Σ_m P̄_m·F⁻¹(c·F(P_m O)) / (Σ|P|² + 0.05·max Σ|P|²), c = sqrt((x² + β)/(Σ|F(P_m O)|² + β)) − 1.

    The measured amplitude replaces the predicted one; each mode keeps its phase and its share. The background β
    stands on both sides: a pixel where neither is more than that changes nothing. Bad pixels (mask 0) keep the
    predicted wave.

    Notes
    -----
    Spec: physics 6.2. Source: the amplitude projection of Gerchberg and Saxton (1972) followed by the object update of
    Rodenburg and Faulkner (2004) with the regularised denominator.
    """
    waves = patches[..., None, :, :] * probe
    detector = far_field(waves)
    predicted = (np.abs(detector) ** 2).sum(axis=-3, keepdims=True)
    correction = (np.sqrt((x[..., None, :, :] ** 2 + BACKGROUND) / (predicted + BACKGROUND)) - 1.0) * mask
    update = (np.conj(probe) * near_field(detector * correction)).sum(axis=-3)
    return patches + update / regularised_intensity(probe)


def accelerated(
    patches: NDArray[Any], x: NDArray[Any], probe: NDArray[Any], mask: NDArray[Any] | float, iterations: int
) -> NDArray[Any]:
    """
    Repeat the data-consistency step from extrapolated patches: O_{k+1} = D(O_k + k/(k + 3)·(O_k − O_{k−1})).

    Notes
    -----
    Spec: physics 6.5. Source: the momentum of Nesterov (1983).
    """
    before = patches
    for k in range(iterations):
        ahead = patches + k / (k + 3) * (patches - before)
        before, patches = patches, constrain_amplitude(ahead, x, probe, mask)
    return patches


def regularised_intensity(probe: NDArray[Any]) -> NDArray[Any]:
    """Return Σ_m|P_m|² + 0.05·max Σ_m|P_m|², shape (y, x)."""
    total = (np.abs(probe) ** 2).sum(axis=-3)
    return np.asarray(total + REGULARISATION * total.max())
