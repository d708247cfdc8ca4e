"""Training: the same start, the same batches, the same steps as in NumPy."""

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
from ptycho_backend.testing.cases import ModelCase, described
from ptycho_backend.testing.checks.check import Check, CheckResult, EngineUnderTest, drawn_seed
from ptycho_backend.testing.checks.oracle import worst
from ptycho_backend.testing.tolerances import FIRST_LOSS, ONE_STEP, SAME_WEIGHTS
from ptycho_backend.training.schedules import first_rate

N_TRAIN = 6  # groups trained on, where one step is looked at
STILL = 1e-12  # a learning rate that moves no float32 weight
CLIP = 1e-6  # a norm so near to Adam's epsilon that the size of a gradient shows in its first step
SMALL = 8  # elements of a weight whose gradient the oracle can take one by one

Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Trained:
    """
    A finished training.

    Parameters
    ----------
    model : Model
    before : dict
        Weights at the start.
    epochs : list of dict
        Weights after each epoch.
    losses : list of float
        Of every batch.
    history : History
    """

    model: Model
    before: Weights
    epochs: list[Weights]
    losses: list[float]
    history: History


def train(
    subject: EngineUnderTest,
    training: TrainingConfig,
    fitted: Samples,
    held_out: Samples | None = None,
    **execution: Any,
) -> Trained:
    """Train a model on an engine, with a constant learning rate unless told otherwise; done once for equal wishes."""
    wish = ("training", repr(training), repr(execution), len(fitted), 0 if held_out is None else len(held_out))
    if wish not in subject.kept:
        monitor = "train_loss" if held_out is None else "val_loss"
        knobs = dataclasses.replace(subject.execution, **{"scheduler": "constant", "monitor": monitor, **execution})
        model = subject.backend.create_model(training, fitted.calibration, knobs)
        before, epochs, losses = model.get_weights(), [], []

        def listen(event: Event) -> None:
            if isinstance(event, BatchEvent):
                losses.append(event.loss)
            if isinstance(event, EpochEvent):
                epochs.append(model.get_weights())

        history = subject.backend.fit(model, fitted, held_out, knobs, listen)
        subject.kept[wish] = Trained(model, before, epochs, losses, history)
    trained: Trained = subject.kept[wish]
    return trained


def setup(subject: EngineUnderTest, seed: int, n: int, **fields: Any) -> tuple[TrainingConfig, Samples]:
    """Return a small training on the first n positions of the scan."""
    training, samples = described("single", subject.scan)
    return dataclasses.replace(training, seed=seed, **fields), samples.subset(np.arange(n))


def initial(subject: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that a model starts with the weights of its seed, to the last bit."""
    training, samples = setup(subject, drawn_seed(rng), N_TRAIN)
    found = subject.backend.create_model(training, samples.calibration, subject.execution).get_weights()
    expected = starting_weights(training, samples.calibration)
    if set(found) != set(expected):
        return CheckResult(np.nan, SAME_WEIGHTS)
    return CheckResult(worst(*(np.abs(found[name] - value).max() for name, value in expected.items())), SAME_WEIGHTS)


def batches(subject: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that two epochs see the oracle's batches in the oracle's order; the weights stand still meanwhile."""
    training, samples = setup(subject, drawn_seed(rng), 8, nepochs=2, batch_size=3, learning_rate=STILL)
    trained, expected = train(subject, training, samples), []
    for epoch in range(2):
        order = epoch_order(len(samples), training.seed, epoch)
        weights = starting_weights(training, samples.calibration)
        expected += [ModelCase(training, samples, batch, weights).loss() for batch in samples.batches(3, order)]
    if len(trained.losses) != len(expected):
        return CheckResult(np.nan, FIRST_LOSS)
    return CheckResult(worst(*np.abs(np.divide(trained.losses, expected) - 1)), FIRST_LOSS)


def first_loss(subject: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Compare the loss before the first step."""
    trained, case = _one_step(subject, rng)
    return CheckResult(abs(trained.losses[0] / case.loss() - 1), FIRST_LOSS)


def one_step(subject: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """
    Compare all weights after one step with Adam's in float64.

    Gradients are the oracle's for small weights; for kernels the engine's, which other checks compare with the oracle.
    """
    trained, case = _one_step(subject, rng)
    moved = {name: trained.epochs[0][name].astype(float) - value for name, value in case.weights.items()}
    expected = _adams(subject, case)
    largest = max(float(np.abs(expected[name] - value).max()) for name, value in case.weights.items())
    errors = [np.abs(moved[name] - (expected[name] - value)).max() for name, value in case.weights.items()]
    return CheckResult(worst(*errors) / largest, ONE_STEP)


def loss_after_one_step(subject: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Compare the loss after one step with the oracle's, with the weights that Adam gives in float64."""
    trained, case = _one_step(subject, rng)
    return CheckResult(abs(trained.losses[1] / case.loss(_adams(subject, case)) - 1), FIRST_LOSS)


def _one_step(subject: EngineUnderTest, rng: np.random.Generator) -> tuple[Trained, ModelCase]:
    """Train two epochs of one batch each, and return the case that they start from."""
    settings = {"nepochs": 2, "batch_size": N_TRAIN, "learning_rate": 0.01}
    training, samples = setup(subject, drawn_seed(rng), N_TRAIN, **settings)
    trained = train(subject, training, samples, gradient_clip_val=CLIP, restore_best=False)
    case = ModelCase(training, samples, samples.batch(slice(None)), starting_weights(training, samples.calibration))
    return trained, case


def _adams(subject: EngineUnderTest, case: ModelCase) -> dict[str, NDArray[np.float64]]:
    """Return all weights after one step of Adam in float64."""
    key = ("adam", case.training.seed, len(case.samples))
    if key not in subject.kept:
        _, gradients = subject.model(case).loss_and_gradients(case.batch)
        wide = {
            name: case.gradient_of_oracle(name) if gradient.size <= SMALL else gradient.astype(float)
            for name, gradient in gradients.items()
        }
        flat = np.concatenate([gradient.ravel() for gradient in wide.values()])
        values = np.concatenate([case.weights[name].ravel() for name in wide])
        after = adam(values, [flat], first_rate(case.training), CLIP)
        parts = np.split(after, np.cumsum([gradient.size for gradient in wide.values()])[:-1])
        moved = {name: part.reshape(wide[name].shape) for name, part in zip(wide, parts, strict=True)}
        subject.kept[key] = {**{name: value.astype(float) for name, value in case.weights.items()}, **moved}
    after_step: dict[str, NDArray[np.float64]] = subject.kept[key]
    return after_step


CHECKS = (
    Check("network 4.1", "weights at the start", initial, True),
    Check("backend_contract 5.1", "order of batches", batches, True),
    Check("backend_contract 5.1", "loss of the first step", first_loss, True),
    Check("config 5.4", "weights after one step", one_step, True),
    Check("config 5.1", "loss after one step", loss_after_one_step, True),
)
