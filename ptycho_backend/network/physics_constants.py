"""The numbers an engine needs besides data and weights, computed once in NumPy for both engines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.config import ModelConfig, TrainingConfig
from ptycho_backend.network.architectures import predicts_whole_window
from ptycho_backend.physics.calibration import Calibration, disc, probe_weight
from ptycho_backend.physics.forward import smoothing_matrix


@dataclass(frozen=True, eq=False)
class PhysicsConstants:
    """
    Constants of one model.

    Parameters
    ----------
    probe : complex64, shape (mode, y, x)
    probe_support : float32, shape (y, x)
        1 where a trained probe may be non-zero (`probe_mask`).
    weight : float32, shape (y, x)
        Trust in each pixel of a patch: Σ|P|²/max + 1e-3 where the network predicts it, else 0.
    smoothing : float32, shape (N, N), optional
        Blur matrix of the exit wave; None for none.
    counts_per_intensity : float
        photon_scale / r².
    amplitude_per_root_count : float
        r / sqrt(photon_scale): normalised amplitude of one photon, so that counts k = (x / this)².
    """

    probe: NDArray[np.complex64]
    probe_support: NDArray[np.float32]
    weight: NDArray[np.float32]
    smoothing: NDArray[np.float32] | None
    counts_per_intensity: float
    amplitude_per_root_count: float

    @staticmethod
    def of(config: ModelConfig, calibration: Calibration) -> PhysicsConstants:
        """Compute the constants of a model and its calibration."""
        N = calibration.N
        support = disc(N, N / 4) if config.probe_mask else np.ones((N, N), dtype=bool)
        sigma = config.gaussian_smoothing_sigma
        return PhysicsConstants(
            probe=calibration.probe,
            probe_support=support.astype(np.float32),
            weight=patch_weight(config, calibration.probe),
            smoothing=smoothing_matrix(N, sigma).astype(np.float32) if sigma > 0 else None,
            counts_per_intensity=calibration.photon_scale / calibration.rms_input_scale**2,
            amplitude_per_root_count=calibration.rms_input_scale / np.sqrt(calibration.photon_scale),
        )


def patch_weight(config: ModelConfig, probe: NDArray[np.complex64]) -> NDArray[np.float32]:
    """Return the trust in each pixel of a patch, 0 outside the support the network predicts."""
    weight = probe_weight(probe).astype(np.float32)
    if predicts_whole_window(config):
        return weight
    quarter = probe.shape[-1] // 4
    inside = np.zeros_like(weight)
    inside[quarter:-quarter, quarter:-quarter] = weight[quarter:-quarter, quarter:-quarter]
    return inside


def constraint_share(training: TrainingConfig) -> float:
    """Return the share of the data loss taken after one more data-consistency step; only "unet" has that step."""
    return training.constraint_share if training.model.architecture == "unet" else 0.0
