"""Two engines, or one on two devices: the same training, the same model file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ptycho_backend.data.batching import Samples
from ptycho_backend.model_file.bundle import read_bundle, write_bundle
from ptycho_backend.model_file.run import bundle_of
from ptycho_backend.testing.assertions import relative_error
from ptycho_backend.testing.checks.check import CheckResult, CrossCheck, EngineUnderTest, drawn_seed
from ptycho_backend.testing.checks.oracle import worst
from ptycho_backend.testing.checks.training import Trained, setup, train
from ptycho_backend.testing.tolerances import FIFTY_STEPS, MODEL_FILE, SAME_EPOCH

N_TRAIN, N_HELD_OUT, BATCH, EPOCHS = 10, 2, 2, 10  # five steps an epoch, fifty in all
RATE = 1e-4  # gentle: where a ReLU switches by rounding, Adam turns that into a step of this size


def losses_of_fifty_steps(one: EngineUnderTest, other: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Compare the loss of every step."""
    first, second = _both(_fifty_steps, one, other, rng)
    if len(first.losses) != N_TRAIN // BATCH * EPOCHS:
        return CheckResult(np.nan, FIFTY_STEPS)
    return CheckResult(_relative(second.losses, first.losses), FIFTY_STEPS)


def metrics_of_epochs(one: EngineUnderTest, other: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Compare everything that is reported for every epoch."""
    first, second = _both(_fifty_steps, one, other, rng)
    if [set(row) for row in first.history] != [set(row) for row in second.history]:
        return CheckResult(np.nan, FIFTY_STEPS)
    pairs = zip(first.history, second.history, strict=True)
    return CheckResult(worst(*(_relative([b[name] for name in a], list(a.values())) for a, b in pairs)), FIFTY_STEPS)


def early_stop(one: EngineUnderTest, other: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that both stop after the same epoch and go back to the same best one."""
    first, second = _both(_stopping, one, other, rng)
    ends = np.array([_last_and_best(trained) for trained in (first, second)])
    return CheckResult(float(np.abs(ends[0] - ends[1]).max()), SAME_EPOCH)


def model_files(one: EngineUnderTest, other: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that a model file gives the same patches on the other engine, both ways."""
    pair = one, other
    trained = _both(_fifty_steps, one, other, rng)
    _, samples = setup(one, 0, N_TRAIN)
    batch = samples.batch(slice(0, 4))
    errors = []
    for writer, reader, run in zip(pair, reversed(pair), trained, strict=True):
        loaded = _through_a_file(writer, reader, run)
        expected = run.model.predict_patches(batch, amplitude_constraint=True)
        errors.append(relative_error(loaded(batch, True), expected))
    return CheckResult(worst(*errors), MODEL_FILE)


def _through_a_file(writer: EngineUnderTest, reader: EngineUnderTest, run: Trained) -> Callable[..., np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        path = write_bundle(Path(folder), bundle_of(run.model, run.history, {"backend": writer.backend.name}))
        bundle = read_bundle(path)
    model = reader.backend.create_model(bundle.training, bundle.calibration, reader.execution)
    model.set_weights(bundle.weights)
    return model.predict_patches


def _both(
    run: Callable[[EngineUnderTest, int], Trained],
    one: EngineUnderTest,
    other: EngineUnderTest,
    rng: np.random.Generator,
) -> tuple[Trained, Trained]:
    seed = drawn_seed(rng)
    return run(one, seed), run(other, seed)


def _fifty_steps(subject: EngineUnderTest, seed: int) -> Trained:
    training, fitted = setup(subject, seed, N_TRAIN, nepochs=EPOCHS, batch_size=BATCH, learning_rate=RATE)
    return train(subject, training, fitted, _held_out(subject), scheduler="cosine")


def _stopping(subject: EngineUnderTest, seed: int) -> Trained:
    """Train with so large a step that the loss soon rises."""
    training, fitted = setup(subject, seed, N_TRAIN, nepochs=12, batch_size=5, learning_rate=0.02)
    return train(subject, training, fitted, _held_out(subject), early_stop_patience=2)


def _held_out(subject: EngineUnderTest) -> Samples:
    _, samples = setup(subject, 0, N_TRAIN + N_HELD_OUT)
    return samples.subset(np.arange(N_TRAIN, N_TRAIN + N_HELD_OUT))


def _last_and_best(trained: Trained) -> tuple[float, float]:
    values = [row[trained.model.val_loss_name] for row in trained.history]
    return float(len(values)), float(np.argmin(values))


def _relative(found: list[float], expected: list[float]) -> float:
    return float(np.max(np.abs(np.divide(found, expected) - 1)))


CROSS_CHECKS = (
    CrossCheck("backend_contract 6.2", "losses of fifty steps", losses_of_fifty_steps),
    CrossCheck("backend_contract 6.2", "metrics of every epoch", metrics_of_epochs),
    CrossCheck("config 5.7", "early stop and best epoch", early_stop),
    CrossCheck("backend_contract 2.3", "model files, both ways", model_files),
)
