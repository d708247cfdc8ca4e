"""Training losses and their shot-noise floor, in float64 (spec: physics 5)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_COUNTS = 1e-3  # lower bound of a predicted count: keeps the loss of a dark prediction finite


def half_deviance(expected: NDArray[Any], counts: NDArray[Any]) -> NDArray[np.float64]:
    """
    Return the Poisson half-deviance λ − k + k·ln(k/λ) of every pixel, with 0·ln 0 = 0 and λ ≥ 1e-3.

    Notes
    -----
    Spec: physics 5.1. Its gradient is that of the negative log-likelihood.
    For k > 0 the code computes k·(u − ln(1 + u)), u = λ/k − 1: accurate for large, well predicted counts.
    """
    lam = np.maximum(np.asarray(expected, dtype=np.float64), MIN_COUNTS)
    k = np.asarray(counts, dtype=np.float64)
    positive = k > 0
    safe = np.where(positive, k, 1.0)
    u = (lam - safe) / safe
    return np.where(positive, safe * (u - np.log1p(u)), lam)


def poisson(expected: NDArray[Any], counts: NDArray[Any], mask: NDArray[Any]) -> float:
    """Return the mean half-deviance over good pixels."""
    return _masked_mean(half_deviance(expected, counts), mask)


def amplitude_mae(expected: NDArray[Any], counts: NDArray[Any], mask: NDArray[Any], r: float) -> float:
    """Return the mean absolute error of normalised amplitude, r·|sqrt(λ) − sqrt(k)|, over good pixels."""
    # sqrt has an infinite slope at 0 and dark pixels are common: clamp first.
    lam = np.maximum(np.asarray(expected, dtype=np.float64), MIN_COUNTS)
    return _masked_mean(r * np.abs(np.sqrt(lam) - np.sqrt(np.asarray(counts, dtype=np.float64))), mask)


def total_variation(patches: NDArray[Any], weight: NDArray[Any]) -> float:
    """Return the weighted mean of |∂y O| + |∂x O| over patches (..., y, x), both forward differences."""
    dy = smooth_abs(np.diff(patches, axis=-2)) * weight[:-1, :]
    dx = smooth_abs(np.diff(patches, axis=-1)) * weight[:, :-1]
    n = np.prod(patches.shape[:-2])
    return float((dy.sum() + dx.sum()) / (n * weight.sum()))


def label_mae(
    patches: NDArray[Any], labels: NDArray[Any], weight: NDArray[Any], phase_factor: NDArray[Any] | None = None
) -> float:
    """
    Return the weighted mean of |O·u − L| over groups (group, channel, y, x), global phase removed.

    A diffraction pattern fixes no absolute phase: the factor u aligns each group with its label.
    u is `phase_factor`, by default :func:`global_phase_factor` of the patches. It carries no gradient.
    """
    u = global_phase_factor(patches, labels, weight) if phase_factor is None else phase_factor
    error = smooth_abs(patches * u - labels) * weight
    return float(error.sum() / (np.prod(patches.shape[:2]) * weight.sum()))


def global_phase_factor(patches: NDArray[Any], labels: NDArray[Any], weight: NDArray[Any]) -> NDArray[Any]:
    """Return u = conj(z)/|z|, z = Σ w·O·conj(L), for every group, shape (group, 1, 1, 1)."""
    z = (weight * patches * np.conj(labels)).sum(axis=(1, 2, 3), keepdims=True)
    return np.asarray(np.conj(z) / np.maximum(np.abs(z), 1e-12))


def smooth_abs(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return sqrt(|z|² + 1e-12): |z| with a finite slope at 0."""
    return np.sqrt(np.abs(np.asarray(values, dtype=np.complex128)) ** 2 + 1e-12)


def shot_noise_floor(expected: NDArray[Any], mask: NDArray[Any]) -> float:
    """
    Return the mean half-deviance of a perfect prediction: the part that photon noise causes.

    Parameters
    ----------
    expected : float, shape (..., y, x)
        Best estimate of the photons per pixel.
    mask : bool, shape (y, x)

    Notes
    -----
    Spec: physics 5.4. E[D] over k ~ Poisson(λ), by summation up to λ = 60 and by 1/2 + 1/(12 λ) + 1/(12 λ²) above.
    A fitted model reaches slightly lower values: it also fits noise.
    """
    return _masked_mean(expected_half_deviance(expected), mask)


def expected_half_deviance(expected: NDArray[Any]) -> NDArray[np.float64]:
    """Return the expected half-deviance of every pixel, E[D] over k ~ Poisson(λ)."""
    lam = np.maximum(np.asarray(expected, dtype=np.float64), MIN_COUNTS)
    grid = np.concatenate([np.geomspace(MIN_COUNTS, 1.0, 300), np.geomspace(1.0, 60.0, 200)[1:]])
    table = np.interp(np.log(lam), np.log(grid), _summed_half_deviance(grid))
    return np.where(lam > 60.0, 0.5 + 1 / (12 * lam) + 1 / (12 * lam**2), table)


def _summed_half_deviance(lam: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.special import gammaln

    k = np.arange(200.0)[:, None]
    probability = np.exp(k * np.log(lam) - lam - gammaln(k + 1))
    return np.asarray((probability * half_deviance(np.broadcast_to(lam, (200, lam.size)), k)).sum(axis=0))


def _masked_mean(values: NDArray[np.float64], mask: NDArray[Any]) -> float:
    n = np.prod(values.shape[:-2])
    return float((values * mask).sum() / (n * np.count_nonzero(mask)))
