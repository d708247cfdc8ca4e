"""
Cases for every engine, with the results of the oracle.

Each case is a small model with random weights and a batch of a simulated scan. Results are computed once per case
(oracle) and once per case and engine; several tests use them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from ptycho_backend.config import ExecutionConfig, ModelConfig, TrainingConfig
from ptycho_backend.engines.model import LOG_SCALE, PROBE, trainable_names
from ptycho_backend.network import reference
from ptycho_backend.simulation.simulate import simulate_scan
from ptycho_backend.testing.cases import ModelCase, random_weights, samples_of

N = 32
CLEAN = {"n_positions": 9, "object_name": "lines", "photons_per_pattern": 2e4, "step_px": 3.3}


@dataclass(frozen=True)
class Case:
    """
    A model, a scan, and one option whose effect must be visible.

    `off` holds another value of the option: with it the oracle must differ from the engine.
    """

    model: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    scan: dict[str, Any] = field(default_factory=dict)
    n_groups: int = 2
    off: dict[str, Any] = field(default_factory=dict)


# Every option of a model and every loss has a value other than its default in at least one case.
CASES = {
    "unet": Case(n_groups=1, off={"unrolled_steps": 1}),
    "unet-merged-modes-mask": Case(
        {"gridsize": 2, "unrolled_steps": 1, "initial_iterations": 2},
        {"probe_trainable": True},
        {"modes": 2, "bad_pixels": 0.05},
        off={"initial_iterations": 0},
    ),
    "unet-unmerged-smoothed-mae": Case(
        {"gridsize": 2, "unrolled_steps": 1, "object_big": False, "gaussian_smoothing_sigma": 0.8},
        {"nll_weight": 0.0, "mae_weight": 2.0, "intensity_scale_trainable": False, "constraint_share": 0.0},
        off={"gaussian_smoothing_sigma": 0.0},
    ),
    "unet-masked-probe-tv": Case(
        {"unrolled_steps": 1, "probe_mask": True},
        {"mae_weight": 0.5, "realspace_weight": 0.3, "probe_trainable": True, "constraint_share": 1.0},
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
    "cnn-real-imaginary": Case(
        {"architecture": "cnn", "decoder_outputs": "real_imaginary"},
        off={"decoder_outputs": "amplitude_phase"},
    ),
}


@dataclass(frozen=True, eq=False)
class Prepared:
    """Case by name, with its model, weights and batch."""

    name: str
    case: Case
    model_case: ModelCase

    @functools.cached_property
    def slopes(self) -> dict[tuple[str, ...], float]:
        """
        Return the oracle's derivatives along random directions, by the weights that change.

        A case with one group varies each weight alone; the others vary probe, scale, and all weights together.
        """
        trained = tuple(trainable_names(self.model_case, self.model_case.weights))
        alone = trained if self.case.n_groups == 1 else [name for name in (PROBE, LOG_SCALE) if name in trained]
        return {names: self.model_case.derivative_along(names) for names in (*((name,) for name in alone), trained)}


@functools.cache
def prepared_case(name: str, switched: bool = False) -> Prepared:
    """Prepare a case; `switched` gives its option the other value."""
    case = CASES[name]
    fields = {"N": N, "n_filters_scale": 1, **case.model, **(case.off if switched else {})}
    training = TrainingConfig(model=ModelConfig(**fields), seed=7, batch_size=4, **case.training)
    labelled = training.model.model_type == "supervised" or training.realspace_mae_weight > 0
    samples = samples_of(scan_of(**case.scan), training.model, labelled)
    batch = samples.batch(np.arange(case.n_groups))
    weights = random_weights(training.model, samples.calibration.probe, np.random.default_rng(11))
    return Prepared(name, case, ModelCase(training, samples, batch, weights))


@functools.cache
def scan_of(**fields: Any) -> Any:
    return simulate_scan(**{"N": N, **CLEAN, **fields})


@pytest.fixture(scope="session", params=CASES)
def prepared(request: pytest.FixtureRequest) -> Prepared:
    """Return a case."""
    return prepared_case(request.param)


@pytest.fixture(scope="session")
def switched(prepared: Prepared) -> np.ndarray:
    """Return the oracle's counts for the same weights and the other value of the case's option."""
    other = prepared_case(prepared.name, switched=True).model_case
    own = prepared.model_case.weights
    shared = {
        name: own[name] if name in own and own[name].shape == value.shape else value
        for name, value in other.weights.items()
    }
    return reference.reference_counts(other.config, shared, other.constants, other.batch)


@pytest.fixture(scope="session")
def execution(device: str) -> ExecutionConfig:
    """Return the execution settings for comparisons with the oracle."""
    return ExecutionConfig(device=device, precision="32-true")


@pytest.fixture(scope="session")
def model_for(backend, execution):
    """Return a function that builds a case's model with the case's weights."""

    def build(case: ModelCase):
        model = backend.create_model(case.training, case.samples.calibration, execution)
        model.set_weights(case.weights)
        return model

    return build


@pytest.fixture(scope="session")
def outputs(model_for, prepared):
    """Return the results of an engine for a case."""
    model, batch = model_for(prepared.model_case), prepared.model_case.batch
    loss, gradients = model.loss_and_gradients(batch)
    with_step = prepared.name == "cnn" or prepared.model_case.config.architecture == "unet"
    return {
        "patches": model.predict_patches(batch),
        "constrained": model.predict_patches(batch, amplitude_constraint=True) if with_step else None,
        "counts": model.expected_counts(batch),
        "loss": loss,
        "gradients": gradients,
        "trainable": trainable_names(model, prepared.model_case.weights),
    }


@pytest.fixture(scope="session")
def case_of():
    """Return a function from the name of a case to its ModelCase."""
    return lambda name: prepared_case(name).model_case
