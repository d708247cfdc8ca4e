"""Reconstruction and assessment without a model: no framework, the kernels of any engine."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ptycho_backend as pb
from ptycho_backend import reconstruction as pipeline
from ptycho_backend.engines.numpy.solver import NumpyKernels
from ptycho_backend.errors import BackendNotInstalledError, ConfigError, DeviceError, UnknownBackendError
from ptycho_backend.events import StageEvent
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.reconstruction import Reconstruction, calibration_of, prepare
from ptycho_backend.testing.assertions import assert_close
from ptycho_backend.testing.tolerances import Tolerance

N = 32
ROOT = Path(__file__).parents[2]
ENGINES_AGREE = Tolerance(1e-3, "float32 sums in another order, through all iterations")


@pytest.fixture(scope="module")
def scan():
    return pb.simulate_scan(N=N, n_positions=100, seed=77, step_px=3.0, photons_per_pattern=1e6)


@pytest.fixture(scope="module")
def image(scan):
    return pb.reconstruct(scan, device="cpu")


def test_goal_is_reached_from_a_flat_object(scan, image):
    result = pb.evaluate(image, scan)
    assert result.amplitude_psnr_db > 30
    assert result.phase_psnr_db > 28
    assert max(map(abs, result.shift_px)) < 0.3


def test_no_framework_is_imported(tmp_path):
    code = """
        import json, sys
        import ptycho_backend as pb
        scan = pb.simulate_scan(N=32, n_positions=36, seed=1)
        image = pb.reconstruct(scan, device="cpu", probe_iterations=0)
        found = pb.assess(scan, image, inference=pb.InferenceConfig(probe_iterations=0))
        loaded = sorted({"torch", "lightning", "tensorflow", "keras"} & set(sys.modules))
        print(json.dumps([loaded, found.unexplained_variance < 0.15, found.disagreement]))
    """
    command = [sys.executable, "-c", "\n".join(line[8:] for line in code.splitlines())]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[], True, None]


def test_stages_of_a_flat_start(scan):
    stages = []
    pb.reconstruct(scan, on_event=lambda event: stages.append(event.stage), device="cpu", iterations=2)
    assert list(dict.fromkeys(stages)) == ["probe", "iterations"]


def test_probe_iterations_follow_the_option(scan, monkeypatch):
    used = []

    def recorded(scan, calibration, training, iterations, on_event, kernels):
        used.append(iterations)
        return calibration, {"probe_refined": False}

    monkeypatch.setattr(pipeline, "refined_calibration", recorded)
    for given in (None, 0, 7):
        calibration_of(scan, None, pb.InferenceConfig(probe_iterations=given))
    assert used == [pb.TrainingConfig().probe_iterations, 0, 7]


@pytest.mark.parametrize("start", ["flat", "physics"])
def test_starts_without_a_network_lead_to_the_same_image(scan, image, start):
    found = pb.evaluate(pb.reconstruct(scan, start=start, device="cpu"), image)
    assert found.phase_psnr_db > 35
    assert found.amplitude_psnr_db > 35


def test_no_iterations_leave_the_initial_object(scan):
    flat, physics = (
        pb.reconstruct(scan, start=start, iterations=0, probe_iterations=0, device="cpu")
        for start in ("flat", "physics")
    )
    assert set(np.unique(flat.obj)) <= {0, 1}
    assert np.abs(physics.obj[physics.coverage > 0]).std() > 0.01


def test_side_of_any_length():
    """A network needs a multiple of 16; the solver does not."""
    scan = pb.simulate_scan(N=48, n_positions=64, seed=2).subset(slice(None))
    cropped = pb.Scan(
        scan.patterns[:, 3:-3, 3:-3], scan.positions_px, scan.probe[:, 3:-3, 3:-3], measurement=scan.measurement
    )
    assert cropped.N == 42
    assert np.isfinite(pb.reconstruct(cropped, device="cpu", iterations=3, probe_iterations=0).obj).all()


class TestOptions:
    def test_model_calibration_needs_a_model(self, scan):
        with pytest.raises(ConfigError, match="no model"):
            pb.reconstruct(scan, calibration="model", device="cpu")

    def test_unknown_start(self, scan):
        with pytest.raises(ConfigError, match="start"):
            pb.reconstruct(scan, start="warm")

    def test_unknown_engine(self, scan):
        with pytest.raises(UnknownBackendError, match="pytorch"):
            pb.reconstruct(scan, backend="pytorh")

    def test_device_that_does_not_exist(self, scan):
        with pytest.raises(DeviceError, match="cuda:99"):
            pb.reconstruct(scan, backend="numpy", device="cuda:99")

    def test_network_needs_an_engine_with_networks(self, scan):
        with pytest.raises(BackendNotInstalledError, match="ptychopinn"):
            pb.reconstruct(scan, backend="numpy", start="network")

    @pytest.mark.parametrize("resume", [False, True])
    def test_numpy_does_not_train(self, scan, tmp_path, resume, monkeypatch):
        monkeypatch.setattr("ptycho_backend.api.refined_calibration", None)  # the error comes before the work
        with pytest.raises(BackendNotInstalledError, match="neither trains nor predicts") as caught:
            pb.train(scan, pb.TrainingConfig(backend="numpy"))
        assert "ptychopinn[torch]" in caught.value.fix
        with pytest.raises(BackendNotInstalledError):
            pb.load_model(backend="numpy")


class TestModel:
    """Starts "flat" and "physics" use the model's calibration only."""

    @pytest.fixture(scope="class")
    def model(self, scan, backend):
        training = pb.TrainingConfig(model=pb.ModelConfig(N=N), backend=backend.name)
        calibration = calibrate(scan, training.model, probe=scan.probe * np.float32(1.0))
        return backend.create_model(training, calibration, pb.ExecutionConfig(device="cpu", precision="32-true"))

    @pytest.mark.parametrize("start", ["flat", "physics"])
    def test_network_is_not_called(self, scan, model, start, monkeypatch):
        monkeypatch.setattr(type(model), "predict_patches", None)
        found = prepare(scan, model, pb.InferenceConfig(start=start))
        assert (found.start, found.model, type(found.kernels)) == (start, None, NumpyKernels)
        np.testing.assert_array_equal(found.calibration.probe, model.calibration.probe)
        assert np.isfinite(found.image().obj).all()

    def test_auto_takes_the_network(self, scan, model):
        found = prepare(scan, model, pb.InferenceConfig())
        assert (found.start, found.model) == ("network", model)

    def test_device_of_the_model_is_that_of_the_solver(self, model):
        assert pipeline.kernels_of(model).device == "cpu"
        with pytest.raises(DeviceError):
            pipeline.kernels_of(model, device="cuda:99")

    def test_kernels_of_the_engine_give_the_same_image(self, scan, image, backend, device):
        kernels = backend.solver_kernels(device)
        found = prepare(scan, None, pb.InferenceConfig(), kernels).image()
        assert_close(found.obj, image.obj, ENGINES_AGREE, f"image of {backend.name}")


