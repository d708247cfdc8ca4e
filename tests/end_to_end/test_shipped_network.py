"""Reconstruction without training, and training that starts from the shipped network, on every engine."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest

import ptycho_backend as pb
from ptycho_backend.errors import ConfigError
from ptycho_backend.network.shipped import pretrained_weights
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.reconstruction import Reconstruction
from ptycho_backend.testing.assertions import assert_close
from ptycho_backend.testing.tolerances import EXACT32, Tolerance
from ptycho_backend.training.checkpoints import read_checkpoint

N = 32
OTHER_ENGINE = Tolerance(1e-3, "float32 on two engines, through two networks and ten divisions by the probe")
SCORES = ("amplitude_psnr_db", "phase_psnr_db")
NETWORK_ALONE = {"iterations": 0, "probe_iterations": 0}


@pytest.fixture(scope="module")
def scan():
    """Return a scan of a photograph outside the training set."""
    return pb.simulate_scan(N=N, n_positions=100, seed=77, step_px=3.0, photons_per_pattern=1e6)


@pytest.fixture(scope="module")
def execution():
    return pb.ExecutionConfig(precision="32-true", logger="none", progress=False)


@pytest.fixture(scope="module")
def model(backend, execution):
    return pb.load_model(backend=backend.name, execution=execution)


def test_start_from_the_shipped_network(scan, backend):
    """Without a model of the caller's own."""
    result = pb.evaluate(pb.reconstruct(scan, backend=backend.name, start="network"), scan)
    assert result.amplitude_psnr_db > 30
    assert result.phase_psnr_db > 28
    assert max(map(abs, result.shift_px)) < 0.3


@pytest.mark.skipif(len(pb.available_backends()) < 2, reason="needs both engines")
def test_engines_give_the_same_image(scan, model):
    settings = pb.InferenceConfig(**NETWORK_ALONE)
    other = pb.load_model(backend=next(name for name in pb.available_backends() if name != model.backend))
    images = [pb.reconstruct(scan, each, settings).obj for each in (model, other)]
    assert_close(images[0], images[1], OTHER_ENGINE, "image of the other engine")


def test_network_beats_physics_before_iterations(model):
    """Mean of three scans; on a single small one the network may add nothing."""
    settings, gained = pb.InferenceConfig(**NETWORK_ALONE), []
    for seed in (5000, 5001, 5002):
        scan = pb.simulate_scan(n_positions=144, seed=seed)
        network = pb.evaluate(pb.reconstruct(scan, model, settings), scan)
        physics = pb.evaluate(Reconstruction(scan, calibrate(scan, model.config), "physics", settings).image(), scan)
        gained.append([getattr(network, name) - getattr(physics, name) for name in SCORES])
    assert (np.mean(gained, axis=0) > (0.3, 1.0)).all(), gained


def test_wrong_probe_is_refined_by_default(model):
    wrong = pb.simulate_scan(N=N, n_positions=100, seed=77, step_px=3.0, probe_error=0.15)
    events: list = []
    refined = pb.evaluate(pb.reconstruct(wrong, model, on_event=events.append), wrong)
    given = pb.evaluate(pb.reconstruct(wrong, model, probe_iterations=0), wrong)
    assert {event.total for event in events if event.stage == "probe"} == {20}
    assert refined.amplitude_psnr_db > given.amplitude_psnr_db + 3


def test_shipped_network_has_no_calibration(scan, model):
    with pytest.raises(ConfigError, match="trained on a scan"):
        pb.reconstruct(scan, model, calibration="model")


def test_training_starts_from_the_shipped_weights(scan, backend, execution, caplog):
    still = pb.TrainingConfig(
        model=pb.ModelConfig(N=N), backend=backend.name, nepochs=1, learning_rate=1e-12, probe_iterations=0
    )
    with caplog.at_level(logging.INFO, "ptycho_backend"):
        run = pb.train(scan, still, execution)
    assert run.provenance["start"] == "pretrained"
    assert "starts from the shipped network" in caplog.text
    weights = run.model.get_weights()
    for name, value in pretrained_weights(still.model).items():
        assert_close(weights[name], value, EXACT32, name)


@pytest.mark.parametrize(
    ("fields", "message"), [({"start": "scratch"}, ""), ({"model": {"unrolled_steps": 1}}, "has other sizes")]
)
def test_training_starts_from_scratch(scan, backend, execution, caplog, fields, message):
    fields = {**fields, "model": pb.ModelConfig(N=N, **fields.get("model", {}))}
    config = pb.TrainingConfig(backend=backend.name, nepochs=1, probe_iterations=0, **fields)
    with caplog.at_level(logging.INFO, "ptycho_backend"):
        run = pb.train(scan.subset(np.arange(8)), config, execution)
    assert run.provenance["start"] == "scratch"
    assert run.training.learning_rate == run.history[0]["lr"] == 1e-3
    assert message in caplog.text


def test_resumed_training_keeps_its_start(scan, backend, execution, tmp_path):
    config = pb.TrainingConfig(
        model=pb.ModelConfig(N=N), backend=backend.name, nepochs=1, probe_iterations=0, n_groups=8
    )
    pb.train(scan, config, execution, checkpoints=tmp_path)
    assert read_checkpoint(tmp_path).provenance["start"] == "pretrained"
    longer = dataclasses.replace(config, nepochs=2)
    resumed = pb.train(scan, longer, execution, checkpoints=tmp_path, resume=True)
    assert resumed.provenance["start"] == "pretrained"
    assert resumed.training.learning_rate == resumed.history[0]["lr"] == 1e-4


@pytest.mark.slow
def test_one_epoch_beats_five_from_scratch(scan, backend, execution):
    """The shipped weights already reconstruct slow phases, which random weights learn slowly."""

    def phase_after(start, nepochs):
        config = pb.TrainingConfig(
            model=pb.ModelConfig(N=N), backend=backend.name, nepochs=nepochs, start=start, probe_iterations=0
        )
        model = pb.train(scan, config, execution).model
        return pb.evaluate(pb.reconstruct(scan, model, **NETWORK_ALONE), scan).phase_psnr_db

    assert phase_after("pretrained", 1) > phase_after("scratch", 5)
