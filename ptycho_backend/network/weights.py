"""Canonical weights: initial values, and the check of names and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.config import TrainingConfig
from ptycho_backend.engines.model import LOG_SCALE, PROBE, parts_of
from ptycho_backend.errors import ModelFileError, nearest_name
from ptycho_backend.network.architectures import initial_weights, parameters
from ptycho_backend.physics.calibration import Calibration


def starting_weights(training: TrainingConfig, calibration: Calibration) -> dict[str, NDArray[np.float32]]:
    """
    Return all weights of an untrained model.

    Returns
    -------
    dict of float32 arrays by canonical name
        Network weights drawn from the seed, a scale of 1, and the probe of the calibration.

    Notes
    -----
    Spec: network 4.1.
    """
    return {
        **initial_weights(training.model, training.seed),
        LOG_SCALE: np.zeros((), np.float32),
        PROBE: parts_of(calibration.probe).astype(np.float32),
    }


def weight_shapes(training: TrainingConfig, calibration: Calibration) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all weights of a model by canonical name, without taking memory for them."""
    shapes = {parameter.name: parameter.shape for parameter in parameters(training.model)}
    return {**shapes, LOG_SCALE: (), PROBE: (*calibration.probe.shape, 2)}


def check_weights(weights: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """
    Check that weights have the names and shapes of a model, and finite values.

    Raises
    ------
    ModelFileError
        If a weight is missing, unknown, of another shape or non-finite; the message gives its name.
    """
    missing, unknown = sorted(set(shapes) - set(weights)), sorted(set(weights) - set(shapes))
    if missing or unknown:
        hint = nearest_name(unknown[0], missing) if unknown and missing else None
        raise ModelFileError(
            "Weights and model have the same array names.",
            expected=f"{len(shapes)} arrays; missing: {', '.join(missing[:5]) or 'none'}",
            received=f"{len(weights)} arrays; unknown: {', '.join(unknown[:5]) or 'none'}",
            fix=f"rename '{unknown[0]}' to '{hint}'" if hint else "use the configuration the weights came from",
        )
    for name, shape in shapes.items():
        array = np.asarray(weights[name])
        finite = bool(np.isfinite(array).all())
        if array.shape != tuple(shape) or not finite:
            raise ModelFileError(
                "Each weight has the shape of the model's parameter, and finite values.",
                expected=f"'{name}' of shape {tuple(shape)}",
                received=f"shape {array.shape}{'' if finite else ' with non-finite values'}",
                fix="use the configuration the weights came from",
            )
