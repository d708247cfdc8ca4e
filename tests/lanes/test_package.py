"""The package in a lane, with one engine or none: from a scan to a model file and an image."""

import os

import pytest

import ptycho_backend as pb
from ptycho_backend.engines.registry import missing_packages, registered_backends
from ptycho_backend.errors import BackendNotInstalledError

ENGINES = pb.available_backends()
WITHOUT = os.environ.get("LANE_WITHOUT", "").split()


def small_training(**fields):
    """Return a training that takes about a second."""
    model = pb.ModelConfig(N=32, n_filters_scale=1, unrolled_steps=1)
    return pb.TrainingConfig(model=model, nepochs=1, probe_iterations=2, **fields)


@pytest.fixture(scope="module")
def scan():
    return pb.simulate_scan(N=32, n_positions=64, seed=2)


def test_engines_of_the_lane():
    framework = {"pytorch": "torch", "tensorflow": "tensorflow"}
    assert ENGINES == tuple(name for name in sorted(framework) if framework[name] not in WITHOUT)


@pytest.mark.skipif(not ENGINES, reason="no engine in this lane")
def test_from_a_scan_to_a_model_file_and_an_image(scan, tmp_path):
    run = pb.train(scan, small_training(), pb.ExecutionConfig(device="cpu", progress=False))
    assert run.training.backend == ENGINES[0]
    run.save(tmp_path / "run")
    image = pb.reconstruct(scan, pb.load_model(tmp_path / "run"))
    assert pb.evaluate(image, scan).amplitude_psnr_db > 25
    assert pb.evaluate(pb.reconstruct(scan, start="network"), scan).amplitude_psnr_db > 25  # the shipped network


def test_reconstruction_and_assessment_need_no_engine(scan):
    image = pb.reconstruct(scan)
    assert pb.evaluate(image, scan).amplitude_psnr_db > 25
    assert pb.assess(scan, image).unexplained_variance < 0.15


@pytest.mark.parametrize("name", sorted(set(registered_backends()) - set(ENGINES)))
def test_missing_engines_name_the_extra_to_install(scan, name):
    assert missing_packages(name)
    with pytest.raises(BackendNotInstalledError, match=r"pip install 'ptychopinn\["):
        pb.train(scan, small_training(backend=name))
    with pytest.raises(BackendNotInstalledError, match=r"pip install 'ptychopinn\["):
        pb.load_model(backend=name)
