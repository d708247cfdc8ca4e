"""State of Keras' Adam as canonical arrays; the core writes the checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from ptycho.engine.model import weights_of
from ptycho.engine.optimizer import Adam
from ptycho_backend.model_file.trainer_state import TrainerState
from ptycho_backend.network.weights import check_weights


def moments_of(optimizer: Adam, variables: Mapping[str, keras.Variable]) -> dict[str, Any]:
    """Return Adam's steps and moments as fields of a :class:`TrainerState`."""
    return {
        "steps": int(optimizer.iterations.value),
        "first": weights_of(dict(zip(variables, optimizer._momentums, strict=True))),
        "second": weights_of(dict(zip(variables, optimizer._velocities, strict=True))),
    }


def restore_moments(optimizer: Adam, variables: Mapping[str, keras.Variable], state: TrainerState) -> None:
    """Set the steps and moments of an Adam that was built for these variables."""
    if state.steps == 0:
        return
    shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
    for moments, targets in ((state.first, optimizer._momentums), (state.second, optimizer._velocities)):
        check_weights(moments, shapes)
        for name, target in zip(variables, targets, strict=True):
            target.assign(moments[name])
    optimizer.iterations.assign(state.steps)
