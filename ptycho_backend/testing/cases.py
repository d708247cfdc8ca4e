"""
Test cases of models: random weights, batches of a scan, and the oracle's results for them.

Each result of the oracle is computed once and compared with several engines and devices.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.config import ModelConfig, TrainingConfig
from ptycho_backend.data.batching import Batch, Samples
from ptycho_backend.data.grouping import group_positions
from ptycho_backend.data.scan import Scan
from ptycho_backend.engines.model import LOG_SCALE, PROBE, parts_of
from ptycho_backend.network import reference
from ptycho_backend.network.architectures import parameters
from ptycho_backend.network.physics_constants import PhysicsConstants
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.physics.losses import global_phase_factor
from ptycho_backend.testing.differences import derivative_at_zero

NEIGHBOURS = 7

Values = Mapping[str, NDArray[Any]]


class Fields(NamedTuple):
    """Fields of a model and of its training that differ from the defaults."""

    model: dict[str, Any]
    training: dict[str, Any]


# Together they cover both architectures, every part of a model, every loss, merged groups and single patterns.
MODELS = {
    "unet": Fields(
        {"gridsize": 2, "unrolled_steps": 2, "gaussian_smoothing_sigma": 0.8},
        {"mae_weight": 0.5, "realspace_weight": 0.1, "constraint_share": 0.5, "probe_trainable": True},
    ),
    "cnn": Fields({"architecture": "cnn", "gridsize": 2}, {"probe_trainable": True}),
    "flat": Fields({"architecture": "cnn", "pad_object": False}, {}),
    "single": Fields({"unrolled_steps": 1, "initial_iterations": 2}, {"probe_trainable": True}),
}


@dataclass(frozen=True, eq=False)
class ModelCase:
    """
    Model configuration, weights and one batch, with the oracle's results.

    Parameters
    ----------
    training : TrainingConfig
    samples : Samples
    batch : Batch
    weights : float32 arrays by canonical name
    """

    training: TrainingConfig
    samples: Samples
    batch: Batch
    weights: dict[str, NDArray[np.float32]]
    _derivatives: dict[tuple[str, ...], float] = field(default_factory=dict, repr=False)

    @property
    def config(self) -> ModelConfig:
        """The model's configuration."""
        return self.training.model

    @functools.cached_property
    def constants(self) -> PhysicsConstants:
        """Constants of the model's physics."""
        return PhysicsConstants.of(self.config, self.samples.calibration)

    @functools.cached_property
    def patches(self) -> NDArray[np.complex128]:
        """The oracle's patches."""
        return reference.reference_patches(self.config, self.weights, self.constants, self.batch)

    @functools.cached_property
    def constrained_patches(self) -> NDArray[np.complex128]:
        """The oracle's patches after one more amplitude constraint."""
        return reference.reference_patches(self.config, self.weights, self.constants, self.batch, True)

    @functools.cached_property
    def counts(self) -> NDArray[np.float64]:
        """The oracle's expected counts."""
        return reference.reference_counts(self.config, self.weights, self.constants, self.batch)

    @functools.cached_property
    def label_phase(self) -> NDArray[Any] | None:
        """Phase factors between groups and labels; derivatives treat them as constants."""
        if self.batch.labels is None:
            return None
        return global_phase_factor(self.patches, self.batch.labels, self.constants.weight)

    def loss(self, weights: Values | None = None, **training: Any) -> float:
        """Return the oracle's loss, optionally with other weights or other training fields."""
        config = dataclasses.replace(self.training, **training)
        return reference.reference_loss(config, weights or self.weights, self.constants, self.batch)

    def derivative(self, directions: Values) -> float:
        """Return the oracle's derivative of the loss along a direction in some of the weights."""
        return derivative_at_zero(lambda step: self._loss_at(directions, step) if step else self._loss_here)

    def gradient_of_oracle(self, name: str) -> NDArray[np.float64]:
        """Return the oracle's gradient by one weight, element by element; slow for large weights."""
        gradient = np.zeros(self.weights[name].shape)
        for index in np.ndindex(gradient.shape):
            direction = np.zeros_like(gradient)
            direction[index] = 1.0
            gradient[index] = self.derivative({name: direction})
        return gradient

    @functools.cached_property
    def directions(self) -> dict[str, NDArray[np.float64]]:
        """One random direction of length 1 for every weight."""
        rng = np.random.default_rng(13)
        drawn = {name: rng.normal(size=value.shape) for name, value in self.weights.items()}
        return {name: direction / np.linalg.norm(direction) for name, direction in drawn.items()}

    def derivative_along(self, names: tuple[str, ...]) -> float:
        """Return the oracle's derivative along :attr:`directions` of some weights; cached."""
        if names not in self._derivatives:
            self._derivatives[names] = self.derivative({name: self.directions[name] for name in names})
        return self._derivatives[names]

    @functools.cached_property
    def _loss_here(self) -> float:
        return self._loss_at({}, 0.0)

    def _loss_at(self, directions: Values, step: float) -> float:
        shifted = {name: self.weights[name] + step * directions[name] for name in directions}
        weights: Values = {**self.weights, **shifted}
        return reference.reference_loss(self.training, weights, self.constants, self.batch, self.label_phase)


def random_weights(config: ModelConfig, probe: NDArray[Any], rng: np.random.Generator) -> dict[str, Any]:
    """Draw weights that make every parameter matter: large head kernels, and biases other than 0."""
    weights: dict[str, Any] = {}
    for parameter in parameters(config):
        kernel = dataclasses.replace(parameter, gain=1.0).draw(rng)
        weights[parameter.name] = kernel if kernel.ndim == 4 else rng.normal(0, 0.05, kernel.shape)
    parts = parts_of(probe)
    weights[PROBE] = parts + 0.02 * np.abs(parts).max() * rng.normal(size=parts.shape)
    weights[LOG_SCALE] = np.array(0.07)
    return {name: np.asarray(value, dtype=np.float32) for name, value in weights.items()}


def samples_of(scan: Scan, model: ModelConfig, with_labels: bool = False) -> Samples:
    """Return the groups of a scan for a model."""
    groups = group_positions(scan.positions_px, model.gridsize, NEIGHBOURS, None, np.random.default_rng(1))
    return Samples(scan, groups, calibrate(scan, model), with_labels)


@functools.lru_cache(maxsize=8)
def training_case(name: str, scan: Scan) -> tuple[TrainingConfig, Samples]:
    """Return the training and samples of a small model in :data:`MODELS`; one object per scan, so engines cache it."""
    fields = MODELS[name]
    model = ModelConfig(**{"N": scan.N, "n_filters_scale": 1, **fields.model})
    label_weight = 0.3 if name == "unet" and scan.obj is not None else 0.0
    training = TrainingConfig(model=model, **{"realspace_mae_weight": label_weight, **fields.training})
    return training, samples_of(scan, model, training.realspace_mae_weight > 0)


@functools.lru_cache(maxsize=16)
def random_case(name: str, scan: Scan, seed: int, n_groups: int = 1) -> ModelCase:
    """Draw weights and a batch for a model in :data:`MODELS`."""
    training, samples = training_case(name, scan)
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(samples), size=n_groups, replace=False)
    weights = random_weights(training.model, samples.calibration.probe, rng)
    return ModelCase(training, samples, samples.batch(rows), weights)
