"""Training is equal on every engine (contract 5)."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest

from ptycho_backend.config import ModelConfig, TrainingConfig
from ptycho_backend.data.batching import Samples, epoch_order
from ptycho_backend.data.grouping import group_positions
from ptycho_backend.engines.model import LOG_SCALE, PROBE
from ptycho_backend.engines.optimizer import adam
from ptycho_backend.errors import TrainingError
from ptycho_backend.events import BatchEvent, EpochEvent, ignore
from ptycho_backend.network import reference
from ptycho_backend.network.physics_constants import PhysicsConstants
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.simulation.simulate import simulate_scan
from ptycho_backend.testing import assert_close
from ptycho_backend.testing.tolerances import LOSS, ONE_STEP, SAME_ENGINE
from ptycho_backend.training.schedules import rate_factor

N = 32
CLIP = 1e-7


@pytest.fixture(scope="module")
def scan():
    return simulate_scan(N=N, n_positions=9, object_name="lines", photons_per_pattern=2e5, step_px=3.3)


@pytest.fixture(scope="module")
def train(backend, execution, scan):
    """Return a function that trains a small model on the scan and returns its inputs and results."""

    def run(validated=False, on_event=None, nan=False, training=None, model=None, **knobs):
        # Without iterations before the network, which leave so little loss that rounding dominates.
        small = {"N": N, "n_filters_scale": 1, "unrolled_steps": 1, "initial_iterations": 0}
        config = ModelConfig(**{**small, **(model or {})})
        settings = TrainingConfig(model=config, **{"nepochs": 1, "batch_size": 3, "seed": 5, **(training or {})})
        execution_now = dataclasses.replace(execution, **knobs)
        groups = group_positions(scan.positions_px, config.gridsize, 5, None, np.random.default_rng(2))
        samples = Samples(scan, groups, calibrate(scan, config), config.model_type == "supervised")
        fitted = samples.subset(np.arange(7))
        held_out = samples.subset(np.array([7, 8])) if validated else None
        built = backend.create_model(settings, samples.calibration, execution_now)
        before, events = built.get_weights(), []
        if nan:
            broken = dataclasses.replace(samples.calibration, rms_input_scale=math.nan)
            fitted = dataclasses.replace(fitted, calibration=broken)
        history = backend.fit(built, fitted, held_out, execution_now, on_event or events.append)
        return SimpleNamespace(
            model=built,
            training=settings,
            execution=execution_now,
            fitted=fitted,
            held_out=held_out,
            before=before,
            after=built.get_weights(),
            history=history,
            events=events,
        )

    return run


def oracle_loss(run, weights, batch) -> float:
    constants = PhysicsConstants.of(run.training.model, run.model.calibration)
    return reference.reference_loss(run.training, weights, constants, batch)


@pytest.fixture(scope="module")
def trained(train):
    """Return one training with all weights trainable and with validation."""
    run = train(
        validated=True,
        training={"nepochs": 4, "probe_trainable": True, "learning_rate": 1e-3},
        scheduler="cosine",
        warmup_epochs=1,
        min_lr_ratio=0.1,
    )
    return run


class TestAnOrdinaryRun:
    """Four epochs with batches of 3, 3 and 1 groups, and two validation groups."""

    def test_history_has_one_row_an_epoch_under_the_models_names(self, trained):
        names = {"epoch", "lr", "poisson_train_loss", "poisson_val_loss"}
        assert [set(row) for row in trained.history] == [names] * 4
        assert [row["epoch"] for row in trained.history] == [1, 2, 3, 4]
        assert all(isinstance(value, (int, float)) for row in trained.history for value in row.values())

    def test_learning_rates_are_those_of_the_schedule(self, trained):
        expected = [1e-3 * rate_factor(epoch, 4, trained.execution) for epoch in range(4)]
        assert expected[0] == 5e-4
        assert [row["lr"] for row in trained.history] == pytest.approx(expected, rel=1e-6)

    def test_the_training_loss_falls(self, trained):
        # The loss of two validation patterns need not fall.
        losses = [row["poisson_train_loss"] for row in trained.history]
        assert losses[-1] < 0.95 * losses[0]

    def test_the_first_batch_is_the_same_on_every_engine(self, trained):
        order = epoch_order(7, seed=5, epoch=0)
        first = next(event for event in trained.events if isinstance(event, BatchEvent))
        expected = oracle_loss(trained, trained.before, trained.fitted.batch(order[:3]))
        assert first.loss == pytest.approx(expected, rel=LOSS.relative)
        other = oracle_loss(trained, trained.before, trained.fitted.batch(np.arange(3)))
        assert first.loss != pytest.approx(other, rel=10 * LOSS.relative)

    def test_events_come_batch_by_batch_and_epoch_by_epoch(self, trained):
        numbers = [
            (event.epoch, event.batch) if isinstance(event, BatchEvent) else event.epoch for event in trained.events
        ]
        assert numbers == [item for epoch in (1, 2, 3, 4) for item in ((epoch, 1), (epoch, 2), (epoch, 3), epoch)]
        for event in trained.events:
            assert event.nepochs == 4
            if isinstance(event, BatchEvent):
                assert event.n_batches == 3
        epochs = [dict(event.metrics) for event in trained.events if isinstance(event, EpochEvent)]
        assert epochs == trained.history

    def test_an_epochs_loss_is_the_mean_over_its_groups(self, trained):
        batches = [event.loss for event in trained.events if isinstance(event, BatchEvent)]
        for number, row in enumerate(trained.history):
            mean = np.average(batches[3 * number : 3 * number + 3], weights=[3, 3, 1])
            assert row["poisson_train_loss"] == pytest.approx(mean, rel=1e-5)

    def test_every_weight_learns(self, trained):
        for name, value in trained.before.items():
            assert np.abs(trained.after[name] - value).max() > 1e-5, f"{name} did not change"

    def test_the_best_epochs_weights_come_back(self, trained):
        best = min(row["poisson_val_loss"] for row in trained.history)
        now = oracle_loss(trained, trained.after, trained.held_out.batch(slice(None)))
        assert now == pytest.approx(best, rel=LOSS.relative)


def test_early_stopping_restores_the_best_epoch(train):
    # The step is so large that the second epoch is worse than the first.
    run = train(
        validated=True,
        training={"nepochs": 8, "learning_rate": 0.01},
        scheduler="constant",
        early_stop_patience=1,
    )
    losses = [row["poisson_val_loss"] for row in run.history]
    assert len(losses) < 8
    assert losses[-1] >= min(losses[:-1])
    now = oracle_loss(run, run.after, run.held_out.batch(slice(None)))
    assert now == pytest.approx(min(losses), rel=LOSS.relative)
    assert now != pytest.approx(losses[-1], rel=10 * LOSS.relative)


def test_without_restoring_the_last_weights_stay(train):
    run = train(
        validated=True,
        model={"model_type": "supervised"},
        training={"nepochs": 4, "learning_rate": 0.1, "intensity_scale_trainable": True},
        scheduler="constant",
        restore_best=False,
    )
    losses = [row["supervised_val_loss"] for row in run.history]
    assert losses[-1] > min(losses)
    now = oracle_loss(run, run.after, run.held_out.batch(slice(None)))
    assert now == pytest.approx(losses[-1], rel=LOSS.relative)
    # Labels carry no photon scale, and the probe is not trainable.
    for frozen in (LOG_SCALE, PROBE):
        np.testing.assert_array_equal(run.after[frozen], run.before[frozen])


def test_k_batches_of_b_count_like_one_of_k_b(train):
    fields = {"seed": 3, "intensity_scale_trainable": False}
    one = train(training={**fields, "batch_size": 4}, restore_best=False)
    other = train(training={**fields, "batch_size": 2}, accumulate_grad_batches=2, restore_best=False)
    assert len([event for event in other.events if isinstance(event, BatchEvent)]) == 4
    moved = 0.0
    for name, value in one.after.items():
        np.testing.assert_allclose(other.after[name], value, atol=SAME_ENGINE.relative, err_msg=name)
        moved = max(moved, float(np.abs(value - one.before[name]).max()))
    assert moved > 50 * SAME_ENGINE.relative
    assert set(one.history[0]) == {"epoch", "lr", "poisson_train_loss"}
    for frozen in (LOG_SCALE, PROBE):
        np.testing.assert_array_equal(other.after[frozen], other.before[frozen])


def test_tiny_gradients_are_clipped_to_the_exact_bound(train):
    # The gradient of this loss is about as small as the constant that torch adds to a clipped norm.
    run = train(
        training={"nll_weight": 1e-6, "batch_size": 7, "learning_rate": 0.01},
        gradient_clip_val=CLIP,
        scheduler="constant",
        restore_best=False,
    )
    run.model.set_weights(run.before)
    _, gradients = run.model.loss_and_gradients(run.fitted.batch(slice(None)))
    flat = np.concatenate([gradient.ravel() for gradient in gradients.values()])
    assert 2 * CLIP < np.linalg.norm(flat) < 1e-5
    values = np.concatenate([run.before[name].ravel() for name in gradients])
    after = np.concatenate([run.after[name].ravel() for name in gradients])
    expected = adam(values, [flat], 0.01, CLIP) - values
    assert_close(after - values.astype(float), expected, ONE_STEP, "the step")


def test_a_loss_that_is_not_finite_ends_training(train):
    with pytest.raises(TrainingError, match="epoch 1, batch 1") as stopped:
        train(nan=True, on_event=ignore)
    assert "learning_rate" in stopped.value.fix


def test_an_exception_of_on_event_ends_training(train):
    class EnoughError(Exception):
        pass

    def listener(event):
        raise EnoughError

    with pytest.raises(EnoughError):
        train(on_event=listener)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Torchinductor does not support:UserWarning")
def test_a_compiled_step_gives_the_same_losses(train):
    one, other = train(), train(compile=True)
    assert other.history[0]["poisson_train_loss"] == pytest.approx(one.history[0]["poisson_train_loss"], rel=1e-4)


def test_a_deterministic_run_gives_the_same_losses(train):
    one, other = train(deterministic=True), train(deterministic=True)
    assert other.history == one.history
