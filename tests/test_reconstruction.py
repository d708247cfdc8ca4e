"""Reconstruction pipeline with NumPy models (physics 7, 8)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ptycho_backend.config import ExecutionConfig, InferenceConfig, ModelConfig, TrainingConfig
from ptycho_backend.data.npz import write_npz
from ptycho_backend.data.readers import load_scan
from ptycho_backend.engines.model import PROBE, Model
from ptycho_backend.errors import ShapeError
from ptycho_backend.network import prediction, reference
from ptycho_backend.network.architectures import initial_weights
from ptycho_backend.network.physics_constants import PhysicsConstants
from ptycho_backend.network.weights import starting_weights
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.physics.translation import extract_patches_at
from ptycho_backend.reconstruction import fit_to_scan, reconstruct_scan
from ptycho_backend.runtime import memory_map
from ptycho_backend.simulation.simulate import simulate_scan
from ptycho_backend.solver import phase_synchronization, stitching
from ptycho_backend.solver.scan_geometry import CanvasFrame
from ptycho_backend.solver.stitching import assemble
from ptycho_backend.testing.images import error_of, truth_on

N = 32
SETTINGS = {"N": N, "n_positions": 25, "object_name": "lines", "photons_per_pattern": 1e6, "step_px": 3.0}


class OracleModel(Model):
    """The reference model behind the contract."""

    backend = "oracle"

    def __init__(self, training, calibration, execution=None):
        self.training, self.config, self.calibration = training, training.model, calibration
        self.execution = execution or ExecutionConfig()
        self.weights = starting_weights(training, calibration)

    def get_weights(self):
        return {name: value.copy() for name, value in self.weights.items()}

    def set_weights(self, weights):
        self.weights = dict(weights)

    def predict_patches(self, batch, amplitude_constraint=False):
        constants = PhysicsConstants.of(self.config, self.calibration)
        patches = reference.reference_patches(self.config, self.weights, constants, batch, amplitude_constraint)
        return patches.astype(np.complex64)

    def expected_counts(self, batch, amplitude_constraint=False):
        raise NotImplementedError

    def loss_and_gradients(self, batch):
        raise NotImplementedError


class TruthModel(OracleModel):
    """Predicts the true patches with a random phase for each group."""

    def __init__(self, training, calibration, execution=None):
        super().__init__(training, calibration, execution)
        self.rng = np.random.default_rng(0)

    def predict_patches(self, batch, amplitude_constraint=False):
        phase_factors = np.exp(1j * self.rng.uniform(0, 6, size=(len(batch), 1, 1, 1)))
        return (batch.labels * phase_factors).astype(np.complex64)


@pytest.fixture(scope="module")
def scan():
    return simulate_scan(**SETTINGS)


STITCHED = InferenceConfig(iterations=0)  # the stitched image alone


def model_of(scan, kind=OracleModel, seed=0, **fields):
    config = ModelConfig(**{"N": N, "n_filters_scale": 1, "unrolled_steps": 1, **fields})
    return kind(TrainingConfig(model=config, seed=seed), calibrate(scan, config))


@pytest.fixture
def with_labels(monkeypatch):
    """Add the true patches to all batches."""
    real = prediction.Samples
    monkeypatch.setattr(prediction, "Samples", lambda *args: real(*args, with_labels=True))


@pytest.mark.parametrize("gridsize", [1, 2])
def test_true_patches_with_random_phases_give_the_object(scan, with_labels, gridsize):
    model = model_of(scan, TruthModel, gridsize=gridsize)
    image = reconstruct_scan(scan, model, STITCHED)
    # The remaining error is that of bilinear interpolation.
    assert error_of(image, scan) < 0.06
    unaligned = reconstruct_scan(scan, model, dataclasses.replace(STITCHED, phase_alignment=False))
    assert error_of(unaligned, scan) > 0.3


def test_canvas_is_that_of_the_scan_for_any_probe_support(scan, with_labels):
    frame = CanvasFrame.around(scan.positions_px, N)
    image = reconstruct_scan(scan, model_of(scan, TruthModel), InferenceConfig())
    assert (image.obj.shape, image.origin_px) == (frame.shape, frame.origin_px)
    # The probe illuminates about a third of the window: corners stay 0.
    assert image.coverage[0, 0] == 0
    assert image.obj[0, 0] == 0


def test_batches_are_reported_and_do_not_change_the_image(scan):
    events = []
    model = model_of(scan)
    image = reconstruct_scan(scan, model, dataclasses.replace(STITCHED, batch_size=10), events.append)
    first = [e for e in events if e.stage == "reconstruction"]
    assert [(e.done, e.total) for e in first] == [(n, 25) for n in (10, 20, 25)]
    assert list(dict.fromkeys(e.stage for e in events)) == ["reconstruction", "phase alignment", "stitching"]
    assert all(max(e.done for e in events if e.stage == stage) == total for stage, total in totals(events).items())
    other = reconstruct_scan(scan, model, dataclasses.replace(STITCHED, batch_size=3))
    np.testing.assert_allclose(other.obj, image.obj, atol=1e-5)


def totals(events):
    return {event.stage: event.total for event in events}


@pytest.fixture
def patches_in_a_file(monkeypatch, tmp_path):
    """Store patches in a file and process few at a time."""
    monkeypatch.setattr(memory_map, "IN_MEMORY_BYTES", 1000)
    monkeypatch.setattr(stitching, "CHUNK", 4)
    monkeypatch.setattr(phase_synchronization, "CHUNK_PAIRS", 7)
    monkeypatch.setattr(memory_map, "scratch_folder", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize("gridsize", [1, 2])
def test_patches_in_a_file_give_an_identical_image(scan, gridsize, request):
    model = model_of(scan, gridsize=gridsize, initial_iterations=0)
    settings = InferenceConfig(iterations=2)
    expected = reconstruct_scan(scan, model, settings)
    folder = request.getfixturevalue("patches_in_a_file")
    listings = []
    image = reconstruct_scan(scan, model, settings, lambda event: listings.append(list(folder.iterdir())))
    np.testing.assert_array_equal(image.obj, expected.obj)
    np.testing.assert_array_equal(image.coverage, expected.coverage)
    assert not any(listings)  # the file has no name: nothing remains in the folder
    assert isinstance(memory_map.scratch_array((1000,), np.float32), np.memmap)


@pytest.mark.parametrize("batch_size", [1, 4, 25, 100])
def test_image_from_a_file_is_independent_of_the_batch_size(scan, batch_size, patches_in_a_file, tmp_path):
    mapped_scan = load_scan(write_npz(scan, tmp_path / "scan.npz"))
    model, settings = model_of(scan, initial_iterations=0), InferenceConfig(iterations=2)
    expected = reconstruct_scan(scan, model, settings)
    found = reconstruct_scan(mapped_scan, model, dataclasses.replace(settings, batch_size=batch_size))
    np.testing.assert_allclose(found.obj, expected.obj, atol=1e-5)


def test_event_images_show_the_patterns_so_far_on_the_final_canvas(scan):
    events = []
    model, settings = model_of(scan, initial_iterations=0), dataclasses.replace(STITCHED, batch_size=10)
    final = reconstruct_scan(scan, model, settings, events.append)
    first, *_, last = (event.image() for event in events if event.image)
    np.testing.assert_array_equal(last.obj, final.obj)
    assert (first.obj.shape, first.origin_px) == (final.obj.shape, final.origin_px)
    part = reconstruct_scan(scan.subset(slice(0, 10)), model, dataclasses.replace(settings, calibration="model"))
    covered = first.coverage > 0
    assert 0.2 < covered.sum() / (final.coverage > 0).sum() < 0.9
    assert first.coverage.sum() == pytest.approx(part.coverage.sum(), rel=1e-5)


@pytest.mark.parametrize("stage", ["reconstruction", "phase alignment", "stitching", "iterations"])
def test_interruption_is_raised(scan, stage):
    def interrupt(event):
        if event.stage == stage:
            raise KeyboardInterrupt

    model = model_of(scan, initial_iterations=0)
    with pytest.raises(KeyboardInterrupt):
        reconstruct_scan(scan.subset(slice(0, 9)), model, InferenceConfig(iterations=1), interrupt)


def test_probe_refinement_reports_no_images(scan):
    events = []
    fit_to_scan(model_of(scan), scan, InferenceConfig(probe_iterations=2), events.append)
    assert [(event.stage, event.image) for event in events] == [("probe", None)] * 2


def test_final_amplitude_constraint_is_an_option(scan):
    model = model_of(scan, initial_iterations=0)  # after many steps one more has little effect
    constrained = reconstruct_scan(scan, model, dataclasses.replace(STITCHED, amplitude_constraint=True))
    without = reconstruct_scan(scan, model, dataclasses.replace(STITCHED, amplitude_constraint=False))
    assert np.abs(constrained.obj - without.obj).max() > 1e-3
    assert error_of(constrained, scan) < error_of(without, scan)


def test_iterations_lower_the_error_and_keep_the_origin(scan):
    model = model_of(scan)
    rough = reconstruct_scan(scan, model, STITCHED)
    better = reconstruct_scan(scan, model, dataclasses.replace(STITCHED, iterations=5))
    assert error_of(better, scan) < 0.6 * error_of(rough, scan)
    assert better.origin_px == rough.origin_px


def test_iterations_are_the_last_stage(scan):
    events = []
    reconstruct_scan(scan, model_of(scan), InferenceConfig(iterations=1), events.append)
    assert [event.stage for event in events][-2:] == ["stitching", "iterations"]


def test_groups_are_drawn_from_the_seed(scan):
    model, part = model_of(scan, gridsize=2), scan.subset(slice(0, 9))
    images = [reconstruct_scan(part, model, InferenceConfig(seed=seed)).obj for seed in (0, 0, 1)]
    np.testing.assert_array_equal(images[0], images[1])
    assert (images[0] != images[2]).any()


def test_assembly_uses_the_positions_of_each_group(scan):
    indices = np.array([[3, 0], [7, 5]])
    patches = extract_patches_at(scan.obj, scan.positions_px[indices.ravel()], 8, scan.obj_origin_px).reshape(
        2, 2, 8, 8
    )
    image = assemble(patches, scan, indices, np.ones((8, 8), np.float32), phase_alignment=False)
    covered = image.coverage > 0.9
    assert covered.sum() > 100
    assert np.abs(image.obj - truth_on(image, scan))[covered].mean() < 0.03
    swapped = assemble(patches, scan, indices[:, ::-1], np.ones((8, 8), np.float32), phase_alignment=False)
    assert np.abs(swapped.obj - truth_on(swapped, scan))[swapped.coverage > 0.9].mean() > 0.1


class TestCalibration:
    """Probe and scale of a model on a scan."""

    def test_same_guess_keeps_the_trained_probe_and_scales_with_the_photons(self, scan):
        model = model_of(scan)
        model.weights[PROBE] = model.weights[PROBE][:, ::-1].copy()
        brighter = dataclasses.replace(scan, patterns=scan.patterns.astype(np.uint32) * 4)
        fitted = fit_to_scan(model, brighter, InferenceConfig())
        np.testing.assert_allclose(fitted.calibration.probe, model.trained_calibration().probe, rtol=1e-5)
        assert fitted.calibration.rms_input_scale == pytest.approx(model.calibration.rms_input_scale / 2, rel=1e-5)
        assert fitted.calibration.probe_guess_sha256 == model.calibration.probe_guess_sha256

    def test_another_guess_replaces_the_probe(self, scan):
        other = simulate_scan(**{**SETTINGS, "probe_name": "gaussian"})
        fitted = fit_to_scan(model_of(scan), other, InferenceConfig())
        np.testing.assert_allclose(fitted.calibration.probe, calibrate(other, ModelConfig(N=N)).probe)
        np.testing.assert_allclose(fitted.trained_calibration().probe, fitted.calibration.probe)

    def test_scan_replaces_a_trained_probe(self, scan):
        model = model_of(scan)
        model.weights[PROBE] = model.weights[PROBE][:, ::-1].copy()
        fitted = fit_to_scan(model, scan, InferenceConfig(calibration="scan"))
        np.testing.assert_allclose(fitted.calibration.probe, calibrate(scan, ModelConfig(N=N)).probe)

    def test_model_returns_the_same_model(self, scan):
        model = model_of(scan)
        assert fit_to_scan(model, scan, InferenceConfig(calibration="model")) is model

    def test_equal_calibration_returns_the_same_model(self, scan):
        model = model_of(scan)
        assert fit_to_scan(model, scan, InferenceConfig()) is model
        assert fit_to_scan(model, scan.subset(slice(0, 4)), InferenceConfig()) is not model

    def test_unet_adapts_to_the_size_of_the_scan(self, scan):
        larger = simulate_scan(**{**SETTINGS, "N": 48})
        image = reconstruct_scan(larger, model_of(scan), InferenceConfig())
        assert image.obj.shape == CanvasFrame.around(larger.positions_px, 48).shape

    @pytest.mark.parametrize(("architecture", "calibration"), [("cnn", "auto"), ("cnn", "scan"), ("unet", "model")])
    def test_model_with_a_fixed_size_refuses_another(self, scan, architecture, calibration):
        larger = simulate_scan(**{**SETTINGS, "N": 48})
        with pytest.raises(ShapeError, match="48×48"):
            fit_to_scan(model_of(scan, architecture=architecture), larger, InferenceConfig(calibration=calibration))

    def test_recalibrated_model_keeps_its_weights(self, scan):
        model = model_of(scan, seed=3)
        twin = model.with_calibration(calibrate(scan, ModelConfig(N=N)))
        assert twin is not model
        for name, value in initial_weights(model.config, 3).items():
            np.testing.assert_array_equal(twin.weights[name], value)
        assert twin.execution is model.execution
