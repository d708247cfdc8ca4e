"""The network that ships with the package: where it lies, and for which models it is a start (docs/model-card.md)."""

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
    Read the model file that ships with the package.

    Its calibration is that of no scan: a model made from it takes scale and probe from the scan it meets.
    """
    return read_bundle(SHIPPED)


def pretrained_weights(config: ModelConfig) -> dict[str, NDArray[np.float32]] | None:
    """Return the shipped network's weights by canonical name, or None where a model has another network."""
    bundle = shipped_bundle()
    if not same_network(config, bundle.training.model):
        return None
    return {name: value for name, value in bundle.weights.items() if name not in (LOG_SCALE, PROBE)}


def same_network(one: ModelConfig, other: ModelConfig) -> bool:
    """Return whether two models have equal networks, fed alike, so that weights of one serve the other."""
    return all(getattr(one, name) == getattr(other, name) for name in NETWORK_FIELDS)
