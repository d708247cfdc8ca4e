"""Pretrained network of the package, and the check that a model can start from it (docs/model-card.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.config import ModelConfig
from ptycho_backend.engines.model import LOG_SCALE, PROBE
from ptycho_backend.model_file.bundle import FILE_NAME, Bundle, read_bundle

SHIPPED = Path(__file__).parent / "pretrained" / FILE_NAME
NETWORK_FIELDS = ("architecture", "n_filters_scale", "unrolled_steps", "initial_iterations")


def shipped_bundle() -> Bundle:
    """
    Read the pretrained model file of the package.

    Its calibration is nominal: a model for a scan takes scale and probe from that scan.
    """
    return read_bundle(SHIPPED)


def pretrained_weights(config: ModelConfig) -> dict[str, NDArray[np.float32]] | None:
    """Return the pretrained weights by canonical name, or None for a model with another network."""
    bundle = shipped_bundle()
    if not same_network(config, bundle.training.model):
        return None
    return {name: value for name, value in bundle.weights.items() if name not in (LOG_SCALE, PROBE)}


def same_network(one: ModelConfig, other: ModelConfig) -> bool:
    """Return whether two models have the same network and the same network inputs."""
    return all(getattr(one, name) == getattr(other, name) for name in NETWORK_FIELDS)
