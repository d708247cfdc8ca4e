"""
Unrolled estimates and loss terms on the arrays of an engine (spec: physics 5.7, 6.3).

Engines share this module: it uses only operators and the physics functions of an engine. The oracle
:mod:`ptycho_backend.network.reference` is independent of it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from ptycho_backend.config import ModelConfig, TrainingConfig
from ptycho_backend.engines.model import required_labels
from ptycho_backend.network.physics_constants import constraint_share

Array = Any


def unrolled_estimates(
    physics: ModuleType, config: ModelConfig, batch: Any, probe: Array, object_update: Callable[..., Array]
) -> list[Array]:
    """
    Return the object patches (group, channel, y, x) after every step of "unet"; the last are its prediction.

    Parameters
    ----------
    physics : module
        Physics functions of the engine.
    config : ModelConfig
    batch : Batch
        Batch with tensors in place of arrays.
    probe : complex, shape (mode, y, x)
    object_update : callable
        Network of a step: takes its name and its input patches by keyword.
    """
    estimate = physics.initial_estimate(batch.x, probe)
    estimate = physics.accelerated(estimate, batch.x, probe, batch.mask, config.initial_iterations)
    estimates = [estimate + object_update("step1", estimate=estimate)]
    for step in range(2, config.unrolled_steps + 1):
        constrained = physics.constrain_amplitude(estimates[-1], batch.x, probe, batch.mask)
        update = object_update(f"step{step}", constrained=constrained, estimate=estimates[-1])
        estimates.append(constrained + update)
    return estimates


def loss_terms(physics: ModuleType, training: TrainingConfig, model: Any, patches: Array, batch: Any) -> list[Array]:
    """
    Return the weighted terms of the training loss; their sum is a mean over the batch's groups.

    Parameters
    ----------
    physics : module
        Physics functions of the engine.
    training : TrainingConfig
    model : object
        Module of the engine, with `probe`, `weight`, `amplitude_per_root_count`, `expected_counts` and
        `measured_counts`.
    patches : complex, shape (group, channel, y, x)
    batch : Batch
        Batch with tensors in place of arrays.
    """
    terms = []
    if training.model.model_type == "supervised":
        terms.append(physics.label_mae(patches, required_labels(batch.labels), model.weight))
    else:
        if training.nll_weight > 0 or training.mae_weight > 0:
            terms += _data_terms(physics, training, model, patches, batch)
        if training.realspace_mae_weight > 0:
            error = physics.label_mae(patches, required_labels(batch.labels), model.weight)
            terms.append(training.realspace_mae_weight * error)
    if training.realspace_weight > 0:
        terms.append(training.realspace_weight * physics.total_variation(patches, model.weight))
    return terms


def _data_terms(physics: ModuleType, training: TrainingConfig, model: Any, patches: Array, batch: Any) -> list[Array]:
    share, r, counts = constraint_share(training), model.amplitude_per_root_count, model.measured_counts(batch)
    candidates = [(1.0 - share, patches)] if share < 1.0 else []
    if share > 0.0:
        candidates.append((share, physics.constrain_amplitude(patches, batch.x, model.probe, batch.mask)))
    terms = []
    for part, candidate in candidates:
        expected = model.expected_counts(candidate)
        if training.nll_weight > 0:
            terms.append(part * training.nll_weight * physics.poisson(expected, counts, batch.mask))
        if training.mae_weight > 0:
            terms.append(part * training.mae_weight * physics.amplitude_mae(expected, counts, batch.mask, r))
    return terms
