"""Checks of training: initial weights, batches, losses and steps equal to the oracle's."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.config import TrainingConfig
from ptycho_backend.data.batching import Samples, epoch_order
from ptycho_backend.engines.model import History, Model
from ptycho_backend.engines.optimizer import adam
from ptycho_backend.events import BatchEvent, EpochEvent, Event
from ptycho_backend.network.weights import starting_weights
from ptycho_backend.testing.cases import ModelCase, training_case
from ptycho_backend.testing.checks.check import Check, CheckResult, EngineUnderTest, draw_seed, largest_error
from ptycho_backend.testing.tolerances import FIRST_LOSS, ONE_STEP, SAME_WEIGHTS
from ptycho_backend.training.schedules import first_rate

N_TRAIN = 6  # groups of the checks of one step
NEGLIGIBLE_RATE = 1e-12  # learning rate below the rounding of float32 weights
CLIP = 1e-6  # norm near Adam's epsilon: the first step depends on the size of a gradient, not only on its sign
SMALL = 8  # largest number of elements whose gradient the oracle computes one by one

Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Trained:
    """
    A finished training.

    Parameters
    ----------
    model : Model
    epochs : list of dict
        Weights after each epoch.
    losses : list of float
        Loss of every batch.
    history : History
    """

    model: Model
    epochs: list[Weights]
    losses: list[float]
    history: History


def train(
    engine: EngineUnderTest,
    training: TrainingConfig,
    samples: Samples,
    validation: Samples | None = None,
    **execution: Any,
) -> Trained:
    """Train a model, with a constant learning rate by default; the result is cached."""
    key = ("training", repr(training), repr(execution), len(samples), 0 if validation is None else len(validation))
    if key not in engine.cache:
        monitor = "train_loss" if validation is None else "val_loss"
        options = dataclasses.replace(engine.execution, **{"scheduler": "constant", "monitor": monitor, **execution})
        model = engine.backend.create_model(training, samples.calibration, options)
        epochs: list[Weights] = []
        losses: list[float] = []

        def record(event: Event) -> None:
            if isinstance(event, BatchEvent):
                losses.append(event.loss)
            if isinstance(event, EpochEvent):
                epochs.append(model.get_weights())

        history = engine.backend.fit(model, samples, validation, options, record)
        engine.cache[key] = Trained(model, epochs, losses, history)
    trained: Trained = engine.cache[key]
    return trained


def small_training(engine: EngineUnderTest, seed: int, n: int, **fields: Any) -> tuple[TrainingConfig, Samples]:
    """Return a small training on the first n positions of the scan."""
    training, samples = training_case("single", engine.scan)
    return dataclasses.replace(training, seed=seed, **fields), samples.subset(np.arange(n))


def initial_weights(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that a new model has the weights of its seed, to the last bit."""
    training, samples = small_training(engine, draw_seed(rng), N_TRAIN)
    found = engine.backend.create_model(training, samples.calibration, engine.execution).get_weights()
    expected = starting_weights(training, samples.calibration)
    if set(found) != set(expected):
        return CheckResult(np.nan, SAME_WEIGHTS)
    errors = (np.abs(found[name] - value).max() for name, value in expected.items())
    return CheckResult(largest_error(*errors), SAME_WEIGHTS)


def batch_order(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Compare the losses of all batches of two epochs, at a negligible learning rate: they show batches and order."""
    fields = {"nepochs": 2, "batch_size": 3, "learning_rate": NEGLIGIBLE_RATE}
    training, samples = small_training(engine, draw_seed(rng), 8, **fields)
    trained, expected = train(engine, training, samples), []
    for epoch in range(2):
        order = epoch_order(len(samples), training.seed, epoch)
        weights = starting_weights(training, samples.calibration)
        expected += [ModelCase(training, samples, batch, weights).loss() for batch in samples.batches(3, order)]
    if len(trained.losses) != len(expected):
        return CheckResult(np.nan, FIRST_LOSS)
    return CheckResult(largest_error(*np.abs(np.divide(trained.losses, expected) - 1)), FIRST_LOSS)


def first_loss(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Compare the loss before the first step."""
    trained, case = _one_step(engine, rng)
    return CheckResult(abs(trained.losses[0] / case.loss() - 1), FIRST_LOSS)


def weights_after_one_step(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """
    Compare all weights after one step with Adam in float64.

    Gradients of small weights come from the oracle. Gradients of kernels come from the engine; other checks compare
    them with the oracle.
    """
    trained, case = _one_step(engine, rng)
    found = {name: trained.epochs[0][name].astype(float) - value for name, value in case.weights.items()}
    stepped = _adam_weights(engine, case)
    expected = {name: stepped[name] - value for name, value in case.weights.items()}
    largest = max(float(np.abs(step).max()) for step in expected.values())
    errors = [np.abs(found[name] - step).max() for name, step in expected.items()]
    return CheckResult(largest_error(*errors) / largest, ONE_STEP)


def loss_after_one_step(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Compare the loss after one step with the oracle's loss for the weights of Adam in float64."""
    trained, case = _one_step(engine, rng)
    return CheckResult(abs(trained.losses[1] / case.loss(_adam_weights(engine, case)) - 1), FIRST_LOSS)


def _one_step(engine: EngineUnderTest, rng: np.random.Generator) -> tuple[Trained, ModelCase]:
    """Train two epochs of one batch each; return the training and the case of its initial weights."""
    fields = {"nepochs": 2, "batch_size": N_TRAIN, "learning_rate": 0.01}
    training, samples = small_training(engine, draw_seed(rng), N_TRAIN, **fields)
    trained = train(engine, training, samples, gradient_clip_val=CLIP, restore_best=False)
    case = ModelCase(training, samples, samples.batch(slice(None)), starting_weights(training, samples.calibration))
    return trained, case


def _adam_weights(engine: EngineUnderTest, case: ModelCase) -> dict[str, NDArray[np.float64]]:
    """Return all weights after one step of Adam in float64; cached."""
    key = ("adam", case.training.seed, len(case.samples))
    if key not in engine.cache:
        _, found = engine.model(case).loss_and_gradients(case.batch)
        gradients = {
            name: case.gradient_of_oracle(name) if gradient.size <= SMALL else gradient.astype(float)
            for name, gradient in found.items()
        }
        flat = np.concatenate([gradient.ravel() for gradient in gradients.values()])
        values = np.concatenate([case.weights[name].ravel() for name in gradients])
        stepped = adam(values, [flat], first_rate(case.training), CLIP)
        chunks = np.split(stepped, np.cumsum([gradient.size for gradient in gradients.values()])[:-1])
        updated = {name: chunk.reshape(gradients[name].shape) for name, chunk in zip(gradients, chunks, strict=True)}
        engine.cache[key] = {**{name: value.astype(float) for name, value in case.weights.items()}, **updated}
    weights: dict[str, NDArray[np.float64]] = engine.cache[key]
    return weights


CHECKS = (
    Check("network 4.1", "initial weights", initial_weights, True),
    Check("backend_contract 5.1", "order of batches", batch_order, True),
    Check("backend_contract 5.1", "loss of the first step", first_loss, True),
    Check("config 5.4", "weights after one step", weights_after_one_step, True),
    Check("config 5.1", "loss after one step", loss_after_one_step, True),
)
