"""
Models with random weights and batches of a scan: what engines are asked, and what the oracle answers.

Answers are computed once for each case and then looked at by several checks, engines and devices.
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
from ptycho_backend.physics.losses import best_turn
from ptycho_backend.testing.differences import slope_at_zero

NEIGHBOURS = 7

Values = Mapping[str, NDArray[Any]]


class Kind(NamedTuple):
    """Fields of a model and of its training, apart from their defaults."""

    model: dict[str, Any]
    training: dict[str, Any]


# Together they hold every part of a model and every loss; both architectures, merged groups and single patterns.
KINDS = {
    "unet": Kind(
        {"gridsize": 2, "unrolled_steps": 2, "gaussian_smoothing_sigma": 0.8},
        {"mae_weight": 0.5, "realspace_weight": 0.1, "constraint_share": 0.5, "probe_trainable": True},
    ),
    "cnn": Kind({"architecture": "cnn", "gridsize": 2}, {"probe_trainable": True}),
    "flat": Kind({"architecture": "cnn", "pad_object": False}, {}),
    "single": Kind({"unrolled_steps": 1, "initial_iterations": 2}, {"probe_trainable": True}),
}


@dataclass(frozen=True, eq=False)
class ModelCase:
    """
    A model's description and weights, and a batch that it is asked about.

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
    _slopes: dict[tuple[str, ...], float] = field(default_factory=dict, repr=False)

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
    def consistent(self) -> NDArray[np.complex128]:
        """The oracle's patches after one more data-consistency step."""
        return reference.reference_patches(self.config, self.weights, self.constants, self.batch, True)

    @functools.cached_property
    def counts(self) -> NDArray[np.float64]:
        """The oracle's expected counts."""
        return reference.reference_counts(self.config, self.weights, self.constants, self.batch)

    @functools.cached_property
    def turn(self) -> NDArray[Any] | None:
        """Phases of the groups against their labels, which carry no gradient."""
        if self.batch.labels is None:
            return None
        return best_turn(self.patches, self.batch.labels, self.constants.weight)

    def loss(self, weights: Values | None = None, **training: Any) -> float:
        """Return the oracle's loss, on request with other weights or other training settings."""
        settings = dataclasses.replace(self.training, **training)
        return reference.reference_loss(settings, weights or self.weights, self.constants, self.batch)

    def slope(self, directions: Values) -> float:
        """Return the oracle's derivative of the loss along a direction in some of the weights."""
        return slope_at_zero(lambda step: self._loss_at(directions, step) if step else self._loss_here)

    def gradient_of_oracle(self, name: str) -> NDArray[np.float64]:
        """Return the oracle's gradient by one weight, element by element: for small weights only."""
        gradient = np.zeros(self.weights[name].shape)
        for place in np.ndindex(gradient.shape):
            direction = np.zeros_like(gradient)
            direction[place] = 1.0
            gradient[place] = self.slope({name: direction})
        return gradient

    @functools.cached_property
    def directions(self) -> dict[str, NDArray[np.float64]]:
        """One direction of length 1 in every weight."""
        rng = np.random.default_rng(13)
        drawn = {name: rng.normal(size=value.shape) for name, value in self.weights.items()}
        return {name: direction / np.linalg.norm(direction) for name, direction in drawn.items()}

    def slope_along(self, names: tuple[str, ...]) -> float:
        """Return the oracle's derivative along the directions of some weights; computed once."""
        if names not in self._slopes:
            self._slopes[names] = self.slope({name: self.directions[name] for name in names})
        return self._slopes[names]

    @functools.cached_property
    def _loss_here(self) -> float:
        return self._loss_at({}, 0.0)

    def _loss_at(self, directions: Values, step: float) -> float:
        moved = {name: self.weights[name] + step * directions[name] for name in directions}
        return reference.reference_loss(self.training, {**self.weights, **moved}, self.constants, self.batch, self.turn)


def random_weights(config: ModelConfig, probe: NDArray[Any], rng: np.random.Generator) -> dict[str, Any]:
    """Draw weights under which every parameter matters: no head near zero, no bias at zero."""
    weights: dict[str, Any] = {}
    for parameter in parameters(config):
        kernel = dataclasses.replace(parameter, gain=1.0).draw(rng)
        weights[parameter.name] = kernel if kernel.ndim == 4 else rng.normal(0, 0.05, kernel.shape)
    parts = parts_of(probe)
    weights[PROBE] = parts + 0.02 * np.abs(parts).max() * rng.normal(size=parts.shape)
    weights[LOG_SCALE] = np.array(0.07)
    return {name: np.asarray(value, dtype=np.float32) for name, value in weights.items()}


def samples_of(scan: Scan, model: ModelConfig, with_labels: bool = False) -> Samples:
    """Return the groups of a scan that belong to a model."""
    groups = group_positions(scan.positions_px, model.gridsize, NEIGHBOURS, None, np.random.default_rng(1))
    return Samples(scan, groups, calibrate(scan, model), with_labels)


def training_of(kind: str, scan: Scan) -> TrainingConfig:
    """Return a small model of one of :data:`KINDS`; where the scan knows its object, labels count too."""
    model = ModelConfig(**{"N": scan.N, "n_filters_scale": 1, **KINDS[kind].model})
    labels = 0.3 if kind == "unet" and scan.obj is not None else 0.0
    return TrainingConfig(model=model, **{"realspace_mae_weight": labels, **KINDS[kind].training})


@functools.lru_cache(maxsize=8)
def described(kind: str, scan: Scan) -> tuple[TrainingConfig, Samples]:
    """Return a kind of model and its samples; one object for each scan, so that engines build it only once."""
    training = training_of(kind, scan)
    return training, samples_of(scan, training.model, training.realspace_mae_weight > 0)


@functools.lru_cache(maxsize=16)
def drawn_case(kind: str, scan: Scan, seed: int, n_groups: int = 1) -> ModelCase:
    """Draw weights and a batch for a kind of model."""
    training, samples = described(kind, scan)
    rng = np.random.default_rng(seed)
    rows = rng.choice(len(samples), size=n_groups, replace=False)
    weights = random_weights(training.model, samples.calibration.probe, rng)
    return ModelCase(training, samples, samples.batch(rows), weights)
