"""Weights as canonical arrays: what every engine starts from, and checks before it loads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.config import TrainingConfig
from ptycho_backend.engines.model import LOG_SCALE, PROBE, parts_of
from ptycho_backend.errors import ModelFileError, nearest_name
from ptycho_backend.network.architectures import initial_weights
from ptycho_backend.physics.calibration import Calibration


def starting_weights(training: TrainingConfig, calibration: Calibration) -> dict[str, NDArray[np.float32]]:
    """
    Return all weights of an untrained model.

    Returns
    -------
    dict of float32 arrays by canonical name
        The network's as drawn from the seed, a scale of 1, and the calibration's probe.

    Notes
    -----
    Spec: network 4.1.
    """
    return {
        **initial_weights(training.model, training.seed),
        LOG_SCALE: np.zeros((), np.float32),
        PROBE: parts_of(calibration.probe).astype(np.float32),
    }


def check_weights(weights: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """
    Refuse weights that do not fit a model exactly.

    Raises
    ------
    ModelFileError
        For missing, unknown, misshapen or non-finite weights, by name.
    """
    missing, unknown = sorted(set(shapes) - set(weights)), sorted(set(weights) - set(shapes))
    if missing or unknown:
        hint = nearest_name(unknown[0], missing) if unknown and missing else None
        raise ModelFileError(
            "Weights and model must name the same arrays.",
            expected=f"{len(shapes)} arrays; missing: {', '.join(missing[:5]) or 'none'}",
            received=f"{len(weights)} arrays; unknown: {', '.join(unknown[:5]) or 'none'}",
            fix=f"rename '{unknown[0]}' to '{hint}'" if hint else "use the configuration the weights came from",
        )
    for name, shape in shapes.items():
        array = np.asarray(weights[name])
        if array.shape != tuple(shape) or not np.isfinite(array).all():
            raise ModelFileError(
                "Each weight has the shape its model gives it, and finite values.",
                expected=f"'{name}' of shape {tuple(shape)}",
                received=f"shape {array.shape}{'' if np.isfinite(array).all() else ' with non-finite values'}",
                fix="use the configuration the weights came from",
            )
