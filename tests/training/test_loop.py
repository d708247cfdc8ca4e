"""Training loop: counted batches, recorded losses, reported events, stopping, resuming."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from ptycho_backend.config import ExecutionConfig, ModelConfig, TrainingConfig
from ptycho_backend.errors import ConfigError, TrainingError, TrainingStopped
from ptycho_backend.events import BatchEvent, EpochEvent, ignore
from ptycho_backend.model_file.trainer_state import TrainerState
from ptycho_backend.training.loop import TrainingLoop
from ptycho_backend.training.options import FitOptions
from ptycho_backend.training.schedules import first_rate

LOSS, VALIDATION = "poisson_train_loss", "poisson_val_loss"
MOMENTS = {"steps": 7, "first": {"w": np.ones(2, np.float32)}, "second": {}}


class OneWeight:
    """Model whose weight is the number of its changes."""

    def __init__(self, nepochs=3, batch_size=4):
        self.training = TrainingConfig(model=ModelConfig(N=32), nepochs=nepochs, batch_size=batch_size)
        self.train_loss_name, self.val_loss_name, self.weight = LOSS, VALIDATION, 0.0

    def get_weights(self):
        return {"w": np.float32(self.weight)}

    def set_weights(self, weights):
        self.weight = float(weights["w"])


def make_loop(model=None, on_event=ignore, options=None, n_train=10, validated=False, **execution):
    settings = ExecutionConfig(**execution)
    return TrainingLoop(model or OneWeight(), settings, on_event, options or FitOptions(), n_train, validated)


def train(loop, values, name=LOSS):
    """End an epoch with each value; every epoch changes the model's weight."""
    for value in values:
        loop.model.weight += 1.0
        loop.end_epoch({"lr": loop.rate, name: value})


def test_batches_are_counted_weighted_and_reported():
    events = []
    loop = make_loop(on_event=events.append)
    assert (loop.n_batches, loop.epoch, loop.batch) == (3, 0, 0)
    for loss, groups in ((3.0, 4), (1.0, 4), (2.0, 2)):
        loop.add_batch(loss, groups)
    assert events == [BatchEvent(1, 3, number, 3, loss) for number, loss in enumerate((3.0, 1.0, 2.0), start=1)]
    assert loop.loss.value == pytest.approx((12 + 4 + 4) / 10)
    loop.end_epoch({"lr": 0.5, LOSS: 2.0})
    assert events[-1] == EpochEvent(1, 3, {"epoch": 1.0, "lr": 0.5, LOSS: 2.0})
    assert loop.history == [events[-1].metrics]
    assert (loop.epoch, loop.batch) == (1, 0)
    assert math.isnan(loop.loss.value)
    loop.add_batch(1.0, 4)
    assert (events[-1].epoch, events[-1].batch) == (2, 1)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_an_error_and_not_reported(bad):
    events = []
    loop = make_loop(on_event=events.append)
    loop.add_batch(1.0, 4)
    with pytest.raises(TrainingError, match="epoch 1, batch 2"):
        loop.add_batch(bad, 4)
    assert len(events) == 1


@pytest.mark.parametrize(
    ("k", "expected"), [(1, [True, True, False]), (2, [False, True, False]), (3, [False, False, False])]
)
def test_between_steps_needs_a_complete_window_and_further_batches(k, expected):
    loop, found = make_loop(accumulate_grad_batches=k), []
    for _ in range(3):
        loop.add_batch(1.0, 4)
        found.append(loop.between_steps)
    assert found == expected


@pytest.mark.parametrize(("mode", "restore", "expected"), [("min", True, 2), ("max", True, 3), ("min", False, 3)])
def test_the_model_ends_with_the_best_or_the_last_weights(mode, restore, expected):
    loop = make_loop(monitor="train_loss", monitor_mode=mode, restore_best=restore)
    train(loop, [2.0, 1.0, 3.0])
    loop.restore_best()
    assert loop.model.weight == expected
    assert loop.best.best_epoch == (3 if mode == "max" else 2)


