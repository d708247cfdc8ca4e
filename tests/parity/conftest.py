"""
Cases that every engine is asked about, and what the oracle answers.

Each case is a small model with random weights and a batch of a simulated scan. Answers are computed once per
case (oracle) and once per case and engine, and then looked at by several tests.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from ptycho_backend.config import ExecutionConfig, ModelConfig, TrainingConfig
from ptycho_backend.contract import LOG_SCALE, PROBE, trainable_names
from ptycho_backend.core import reference
from ptycho_backend.core.batching import Batch, Samples
from ptycho_backend.core.calibration import calibrate
from ptycho_backend.core.constants import PhysicsConstants
from ptycho_backend.core.grouping import group_positions
from ptycho_backend.core.losses import best_turn
from ptycho_backend.data.simulate import simulate_scan
from ptycho_backend.network import parameters

N = 32
STEP = 1e-6  # so small that hardly a ReLU or a maximum switches on the way
CLEAN = {"n_positions": 9, "object_name": "lines", "photons_per_pattern": 2e4, "step_px": 3.3}


@dataclass(frozen=True)
class Case:
    """
    A model, the scan it is asked about, and one option to switch whose effect must show.

    `off` holds the option's other value: the oracle with it must disagree with the engine.
    """

    model: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    scan: dict[str, Any] = field(default_factory=dict)
    n_groups: int = 2
    off: dict[str, Any] = field(default_factory=dict)


# Every option of a model and every loss stands here at least once with another value than its default.
CASES = {
    "unet": Case(n_groups=1, off={"unrolled_steps": 1}),
    "unet-merged-modes-mask": Case(
        {"gridsize": 2, "unrolled_steps": 1},
        {"probe_trainable": True},
        {"modes": 2, "bad_pixels": 0.05},
        off={"object_big": False},
    ),
    "unet-unmerged-smoothed-mae": Case(
        {"gridsize": 2, "unrolled_steps": 1, "object_big": False, "gaussian_smoothing_sigma": 0.8},
        {"nll_weight": 0.0, "mae_weight": 2.0, "intensity_scale_trainable": False, "consistency_share": 0.0},
        off={"gaussian_smoothing_sigma": 0.0},
    ),
    "unet-masked-probe-tv": Case(
        {"unrolled_steps": 1, "probe_mask": True},
        {"mae_weight": 0.5, "realspace_weight": 0.3, "probe_trainable": True, "consistency_share": 1.0},
        {"modes": 3, "diameter_fraction": 0.6},
        off={"probe_mask": False},
    ),
    "unet-supervised-merged": Case(
        {"gridsize": 2, "unrolled_steps": 1, "model_type": "supervised"},
        {"realspace_weight": 0.2},
        off={"object_big": False},
    ),
    "cnn": Case({"architecture": "cnn"}, {"probe_trainable": True}, n_groups=1, off={"probe_big": False}),
    "cnn-merged-half-window-labels": Case(
        {"architecture": "cnn", "gridsize": 2, "probe_big": False, "amp_activation": "swish"},
        {"nll_weight": 0.0, "realspace_mae_weight": 1.0, "realspace_weight": 0.1},
        off={"amp_activation": "sigmoid"},
    ),
    "cnn-whole-window": Case(
        {"architecture": "cnn", "pad_object": False, "amp_activation": "softplus"},
        {"nll_weight": 0.5, "mae_weight": 1.0},
        {"modes": 2},
        off={"pad_object": True},
    ),
    "cnn-relu-unmerged": Case(
        {"architecture": "cnn", "gridsize": 2, "object_big": False, "amp_activation": "relu"},
        off={"object_big": True},
    ),
}


@dataclass(frozen=True, eq=False)
class Prepared:
    """A case with its batch, its weights and everything else that is asked with it."""

    name: str
    case: Case
    training: TrainingConfig
    samples: Samples
    batch: Batch
    weights: dict[str, np.ndarray]

    @property
    def config(self) -> ModelConfig:
        return self.training.model

    @functools.cached_property
    def constants(self) -> PhysicsConstants:
        return PhysicsConstants.of(self.config, self.samples.calibration)

    @functools.cached_property
    def answers(self) -> dict[str, Any]:
        return answers_of_oracle(self)

    def loss(self, **training: float) -> float:
        """Return the oracle's loss under other training settings."""
        other = replace(self.training, **training)
        return reference.reference_loss(other, self.weights, self.constants, self.batch)

    @functools.cached_property
    def turn(self) -> np.ndarray | None:
        if self.batch.labels is None:
            return None
        return best_turn(self.answers["patches"], self.batch.labels, self.constants.weight)

    @functools.cached_property
    def slopes(self) -> dict[str, tuple[dict[str, np.ndarray], float]]:
        return slopes_of_oracle(self)

    def slope(self, directions: dict[str, np.ndarray]) -> float:
        """Return the oracle's derivative of the loss along a direction, by central differences."""
        wide = {name: value.astype(np.float64) for name, value in self.weights.items()}
        up, down = (
            reference.reference_loss(
                self.training,
                wide | {name: wide[name] + step * direction for name, direction in directions.items()},
                self.constants,
                self.batch,
                self.turn,
            )
            for step in (STEP, -STEP)
        )
        return (up - down) / (2 * STEP)


