"""Checks of two engines, or of one on two devices: equal trainings and exchangeable model files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ptycho_backend.data.batching import Samples
from ptycho_backend.engines.model import Model
from ptycho_backend.model_file.bundle import read_bundle, write_bundle
from ptycho_backend.model_file.run import bundle_of
from ptycho_backend.testing.assertions import relative_error
from ptycho_backend.testing.checks.check import CheckResult, CrossCheck, EngineUnderTest, draw_seed, largest_error
from ptycho_backend.testing.checks.training import Trained, small_training, train
from ptycho_backend.testing.tolerances import FIFTY_STEPS, MODEL_FILE, SAME_EPOCH

N_TRAIN, N_VALIDATION, BATCH, EPOCHS = 10, 2, 2, 10  # five steps an epoch, fifty in all
LEARNING_RATE = 1e-4  # small: where rounding switches a ReLU, Adam makes a difference of this size


def losses_of_fifty_steps(one: EngineUnderTest, other: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Compare the loss of every step."""
    first, second = _both(_fifty_steps, one, other, rng)
    if len(first.losses) != N_TRAIN // BATCH * EPOCHS:
        return CheckResult(np.nan, FIFTY_STEPS)
    return CheckResult(_relative(second.losses, first.losses), FIFTY_STEPS)


def metrics_of_epochs(one: EngineUnderTest, other: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Compare every reported metric of every epoch."""
    first, second = _both(_fifty_steps, one, other, rng)
    if [set(row) for row in first.history] != [set(row) for row in second.history]:
        return CheckResult(np.nan, FIFTY_STEPS)
    pairs = zip(first.history, second.history, strict=True)
    errors = (_relative([b[name] for name in a], list(a.values())) for a, b in pairs)
    return CheckResult(largest_error(*errors), FIFTY_STEPS)


def early_stop(one: EngineUnderTest, other: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Compare the epoch of an early stop and the best epoch."""
    first, second = _both(_early_stopped, one, other, rng)
    epochs = np.array([_last_and_best(trained) for trained in (first, second)])
    return CheckResult(float(np.abs(epochs[0] - epochs[1]).max()), SAME_EPOCH)


def model_files(one: EngineUnderTest, other: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Compare patches before and after a model file moves to the other engine, in both directions."""
    pair = one, other
    trained = _both(_fifty_steps, one, other, rng)
    _, samples = small_training(one, 0, N_TRAIN)
    batch = samples.batch(slice(0, 4))
    errors = []
    for writer, reader, run in zip(pair, reversed(pair), trained, strict=True):
        loaded = _reloaded(writer, reader, run).predict_patches(batch, amplitude_constraint=True)
        errors.append(relative_error(loaded, run.model.predict_patches(batch, amplitude_constraint=True)))
    return CheckResult(largest_error(*errors), MODEL_FILE)


def _reloaded(writer: EngineUnderTest, reader: EngineUnderTest, run: Trained) -> Model:
    """Return a model after one engine has written its file and another has read it."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_bundle(Path(folder), bundle_of(run.model, run.history, {"backend": writer.backend.name}))
        bundle = read_bundle(path)
    model = reader.backend.create_model(bundle.training, bundle.calibration, reader.execution)
    model.set_weights(bundle.weights)
    return model


def _both(
    run: Callable[[EngineUnderTest, int], Trained],
    one: EngineUnderTest,
    other: EngineUnderTest,
    rng: np.random.Generator,
) -> tuple[Trained, Trained]:
    seed = draw_seed(rng)
    return run(one, seed), run(other, seed)


def _fifty_steps(engine: EngineUnderTest, seed: int) -> Trained:
    fields = {"nepochs": EPOCHS, "batch_size": BATCH, "learning_rate": LEARNING_RATE}
    training, samples = small_training(engine, seed, N_TRAIN, **fields)
    return train(engine, training, samples, _validation_samples(engine), scheduler="cosine")


def _early_stopped(engine: EngineUnderTest, seed: int) -> Trained:
    """Train with a learning rate so large that the loss soon rises."""
    training, samples = small_training(engine, seed, N_TRAIN, nepochs=12, batch_size=5, learning_rate=0.02)
    return train(engine, training, samples, _validation_samples(engine), early_stop_patience=2)


def _validation_samples(engine: EngineUnderTest) -> Samples:
    _, samples = small_training(engine, 0, N_TRAIN + N_VALIDATION)
    return samples.subset(np.arange(N_TRAIN, N_TRAIN + N_VALIDATION))


def _last_and_best(trained: Trained) -> tuple[float, float]:
    values = [row[trained.model.val_loss_name] for row in trained.history]
    return float(len(values)), float(np.argmin(values))


def _relative(found: list[float], expected: list[float]) -> float:
    return float(np.max(np.abs(np.divide(found, expected) - 1)))


CROSS_CHECKS = (
    CrossCheck("backend_contract 6.2", "losses of fifty steps", losses_of_fifty_steps),
    CrossCheck("backend_contract 6.2", "metrics of every epoch", metrics_of_epochs),
    CrossCheck("config 5.7", "early stop and best epoch", early_stop),
    CrossCheck("backend_contract 2.3", "model files in both directions", model_files),
)
