"""What a checkpoint holds of Keras' Adam, in canonical names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from ptycho.engine.optimizer import Adam
from ptycho_backend.model_file.trainer_state import TrainerState
from ptycho_backend.network.weights import check_weights


def moments_of(optimizer: Adam, variables: Mapping[str, keras.Variable]) -> dict[str, Any]:
    """Return Adam's steps and moments as fields of a :class:`TrainerState`."""
    return {
        "steps": int(optimizer.iterations.value),
        "first": _arrays(variables, optimizer._momentums),
        "second": _arrays(variables, optimizer._velocities),
    }


def restore_moments(optimizer: Adam, variables: Mapping[str, keras.Variable], state: TrainerState) -> None:
    """Give Adam, built for these variables, the steps and moments of a state."""
    if state.steps == 0:
        return
    shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
    for moments, own in ((state.first, optimizer._momentums), (state.second, optimizer._velocities)):
        check_weights(moments, shapes)
        for name, variable in zip(variables, own, strict=True):
            variable.assign(moments[name])
    optimizer.iterations.assign(state.steps)


def _arrays(variables: Mapping[str, keras.Variable], own: list[keras.Variable]) -> dict[str, np.ndarray]:
    return {name: np.array(variable.value.numpy()) for name, variable in zip(variables, own, strict=True)}
