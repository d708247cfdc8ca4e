"""A training that stops and goes on, on either engine, is the training that never stopped (model_file 6)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ptycho_backend.checkpoints import LAST, Checkpoints, read_checkpoint
from ptycho_backend.config import ModelConfig, TrainingConfig
from ptycho_backend.core.batching import Samples
from ptycho_backend.core.calibration import calibrate
from ptycho_backend.core.control import Control
from ptycho_backend.core.grouping import group_positions
from ptycho_backend.data.simulate import simulate_scan
from ptycho_backend.errors import BackendNotInstalledError, TrainingStopped
from ptycho_backend.events import BatchEvent
from ptycho_backend.registry import get_backend
from ptycho_backend.testing import assert_same_training
from ptycho_backend.testing.tolerances import ENGINES_IN_TRAINING, SAME_ENGINE

N = 32
NEPOCHS, BATCH = 4, 2  # five batches an epoch: 2, 2, 2, 2 and 1 groups
SLACK = 20.0  # of weights, a few of which have gradients next to zero
KNOBS = {
    "plain": {},
    "accumulated": {"accumulate_grad_batches": 2, "gradient_clip_val": 0.5, "warmup_epochs": 1},
    "plateau": {"scheduler": "plateau", "scheduler_patience": 0, "min_lr_ratio": 0.01},
    "impatient": {"monitor_mode": "max", "early_stop_patience": 1},  # no loss is larger than the first epoch's
    "multistep-last": {"scheduler": "multistep", "scheduler_milestones": [1, 3], "restore_best": False},
}


@pytest.fixture(scope="module")
def scan():
    return simulate_scan(N=N, n_positions=12, object_name="lines", photons_per_pattern=2e5, step_px=3.3)


@pytest.fixture(scope="module")
def fit(execution, scan):
    """Return a function that trains on an engine; it stops after `stop_at` = (epoch, batch), counted from 1."""

    def run(engine, knobs, folder=None, stop_at=None, resume=None):
        config = ModelConfig(N=N, n_filters_scale=1, unrolled_steps=1)
        training = TrainingConfig(
            model=config, nepochs=NEPOCHS, batch_size=BATCH, seed=5, learning_rate=5e-4, probe_trainable=True
        )
        groups = group_positions(scan.positions_px, 1, 5, None, np.random.default_rng(2))
        samples = Samples(scan, groups, calibrate(scan, config))
        settings = dataclasses.replace(execution, save_top_k=2, **knobs)
        control = Control(checkpoints=Checkpoints(folder, {}, settings) if folder else None)
        calibration = samples.calibration
        if resume is not None:
            bundle = read_checkpoint(resume)
            calibration, control.resume, control.history = bundle.calibration, bundle.state, bundle.history
        model = engine.create_model(training, calibration, settings)
        if resume is not None:
            model.set_weights(bundle.weights)

        def listen(event):
            if isinstance(event, BatchEvent) and (event.epoch, event.batch) == stop_at:
                control.stop.request()

        fitted, held_out = samples.subset(np.arange(9)), samples.subset(np.array([9, 10, 11]))
        history = engine.fit(model, fitted, held_out, model.execution, listen, control)
        return history, model.get_weights()

    return run


@pytest.fixture(scope="module")
def whole(fit, backend):
    """Return a function that gives the training that never stops, by the name of its knobs."""
    known = {}

    def ask(knobs):
        if knobs not in known:
            known[knobs] = fit(backend, KNOBS[knobs])
        return known[knobs]

    return ask


@pytest.fixture(params=["pytorch", "tensorflow"])
def other(request):
    """Return each installed engine in turn, for the second half."""
    try:
        return get_backend(request.param)
    except BackendNotInstalledError:
        pytest.skip(f"{request.param} is not installed")


@pytest.mark.parametrize(
    ("knobs", "stop_at"),
    [
        ("plain", (2, 5)),
        ("accumulated", (2, 2)),
        ("accumulated", (3, 4)),
        ("plateau", (3, 1)),
        ("impatient", (2, 2)),
        ("multistep-last", (1, 3)),
    ],
)
def test_a_resumed_training_is_the_one_that_never_stopped(fit, whole, backend, other, tmp_path, knobs, stop_at):
    with pytest.raises(TrainingStopped, match="resume") as stopped:
        fit(backend, KNOBS[knobs], tmp_path, stop_at)
    assert str(tmp_path / LAST) in stopped.value.received
    state = read_checkpoint(tmp_path).state
    assert (state.epoch, state.batch) == ((stop_at[0], 0) if stop_at[1] == 5 else (stop_at[0] - 1, stop_at[1]))
    # A few steps only: rounding differs between engines, and not at all within one.
    tolerance = SAME_ENGINE if other.name == backend.name else ENGINES_IN_TRAINING
    assert_same_training(fit(other, KNOBS[knobs], tmp_path, resume=tmp_path), whole(knobs), tolerance, SLACK)


def test_a_stop_waits_for_the_optimisers_step(fit, backend, tmp_path):
    with pytest.raises(TrainingStopped):
        fit(backend, KNOBS["accumulated"], tmp_path, (2, 1))
    assert read_checkpoint(tmp_path).state.batch == 2


def test_a_finished_training_has_nothing_left_to_do(fit, whole, backend, tmp_path):
    fit(backend, KNOBS["plain"], tmp_path)
    assert read_checkpoint(tmp_path).state.epoch == NEPOCHS
    assert_same_training(fit(backend, KNOBS["plain"], resume=tmp_path), whole("plain"), SAME_ENGINE, SLACK)


def test_both_engines_keep_the_same_files(fit, backend, other, tmp_path):
    """The two best epochs and the last one, whichever engine trained, and after going on too."""
    names = []
    for number, engine in enumerate((backend, other)):
        folder = tmp_path / str(number)
        with pytest.raises(TrainingStopped):
            fit(engine, KNOBS["plateau"], folder, (3, 2))
        fit(engine, KNOBS["plateau"], folder, resume=folder)
        names.append(sorted(path.name for path in folder.glob("*.zip")))
        assert len(names[-1]) == 3
        assert LAST in names[-1]
        assert sorted(read_checkpoint(folder).state.kept) == [name for name in names[-1] if name != LAST]
    epochs = [[name.partition("-")[0] for name in found] for found in names]
    assert epochs[0] == epochs[1]


def test_without_a_folder_a_stop_says_that_nothing_is_kept(fit, backend):
    with pytest.raises(TrainingStopped, match="not kept"):
        fit(backend, KNOBS["plain"], None, (1, 1))
