"""A training that stops and resumes, on either engine, equals an uninterrupted one (model_file 6)."""

from __future__ import annotations

import dataclasses
import functools
import shutil

import numpy as np
import pytest

from ptycho_backend.config import ModelConfig, TrainingConfig
from ptycho_backend.data.batching import Samples
from ptycho_backend.data.grouping import group_positions
from ptycho_backend.engines.registry import get_backend
from ptycho_backend.errors import BackendNotInstalledError, TrainingStopped
from ptycho_backend.events import BatchEvent
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.simulation.simulate import simulate_scan
from ptycho_backend.testing import assert_same_training
from ptycho_backend.testing.tolerances import ENGINES_IN_TRAINING, SAME_ENGINE
from ptycho_backend.training.checkpoints import LAST, CheckpointWriter, read_checkpoint
from ptycho_backend.training.options import FitOptions

pytestmark = pytest.mark.slow

N = 32
NEPOCHS, BATCH = 4, 2  # five batches an epoch: 2, 2, 2, 2 and 1 groups
SLACK = 20.0  # for weights with gradients near zero
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
        # Iterations before the network leave gradients near zero, where engines round differently.
        config = ModelConfig(N=N, n_filters_scale=1, unrolled_steps=1, initial_iterations=0)
        training = TrainingConfig(
            model=config, nepochs=NEPOCHS, batch_size=BATCH, seed=5, learning_rate=5e-4, probe_trainable=True
        )
        groups = group_positions(scan.positions_px, 1, 5, None, np.random.default_rng(2))
        samples = Samples(scan, groups, calibrate(scan, config))
        settings = dataclasses.replace(execution, save_top_k=2, **knobs)
        options = FitOptions(checkpoints=CheckpointWriter(folder, {}, settings) if folder else None)
        calibration = samples.calibration
        if resume is not None:
            bundle = read_checkpoint(resume)
            calibration, options.resume, options.history = bundle.calibration, bundle.state, bundle.history
        model = engine.create_model(training, calibration, settings)
        if resume is not None:
            model.set_weights(bundle.weights)

        def listen(event):
            if isinstance(event, BatchEvent) and (event.epoch, event.batch) == stop_at:
                options.stop.request()

        fitted, held_out = samples.subset(np.arange(9)), samples.subset(np.array([9, 10, 11]))
        history = engine.fit(model, fitted, held_out, model.execution, listen, options)
        return history, model.get_weights()

    return run


@pytest.fixture(scope="module")
def uninterrupted(fit, backend, tmp_path_factory):
    """Return a function from the name of knobs to the uninterrupted training and its checkpoints."""

    @functools.cache
    def train(knobs):
        folder = tmp_path_factory.mktemp("uninterrupted")
        return fit(backend, KNOBS[knobs], folder), folder

    return train


@pytest.fixture(scope="module")
def stopped(fit, backend, tmp_path_factory):
    """Return a function from knobs and stop to the checkpoints of the training and its exception."""

    @functools.cache
    def train(knobs, stop_at):
        folder = tmp_path_factory.mktemp("stopped")
        with pytest.raises(TrainingStopped, match="resume") as raised:
            fit(backend, KNOBS[knobs], folder, stop_at)
        return folder, raised.value

    return train


@pytest.fixture(scope="module")
def saved_files(fit, tmp_path_factory):
    """Return a function from an engine to the files of a training that was stopped and resumed."""

    @functools.cache
    def train(engine):
        folder = tmp_path_factory.mktemp("saved")
        with pytest.raises(TrainingStopped):
            fit(engine, KNOBS["plateau"], folder, (3, 2))
        fit(engine, KNOBS["plateau"], folder, resume=folder)
        return sorted(path.name for path in folder.glob("*.zip")), sorted(read_checkpoint(folder).state.saved)

    return train


@pytest.fixture(params=["pytorch", "tensorflow"])
def other(request):
    """Return each installed engine in turn, for the second half."""
    try:
        return get_backend(request.param)
    except BackendNotInstalledError:
        pytest.skip(f"{request.param} is not installed")


@pytest.mark.parametrize(
    ("knobs", "stop_at", "saved"),
    [
        ("plain", (2, 5), (2, 0)),
        ("accumulated", (2, 1), (1, 2)),  # a stop waits for the optimiser's step
        ("accumulated", (3, 4), (2, 4)),
        ("plateau", (3, 1), (2, 1)),
        ("impatient", (2, 2), (1, 2)),
        ("multistep-last", (1, 3), (0, 3)),
    ],
)
def test_a_resumed_training_equals_an_uninterrupted_one(
    fit, uninterrupted, stopped, backend, other, tmp_path, knobs, stop_at, saved
):
    original, error = stopped(knobs, stop_at)
    assert str(original / LAST) in error.received
    folder = shutil.copytree(original, tmp_path / "copy")
    state = read_checkpoint(folder).state
    assert (state.epoch, state.batch) == saved
    # Only rounding differs between engines, and is equal within one.
    tolerance = SAME_ENGINE if other.name == backend.name else ENGINES_IN_TRAINING
    assert_same_training(fit(other, KNOBS[knobs], folder, resume=folder), uninterrupted(knobs)[0], tolerance, SLACK)


def test_resuming_a_finished_training_changes_nothing(fit, uninterrupted, backend):
    training, folder = uninterrupted("plain")
    assert read_checkpoint(folder).state.epoch == NEPOCHS
    assert_same_training(fit(backend, KNOBS["plain"], resume=folder), training, SAME_ENGINE, SLACK)


def test_both_engines_save_the_same_files(saved_files, backend, other):
    """The two best epochs and the last one, also after resuming."""
    found = [saved_files(engine) for engine in (backend, other)]
    for names, saved in found:
        assert len(names) == 3
        assert LAST in names
        assert saved == [name for name in names if name != LAST]
    epochs = [[name.partition("-")[0] for name in names] for names, _ in found]
    assert epochs[0] == epochs[1]


def test_without_a_folder_a_stop_saves_no_checkpoint(fit, backend):
    with pytest.raises(TrainingStopped, match="not saved"):
        fit(backend, KNOBS["plain"], None, (1, 1))
