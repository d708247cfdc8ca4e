"""Forward model: object patches, exit waves, detector intensity, expected counts (spec: physics 2 to 4)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.physics.propagation import far_field
from ptycho_backend.physics.translation import extract_patches, scatter_patches

MERGE_FLOOR = 1e-6  # avoids 0/0 on uncovered canvas pixels; covered ones weigh at least 1e-3


def merge(patches: NDArray[Any], offsets_px: NDArray[Any], weight: NDArray[Any], S: int) -> NDArray[np.complex128]:
    """
    Merge the patches of each group into one canvas by a weighted mean, which cannot amplify.

    Parameters
    ----------
    patches : complex, shape (group, channel, N, N)
    offsets_px : float, shape (group, channel, 2), (y, x) pixels
    weight : float, shape (N, N)
        Weight of each patch pixel; 0 outside the predicted region.
    S : int
        Canvas side, pixels.

    Returns
    -------
    complex128, shape (group, S, S)

    Notes
    -----
    Spec: physics 2.1.
    """
    offsets = np.asarray(offsets_px, dtype=np.float64)
    numerator = scatter_patches(weight * np.asarray(patches, dtype=np.complex128), offsets, S).sum(axis=1)
    weights = np.broadcast_to(weight, patches.shape).astype(np.float64)
    denominator = scatter_patches(weights, offsets, S).sum(axis=1)
    return np.asarray(numerator / (denominator + MERGE_FLOOR))


def consistent_patches(
    patches: NDArray[Any], offsets_px: NDArray[Any], weight: NDArray[Any], S: int
) -> NDArray[np.complex128]:
    """Merge each group into one canvas and extract one patch per member: overlapping patches then agree."""
    canvas = merge(patches, offsets_px, weight, S)
    offsets = np.asarray(offsets_px, dtype=np.float64)
    return extract_patches(canvas[:, None], offsets, patches.shape[-1])


def smoothing_matrix(N: int, sigma_px: float) -> NDArray[np.float64]:
    """
    Return the N×N matrix G of a Gaussian blur along one axis, zero outside; ``G E Gᵀ`` blurs an exit wave.

    The kernel sums to 1 and ends at 4 sigma. The identity for `sigma_px` = 0.
    """
    if sigma_px == 0.0:
        return np.eye(N)
    reach = int(np.ceil(4 * sigma_px))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_px) ** 2)
    kernel /= kernel.sum()
    distance = np.arange(N)[:, None] - np.arange(N)[None, :]
    return np.where(np.abs(distance) <= reach, kernel[np.clip(distance, -reach, reach) + reach], 0.0)


def exit_waves(patches: NDArray[Any], probe: NDArray[Any], sigma_px: float = 0.0) -> NDArray[Any]:
    """Illuminate patches (..., y, x) with every probe mode: (..., mode, y, x), optionally blurred."""
    waves = patches[..., None, :, :] * probe
    if sigma_px == 0.0:
        return waves
    G = smoothing_matrix(patches.shape[-1], sigma_px)
    return G @ waves @ G.T


def intensity(patches: NDArray[Any], probe: NDArray[Any], sigma_px: float = 0.0) -> NDArray[Any]:
    """Return Σ_modes |F(P·q)|², (..., y, x): incoherent modes add as intensities."""
    return np.asarray((np.abs(far_field(exit_waves(patches, probe, sigma_px))) ** 2).sum(axis=-3))


def expected_counts(
    patches: NDArray[Any],
    probe: NDArray[Any],
    counts_per_intensity: float,
    log_scale: float = 0.0,
    sigma_px: float = 0.0,
) -> NDArray[Any]:
    """
    Return the expected photons per pixel, λ = exp(2·log_scale)·I·counts_per_intensity.

    Parameters
    ----------
    patches : complex, shape (..., y, x)
    probe : complex, shape (mode, y, x), Σ |P|² = (N/2)²
    counts_per_intensity : float
        photon_scale / r², see :class:`~ptycho_backend.physics.calibration.Calibration`.
    log_scale : float
        Trained logarithm of the amplitude scale.
    sigma_px : float
        Gaussian smoothing of the exit wave, pixels.
    """
    return np.asarray(np.exp(2.0 * log_scale) * counts_per_intensity * intensity(patches, probe, sigma_px))
