"""A training that stops and goes on, on either engine, is the training that never stopped (model_file 6)."""

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
from ptycho_backend.training.checkpoints import LAST, Checkpoints, read_checkpoint
from ptycho_backend.training.options import FitOptions

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
        # Steps before the network fit these few counts so well that gradients are next to zero: engines round apart.
        config = ModelConfig(N=N, n_filters_scale=1, unrolled_steps=1, initial_iterations=0)
        training = TrainingConfig(
            model=config, nepochs=NEPOCHS, batch_size=BATCH, seed=5, learning_rate=5e-4, probe_trainable=True
        )
        groups = group_positions(scan.positions_px, 1, 5, None, np.random.default_rng(2))
        samples = Samples(scan, groups, calibrate(scan, config))
        settings = dataclasses.replace(execution, save_top_k=2, **knobs)
        options = FitOptions(checkpoints=Checkpoints(folder, {}, settings) if folder else None)
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
def whole(fit, backend, tmp_path_factory):
    """Return a function that gives the training that never stops, and its checkpoints, by the name of its knobs."""

    @functools.cache
    def ask(knobs):
        folder = tmp_path_factory.mktemp("whole")
        return fit(backend, KNOBS[knobs], folder), folder

    return ask


@pytest.fixture(scope="module")
def stopped(fit, backend, tmp_path_factory):
    """Return a function that gives the checkpoints of a training that was stopped, and what it said."""

    @functools.cache
    def ask(knobs, stop_at):
        folder = tmp_path_factory.mktemp("stopped")
        with pytest.raises(TrainingStopped, match="resume") as raised:
            fit(backend, KNOBS[knobs], folder, stop_at)
        return folder, raised.value

    return ask


@pytest.fixture(scope="module")
def kept_files(fit, tmp_path_factory):
    """Return a function that gives the files that an engine keeps, after it has been stopped and has gone on."""

    @functools.cache
    def ask(engine):
        folder = tmp_path_factory.mktemp("kept")
        with pytest.raises(TrainingStopped):
            fit(engine, KNOBS["plateau"], folder, (3, 2))
        fit(engine, KNOBS["plateau"], folder, resume=folder)
        return sorted(path.name for path in folder.glob("*.zip")), sorted(read_checkpoint(folder).state.kept)

    return ask


@pytest.fixture(params=["pytorch", "tensorflow"])
def other(request):
    """Return each installed engine in turn, for the second half."""
    try:
        return get_backend(request.param)
    except BackendNotInstalledError:
        pytest.skip(f"{request.param} is not installed")


@pytest.mark.parametrize(
    ("knobs", "stop_at", "kept"),
    [
        ("plain", (2, 5), (2, 0)),
        ("accumulated", (2, 1), (1, 2)),  # a stop waits for the optimiser's step
        ("accumulated", (3, 4), (2, 4)),
        ("plateau", (3, 1), (2, 1)),
        ("impatient", (2, 2), (1, 2)),
        ("multistep-last", (1, 3), (0, 3)),
    ],
)
def test_a_resumed_training_is_the_one_that_never_stopped(
    fit, whole, stopped, backend, other, tmp_path, knobs, stop_at, kept
):
    original, error = stopped(knobs, stop_at)
    assert str(original / LAST) in error.received
    folder = shutil.copytree(original, tmp_path / "copy")
    state = read_checkpoint(folder).state
    assert (state.epoch, state.batch) == kept
    # A few steps only: rounding differs between engines, and not at all within one.
    tolerance = SAME_ENGINE if other.name == backend.name else ENGINES_IN_TRAINING
    assert_same_training(fit(other, KNOBS[knobs], folder, resume=folder), whole(knobs)[0], tolerance, SLACK)


def test_a_finished_training_has_nothing_left_to_do(fit, whole, backend):
    training, folder = whole("plain")
    assert read_checkpoint(folder).state.epoch == NEPOCHS
    assert_same_training(fit(backend, KNOBS["plain"], resume=folder), training, SAME_ENGINE, SLACK)


def test_both_engines_keep_the_same_files(kept_files, backend, other):
    """The two best epochs and the last one, whichever engine trained, and after going on too."""
    found = [kept_files(engine) for engine in (backend, other)]
    for names, kept in found:
        assert len(names) == 3
        assert LAST in names
        assert kept == [name for name in names if name != LAST]
    epochs = [[name.partition("-")[0] for name in names] for names, _ in found]
    assert epochs[0] == epochs[1]


def test_without_a_folder_a_stop_says_that_nothing_is_kept(fit, backend):
    with pytest.raises(TrainingStopped, match="not kept"):
        fit(backend, KNOBS["plain"], None, (1, 1))
