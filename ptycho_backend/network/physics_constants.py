"""Physics constants of a model, computed in NumPy for all engines."""

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
    Physics constants of one model: probe, patch weight, blur and scales.

    Parameters
    ----------
    probe : complex64, shape (mode, y, x)
    probe_support : float32, shape (y, x)
        1 inside the support of a trained probe (`probe_mask`), 0 outside.
    weight : float32, shape (y, x)
        Weight of each patch pixel: Σ|P|²/max + 1e-3 inside the predicted region, 0 outside.
    smoothing : float32, shape (N, N), optional
        Blur matrix of the exit wave; None without blur.
    counts_per_intensity : float
        photon_scale / r².
    amplitude_per_root_count : float
        Normalised amplitude of one photon, r / sqrt(photon_scale); counts are the square of x over it.
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
            counts_per_intensity=calibration.counts_per_intensity,
            amplitude_per_root_count=calibration.rms_input_scale / np.sqrt(calibration.photon_scale),
        )


def patch_weight(config: ModelConfig, probe: NDArray[np.complex64]) -> NDArray[np.float32]:
    """Return the weight of each patch pixel, 0 outside the region that the network predicts."""
    weight = probe_weight(probe).astype(np.float32)
    if predicts_whole_window(config):
        return weight
    quarter = probe.shape[-1] // 4
    return np.pad(weight[quarter:-quarter, quarter:-quarter], quarter)


def constraint_share(training: TrainingConfig) -> float:
    """Return the share of the data loss after one more amplitude constraint, which only "unet" has."""
    return training.constraint_share if training.model.architecture == "unet" else 0.0