def answers_of_oracle(prepared: Prepared) -> dict[str, Any]:
    config, arguments = prepared.config, (prepared.weights, prepared.constants, prepared.batch)
    return {
        "patches": reference.reference_patches(config, *arguments),
        "consistent": reference.reference_patches(config, *arguments, data_consistency=True),
        "counts": reference.reference_counts(config, *arguments),
        "loss": reference.reference_loss(prepared.training, *arguments),
    }


def slopes_of_oracle(prepared: Prepared) -> dict[str, tuple[dict[str, np.ndarray], float]]:
    """
    Return random directions and the loss's derivatives along them, by the name of what is tried.

    A case with one group tries every weight array by itself; the others try probe and scale, and everything.
    """
    rng = np.random.default_rng(13)
    unit = {name: _unit(rng, value.shape) for name, value in prepared.weights.items()}
    alone = list(unit) if prepared.case.n_groups == 1 else [PROBE, LOG_SCALE]
    trained = trainable_names(prepared, prepared.weights)
    tried = {name: {name: unit[name]} for name in alone if name in trained}
    tried["everything"] = {name: unit[name] for name in trained}
    return {name: (directions, prepared.slope(directions)) for name, directions in tried.items()}


def _unit(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    direction = rng.normal(size=shape)
    return direction / np.linalg.norm(direction)


@functools.cache
def prepared_case(name: str, switched: bool = False) -> Prepared:
    """Prepare a case; `switched` gives its option the other value."""
    case = CASES[name]
    fields = {"N": N, "n_filters_scale": 1, **case.model, **(case.off if switched else {})}
    training = TrainingConfig(model=ModelConfig(**fields), seed=7, batch_size=4, **case.training)
    scan = scan_of(**case.scan)
    groups = group_positions(scan.positions_px, training.model.gridsize, 5, None, np.random.default_rng(1))
    labelled = training.model.model_type == "supervised" or training.realspace_mae_weight > 0
    samples = Samples(scan, groups, calibrate(scan, training.model), labelled)
    batch = samples.batch(np.arange(case.n_groups))
    return Prepared(name, case, training, samples, batch, random_weights(training.model, samples))


@functools.cache
def scan_of(**fields: Any) -> Any:
    return simulate_scan(**{"N": N, **CLEAN, **fields})


def random_weights(config: ModelConfig, samples: Samples) -> dict[str, np.ndarray]:
    """Draw weights under which every parameter matters: no head near zero, no bias at zero."""
    rng = np.random.default_rng(11)
    weights = {}
    for parameter in parameters(config):
        weight = replace(parameter, gain=1.0).draw(rng)
        weights[parameter.name] = weight if weight.ndim == 4 else rng.normal(0, 0.05, weight.shape)
    probe = samples.calibration.probe
    parts = np.stack([probe.real, probe.imag], axis=-1)
    weights[PROBE] = parts + 0.02 * np.abs(parts).max() * rng.normal(size=parts.shape)
    weights[LOG_SCALE] = np.array(0.07)
    return {name: value.astype(np.float32) for name, value in weights.items()}


@pytest.fixture(scope="session", params=CASES)
def prepared(request: pytest.FixtureRequest) -> Prepared:
    """Return a case."""
    return prepared_case(request.param)


@pytest.fixture(scope="session")
def switched(prepared: Prepared) -> np.ndarray:
    """Return the oracle's counts for the same weights where the case's option has its other value."""
    other = prepared_case(prepared.name, switched=True)
    own = prepared.weights
    shared = {
        name: own[name] if name in own and own[name].shape == value.shape else value
        for name, value in other.weights.items()
    }
    return reference.reference_counts(other.config, shared, other.constants, other.batch)


@pytest.fixture(scope="session")
def execution(device: str) -> ExecutionConfig:
    """Return the execution under which engines must agree with the oracle."""
    return ExecutionConfig(device=device, precision="32-true")


@pytest.fixture(scope="session")
def model_for(backend, execution):
    """Return a function that builds a case's model with the case's weights."""

    def build(prepared: Prepared):
        model = backend.create_model(prepared.training, prepared.samples.calibration, execution)
        model.set_weights(prepared.weights)
        return model

    return build


@pytest.fixture(scope="session")
def asked(model_for, prepared):
    """Return what an engine answers about a case."""
    model, batch = model_for(prepared), prepared.batch
    loss, gradients = model.loss_and_gradients(batch)
    with_step = prepared.name == "cnn" or prepared.config.architecture == "unet"
    return {
        "patches": model.predict_patches(batch),
        "consistent": model.predict_patches(batch, data_consistency=True) if with_step else None,
        "counts": model.expected_counts(batch),
        "loss": loss,
        "gradients": gradients,
        "trainable": trainable_names(model, prepared.weights),
    }


@pytest.fixture(scope="session")
def case_of():
    """Return the function that prepares a case by name."""
    return prepared_case