def test_a_loop_is_finished_after_its_epochs_or_by_early_stopping():
    loop = make_loop(OneWeight(nepochs=2), early_stop_patience=1)
    assert not loop.finished
    train(loop, [2.0])
    assert not loop.finished
    train(loop, [1.0])
    assert loop.finished
    impatient = make_loop(OneWeight(nepochs=5), early_stop_patience=1)
    train(impatient, [1.0, 1.0])
    assert impatient.finished
    patient = make_loop(OneWeight(nepochs=5))
    train(patient, [1.0, 1.0])
    assert not patient.finished


def test_the_validation_loss_is_monitored_if_there_is_one():
    loop = make_loop(validated=True)
    train(loop, [2.0, 3.0], VALIDATION)
    assert (loop.best.monitor_name, loop.best.best_epoch) == (VALIDATION, 1)
    assert make_loop().best.monitor_name == LOSS
    with pytest.raises(ConfigError, match="los"):
        make_loop(monitor="los")


def test_rates_follow_the_schedule_and_the_losses():
    loop = make_loop(OneWeight(nepochs=9), scheduler="plateau", scheduler_patience=0, scheduler_factor=0.5)
    first = first_rate(loop.model.training)
    train(loop, [1.0, 1.0, 1.0])
    assert [row["lr"] for row in loop.history] == [first, first, first / 2]
    assert loop.rate == first / 4


def test_a_resumed_loop_equals_an_uninterrupted_one():
    fields = {"scheduler": "plateau", "scheduler_patience": 0, "early_stop_patience": 2}
    whole = make_loop(OneWeight(nepochs=6), **fields)
    train(whole, [2.0, 3.0])
    whole.add_batch(5.0, 4)
    state = whole.state(MOMENTS, {"epoch=001.h5.zip": 2.0})
    assert (state.epoch, state.batch, state.steps, state.first) == (2, 1, 7, MOMENTS["first"])
    assert (state.loss_sum, state.groups, state.saved) == (20.0, 4.0, {"epoch=001.h5.zip": 2.0})
    options = FitOptions(state, list(whole.history))
    resumed = make_loop(OneWeight(nepochs=6), options=options, **fields)
    for loop in (whole, resumed):
        loop.add_batch(1.0, 4)
        train(loop, [4.0])
        loop.restore_best()
    assert resumed.start is state
    assert resumed.history == whole.history
    assert len(options.history) == 2, "the loop has its own list"
    assert resumed.finished
    assert whole.finished
    assert resumed.rate == whole.rate < first_rate(whole.model.training)
    assert resumed.model.weight == whole.model.weight == 1.0
    assert resumed.state(MOMENTS, {}).monitor == whole.state(MOMENTS, {}).monitor


class TestStopping:
    """A training stops where all processes agree, with a checkpoint."""

    @pytest.fixture
    def written(self):
        return []

    @pytest.fixture
    def options(self, written):
        writer = SimpleNamespace(last="last.h5.zip", write=lambda *arguments: written.append(arguments))
        return FitOptions(checkpoints=writer)

    def test_without_a_request_training_continues(self, options, written):
        loop = make_loop(options=options)
        loop.stop_if_requested(bool, TrainerState)
        assert written == []

    def test_a_request_writes_a_checkpoint_and_ends_training(self, options, written):
        loop = make_loop(options=options)
        loop.add_batch(1.0, 4)
        options.stop.request(15)
        with pytest.raises(TrainingStopped, match=r"epoch 0 and batch 1.*last\.h5\.zip") as stopped:
            loop.stop_if_requested(bool, lambda: loop.state(MOMENTS, {}))
        assert stopped.value.signal == 15
        ((path, model, history, state),) = written
        assert (path, model, history) == ("last.h5.zip", loop.model, loop.history)
        assert (state.batch, state.steps) == (1, 7)

    def test_a_request_to_another_process_ends_training(self, options):
        with pytest.raises(TrainingStopped):
            make_loop(options=options).stop_if_requested(lambda own: True, TrainerState)

    def test_without_a_writer_no_state_is_computed(self):
        options = FitOptions()
        options.stop.request()
        with pytest.raises(TrainingStopped, match="not saved"):
            make_loop(options=options).stop_if_requested(bool, lambda: pytest.fail("state without a writer"))