class TestAssessment:
    @pytest.fixture(scope="class")
    def found(self, scan, image):
        return pb.assess(scan, image)

    def test_good_image_has_no_warning(self, found):
        assert found.unexplained_variance < 0.05
        assert found.warnings == ()

    def test_figures_of_a_network_are_missing_with_a_reason(self, found):
        assert found.disagreement is None
        assert found.disagreement_per_pattern is None
        assert found.training_domain is None
        assert found.no_network == "the image started from a flat object, without a network"
        values = json.loads(json.dumps(found.to_dict()))
        assert values["disagreement"] is values["training_domain"] is None

    def test_halves_are_flat_reconstructions_with_probes_of_their_own(self, monkeypatch):
        scan = pb.simulate_scan(N=N, n_positions=100, seed=77, step_px=3.0, probe_error=0.15)
        image, made = pb.reconstruct(scan), []
        plain = Reconstruction.image

        def recorded(self, on_event, predicted):
            made.append(self)
            return plain(self, on_event, predicted)

        monkeypatch.setattr(Reconstruction, "image", recorded)
        stages = []

        def listen(event):
            stages.extend([event.stage] if isinstance(event, StageEvent) else [])

        again = pb.assess(scan, image, on_event=listen)
        assert [(each.start, each.model) for each in made] == [("flat", None)] * 2
        assert sum(len(each.scan) for each in made) == len(scan)
        probes = [each.calibration.probe for each in made]
        assert not np.array_equal(*probes)
        assert all(each.update_probe for each in made)
        assert again.halves.resolution > 0.5
        assert {"half 1: iterations", "half 2: iterations", "residual"} <= set(stages)
        assert not {"prediction", "agreement"} & set(stages)

    def test_constant_image_is_collapsed(self, scan, image):
        flat = pb.Image(np.where(image.coverage > 0, 1, 0).astype(np.complex64), image.coverage, image.origin_px)
        found = pb.assess(scan, flat, inference=pb.InferenceConfig(half_datasets=False, probe_iterations=0))
        assert found.collapsed
        assert found.warnings[0].endswith("the object was not found. Check probe, positions and mask.")

    def test_wrong_probe_is_seen(self, scan, image):
        blurred = pb.simulate_scan(N=N, n_positions=100, seed=77, step_px=3.0, diameter_fraction=0.6)
        settings = pb.InferenceConfig(half_datasets=False, probe_iterations=0)
        wrong = pb.Scan(scan.patterns, scan.positions_px, blurred.probe, measurement=scan.measurement)
        found = pb.assess(wrong, dataclasses.replace(image, experiment=None), inference=settings)
        assert found.unexplained_variance > 0.15


@pytest.mark.parametrize("side", [32, 48])
def test_training_takes_the_side_of_the_scan(side, backend):
    scan = pb.simulate_scan(N=side, n_positions=16, seed=1)
    config = pb.TrainingConfig(backend=backend.name, nepochs=1, probe_iterations=0, n_groups=8)
    run = pb.train(scan, config, pb.ExecutionConfig(device="cpu", precision="32-true", logger="none"))
    assert run.model.config.N == run.training.model.N == side
    assert config.model.N == 0  # the caller's configuration stays


def test_side_that_no_network_has(backend):
    scan = pb.simulate_scan(N=48, n_positions=9, seed=1)
    cropped = pb.Scan(
        scan.patterns[:, 3:-3, 3:-3], scan.positions_px, scan.probe[:, 3:-3, 3:-3], measurement=scan.measurement
    )
    with pytest.raises(ConfigError, match=r"model.N: .*multiple of 16.*not 42"):
        pb.train(cropped, pb.TrainingConfig(backend=backend.name))
