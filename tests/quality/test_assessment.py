"""Assessment without a known object: every figure on cases with and without the fault (metrics 8)."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from ptycho_backend.config import ExecutionConfig, InferenceConfig, ModelConfig, TrainingConfig
from ptycho_backend.data.image import Image
from ptycho_backend.data.scan import Scan
from ptycho_backend.engines import registry
from ptycho_backend.engines.model import PROBE, Model
from ptycho_backend.errors import ShapeError
from ptycho_backend.network.prediction import predict
from ptycho_backend.network.weights import starting_weights
from ptycho_backend.physics.amplitude_constraint import accelerated, initial_estimate
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.quality import half_datasets as half_datasets_module
from ptycho_backend.quality import residuals as residuals_module
from ptycho_backend.quality.assessment import assess
from ptycho_backend.quality.half_datasets import split_evenly
from ptycho_backend.quality.residuals import residuals
from ptycho_backend.reconstruction import reconstruct_scan
from ptycho_backend.runtime import memory_map
from ptycho_backend.simulation.simulate import covering_frame, detected, expected_counts, simulate_scan
from ptycho_backend.testing.images import error_of

SETTINGS = {"N": 32, "n_positions": 100, "photons_per_pattern": 1e5, "object_name": "lines", "scan_name": "spiral"}
INFERENCE = InferenceConfig(calibration="model")


class SinglePattern(Model):
    """Initial estimate of each pattern by physics: an untrained "unet" without an engine."""

    backend = "single-pattern"

    def __init__(self, training, calibration, execution=None):
        self.training, self.config, self.calibration = training, training.model, calibration
        self.execution = execution or ExecutionConfig()
        self.weights = starting_weights(training, calibration)

    def get_weights(self):
        return dict(self.weights)

    def set_weights(self, weights):
        self.weights = dict(weights)

    def predict_patches(self, batch, amplitude_constraint=False):
        probe = self.calibration.probe
        return accelerated(initial_estimate(batch.x, probe), batch.x, probe, batch.mask, 8).astype(np.complex64)

    def expected_counts(self, batch, amplitude_constraint=False):
        raise NotImplementedError

    def loss_and_gradients(self, batch):
        raise NotImplementedError


class Constant(SinglePattern):
    """Collapsed network: the same patch for every pattern."""

    def predict_patches(self, batch, amplitude_constraint=False):
        return np.full_like(super().predict_patches(batch), 0.9)


class Inconsistent(SinglePattern):
    """Patches with a random phase ramp each."""

    def predict_patches(self, batch, amplitude_constraint=False):
        patches = super().predict_patches(batch)
        y, x = np.indices(patches.shape[-2:]) - 16
        slopes = np.random.default_rng(len(batch)).uniform(-0.3, 0.3, (2, len(patches), 1, 1, 1))
        return (patches * np.exp(1j * (slopes[0] * y + slopes[1] * x))).astype(np.complex64)


class RandomPhase(SinglePattern):
    """Patches with a random constant phase each, which diffraction does not determine."""

    def predict_patches(self, batch, amplitude_constraint=False):
        turns = np.exp(1j * np.random.default_rng(len(batch)).uniform(0, 6, (len(batch), 1, 1, 1)))
        return (super().predict_patches(batch) * turns).astype(np.complex64)


@pytest.fixture(autouse=True)
def engine(monkeypatch):
    """Replace the registry by an engine that builds the models of this file."""

    class Engine:
        def create_model(self, training, calibration, execution=None):
            return SinglePattern(training, calibration, execution)

    monkeypatch.setattr(registry, "get_backend", lambda name: Engine())


def model_of(scan, kind=SinglePattern):
    config = ModelConfig(N=scan.N)
    return kind(TrainingConfig(model=config), calibrate(scan, config))


def assessed(scan, kind=SinglePattern, **settings):
    """Reconstruct and assess a scan."""
    inference = dataclasses.replace(INFERENCE, **settings)
    model = model_of(scan, kind)
    image = reconstruct_scan(scan, model, inference)
    return assess(scan, image, model, inference), image


@pytest.fixture(scope="module")
def scan() -> Scan:
    return simulate_scan(**SETTINGS)


def flat_scan(scan) -> Scan:
    """Return the same experiment without a sample."""
    origin, size = covering_frame(scan.positions_px, scan.N)
    expected = expected_counts(np.ones(size, complex), origin, scan.probe, scan.positions_px)
    return dataclasses.replace(scan, patterns=detected(expected, np.random.default_rng(1)), obj=None)


# --- a good image -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("photons", [1e3, 1e4, 1e5, 1e7])
def test_a_good_image_gets_no_warning(photons):
    found, _ = assessed(simulate_scan(**{**SETTINGS, "photons_per_pattern": photons}))
    # At the lowest dose the resolution of the half datasets may be poor.
    assert [warning for warning in found.warnings if photons > 1e3 or "Half datasets" not in warning] == []
    assert not found.collapsed
    assert found.outliers == ()
    assert 0.9 < found.residual / found.shot_noise_floor < 1.5


def test_spread_of_half_datasets_is_the_error_of_the_image(scan):
    """Half the difference of two halves has the standard deviation of the whole image."""
    found, image = assessed(scan)
    spread = np.hypot(found.halves.spread_amplitude, found.halves.spread_phase_rad)
    assert spread == pytest.approx(error_of(image, scan), rel=0.5)


def test_spread_and_resolution_improve_with_photons():
    few, many = (assessed(simulate_scan(**{**SETTINGS, "photons_per_pattern": n}))[0].halves for n in (3e3, 3e5))
    assert few.spread_amplitude > 5 * many.spread_amplitude
    assert few.spread_phase_rad > 5 * many.spread_phase_rad
    assert few.resolution < 0.8 * many.resolution


def test_figures_convert_to_json(scan):
    found, _ = assessed(scan)
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert len(plain["residual_per_pattern"]) == len(plain["disagreement_per_pattern"]) == len(scan)
    assert plain["residual"] == pytest.approx(np.mean(plain["residual_per_pattern"]))
    assert plain["halves"]["resolution"] == found.halves.resolution
    assert plain["conditions"]["size_px"] == [32.0, 32.0]
    assert next(iter(plain)) == "warnings"


# --- residual -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exact():
    """Return a scan on whole pixels, its calibration, and its object as an image without error."""
    made = simulate_scan(**SETTINGS)
    positions = np.rint(made.positions_px)
    mask = np.random.default_rng(2).random((32, 32)) > 0.1
    expected = expected_counts(made.obj, made.obj_origin_px, made.probe, positions)
    patterns = np.where(mask, detected(expected, np.random.default_rng(1)), 60_000)
    scan = dataclasses.replace(made, patterns=patterns, positions_px=positions, mask=mask)
    # An object in units of the calibrated probe.
    calibration = calibrate(scan, ModelConfig(N=32))
    scale = calibration.rms_input_scale * np.linalg.norm(made.probe) / (scan.N / 2)
    obj = (made.obj * scale).astype(np.complex64)
    return scan, calibration, Image(obj, np.ones(obj.shape, np.float32), made.obj_origin_px)


def test_residual_of_the_truth_is_shot_noise(exact):
    scan, calibration, image = exact
    found = residuals(scan, calibration, image)
    good = np.count_nonzero(scan.mask)
    # Half-deviances of bright pixels have a variance of 1/2.
    assert found.residual.mean() == pytest.approx(found.floor.mean(), abs=3 * np.sqrt(0.5 / good / len(scan)))
    assert np.abs(found.residual - found.floor).max() < 5 * np.sqrt(0.5 / good)
    assert found.photons == pytest.approx((scan.patterns * scan.mask).sum() / len(scan))
    assert found.counts == pytest.approx(found.photons / good)


def test_measured_variation_excludes_photon_noise(exact):
    scan, _, image = exact
    for dose, tolerance in ((1.0, 0.02), (1e-2, 0.1)):
        fewer = np.random.default_rng(3).binomial(scan.patterns * scan.mask, dose)
        thinned = dataclasses.replace(scan, patterns=fewer)
        found = residuals(thinned, calibrate(thinned, ModelConfig(N=32)), image)
        measured, error, predicted = dataclasses.astuple(found.variation)
        assert 0 < error < 0.1 * measured
        # In patterns of 1000 photons the noise exceeds the variation by the object.
        assert measured == pytest.approx(predicted, rel=tolerance)
        assert abs(found.unexplained_variance.mean()) < tolerance * measured


def test_residuals_do_not_depend_on_chunks_and_units(exact, monkeypatch):
    scan, calibration, image = exact
    whole = residuals(scan, calibration, image)
    monkeypatch.setattr(residuals_module, "CHUNK_PIXELS", 7 * 32**2)
    pieces = residuals(scan, calibration, image)
    np.testing.assert_allclose(pieces.residual, whole.residual, rtol=1e-6)
    assert dataclasses.astuple(pieces.variation) == pytest.approx(
        dataclasses.astuple(whole.variation), rel=1e-6, abs=1e-9
    )
    amplitude = dataclasses.replace(scan, patterns=np.sqrt(scan.patterns), measurement="amplitude")
    np.testing.assert_allclose(residuals(amplitude, calibration, image).residual, whole.residual, rtol=1e-4)


def test_wrong_probe_gets_a_warning_although_halves_agree():
    found, _ = assessed(simulate_scan(**{**SETTINGS, "photons_per_pattern": 1e6, "probe_error": 0.15}))
    assert found.residual > 5 * found.shot_noise_floor
    assert any("the probe is wrong" in warning for warning in found.warnings)
    assert found.halves.resolution > 0.3


@pytest.mark.parametrize("object_name", ["lines", "photographs"])
def test_wrong_positions_get_a_warning(object_name):
    scan = simulate_scan(**{**SETTINGS, "object_name": object_name})
    shuffled = scan.positions_px[np.random.default_rng(0).permutation(len(scan))]
    wrong = dataclasses.replace(scan, positions_px=shuffled)
    found, _ = assessed(wrong, half_datasets=False)
    assert found.unexplained_variance > 0.05
    assert "the positions, their order" in found.warnings[0]
    given, _ = assessed(wrong, half_datasets=False, fit_positions="off")
    assert given.unexplained_variance > 0.5
    assert given.warnings[0].startswith("The positions are not those of the patterns")


def test_outliers_are_named(scan):
    patterns = scan.patterns.copy()
    patterns[17] = patterns[17][::-1, ::-1].T
    patterns[40] = patterns[40] // 4
    found, _ = assessed(dataclasses.replace(scan, patterns=patterns))
    assert {17, 40} <= set(found.outliers[:4])
    assert len(found.outliers) < 12
    (text,) = (warning for warning in found.warnings if "fit much worse" in warning)
    assert str(found.outliers[0]) in text
    # The other patterns fit, so the probe gets no warning.
    assert not any("the probe is wrong" in warning for warning in found.warnings)


def test_empty_pattern_is_left_out_and_named(scan, caplog):
    patterns = scan.patterns.copy()
    patterns[5] = 0
    patterns[40] = patterns[40] // 4  # dim: an outlier, not odd
    found, _ = assessed(dataclasses.replace(scan, patterns=patterns), fit_flux="off")
    assert "1 of 100 patterns are left out: 1 empty" in caplog.text
    assert set(range(100)) - set(found.numbers) == {5}
    assert found.numbers[found.outliers[0]] == 40
    (text,) = (warning for warning in found.warnings if "fit much worse" in warning)
    assert "40" in text


def test_odd_patterns_can_be_kept(scan):
    patterns = scan.patterns.copy()
    patterns[5] = 0
    kept = dataclasses.replace(scan, patterns=patterns, searched=("patterns",))
    found, image = assessed(kept, half_datasets=False, fit_positions="off")
    assert found.numbers[found.outliers[0]] == 5
    assert len(image.experiment.positions_px) == 100


# --- patches against the image ------------------------------------------------------------------------------------


def test_disagreement_ignores_constant_phases(scan):
    # Phases of single patches are aligned to 1e-3 before stitching.
    assert assessed(scan, RandomPhase, half_datasets=False)[0].disagreement == pytest.approx(
        assessed(scan, half_datasets=False)[0].disagreement, rel=0.02
    )


def test_true_patches_agree_with_the_true_image(exact):
    """Equal exit waves differ by rounding alone, because the comparison does not interpolate."""
    scan, _, image = exact

    class TruePatches(SinglePattern):
        def predict_patches(self, batch, amplitude_constraint=False):
            nonlocal start
            rows = scan.positions_px[start : start + len(batch)] - image.origin_px - scan.N // 2
            start += len(batch)
            corners = rows.astype(int)
            return np.stack([image.obj[y : y + 32, x : x + 32] for y, x in corners])[:, None]

    start = 0
    found = assess(scan, image, model_of(scan, TruePatches), dataclasses.replace(INFERENCE, half_datasets=False))
    assert start == len(scan)
    assert found.disagreement < 1e-5
    assert found.warnings == ()


def test_inconsistent_patches_get_a_warning(scan):
    found, _ = assessed(scan, Inconsistent, half_datasets=False)
    assert found.disagreement > 0.5
    assert any("contradict" in warning for warning in found.warnings)


# --- collapse -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("photons", [1e4, 1e6])
def test_constant_image_is_collapsed(photons):
    scan = simulate_scan(**{**SETTINGS, "photons_per_pattern": photons})
    found, _ = assessed(scan, Constant, iterations=0)
    assert found.collapsed
    assert found.predicted_variation < 0.01 * found.measured_variation
    assert "the object was not found" in found.warnings[0]
    # Two constant images agree at every frequency, which is no resolution.
    assert found.halves.resolution == 0.0


def test_constant_image_of_a_weak_object_is_collapsed():
    scan = simulate_scan(**{**SETTINGS, "photons_per_pattern": 1e7, "phase_range_rad": 0.1, "object_name": "textures"})
    assert assessed(scan, Constant, iterations=0, half_datasets=False)[0].collapsed
    assert not assessed(scan, half_datasets=False)[0].collapsed


def test_collapsed_network_behind_a_good_image_gets_a_warning(scan):
    found, image = assessed(scan, Constant)
    assert error_of(image, scan) < 0.1
    assert found.collapsed
    assert "the same patch for every pattern" in found.warnings[0]


@pytest.mark.parametrize(("kind", "iterations"), [(Constant, 0), (Constant, 16), (SinglePattern, 16)])
def test_flat_sample_is_not_collapsed(scan, kind, iterations):
    found, _ = assessed(flat_scan(scan), kind, iterations=iterations)
    assert not found.collapsed
    assert found.warnings == ()
    if iterations:
        assert found.residual == pytest.approx(found.shot_noise_floor, rel=0.1)


def test_flickering_beam_is_not_an_object(scan):
    flat = flat_scan(scan)
    beam = np.random.default_rng(4).uniform(0.9, 1.0, (len(scan), 1, 1))
    thinned = np.random.default_rng(5).binomial(flat.patterns, np.broadcast_to(beam, flat.patterns.shape))
    assert not assessed(dataclasses.replace(flat, patterns=thinned), Constant, iterations=0)[0].collapsed


# --- half datasets ------------------------------------------------------------------------------------------------


def test_halves_of_a_raster_form_a_chessboard():
    made = simulate_scan(N=32, n_positions=64, scan_name="raster")
    y, x = np.divmod(np.arange(64), 8)
    strict = dataclasses.replace(made, positions_px=np.stack([y, x], axis=1) * 3.0)
    one, other = split_evenly(strict)
    assert sorted([*one, *other]) == list(range(64))
    assert set((y + x)[one] % 2) != set((y + x)[other] % 2)
    assert len(set((y + x)[one] % 2)) == len(set((y + x)[other] % 2)) == 1


@pytest.mark.parametrize("name", ["raster", "spiral", "random"])
def test_halves_have_similar_size_and_cover_the_scan(name):
    from scipy.spatial import cKDTree

    scan = simulate_scan(N=32, n_positions=200, scan_name=name, step_px=4.0)
    one, other = split_evenly(scan)
    assert abs(len(one) - len(other)) < 40
    for half in (one, other):
        assert cKDTree(scan.positions_px[half]).query(scan.positions_px)[0].max() < 8.0


def test_repeated_positions_go_to_both_halves(scan):
    twice = dataclasses.replace(scan.subset(np.repeat(np.arange(50), 2)), obj=None)
    one, other = split_evenly(twice)
    assert len(one) == len(other) == 50
    np.testing.assert_array_equal(one // 2, other // 2)


def test_halves_of_large_scans_are_views(scan, monkeypatch):
    monkeypatch.setattr(half_datasets_module, "COPIED_BYTES", 1000)
    parts = [scan.subset(rows) for rows in split_evenly(scan)]
    assert all(np.shares_memory(part.patterns, scan.patterns) for part in parts)
    assert sum(len(part) for part in parts) == len(scan)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_positions": 12}, "fewer than 8"),
        ({"step_px": 8.0}, "no longer overlap"),
        ({"n_positions": 25, "step_px": 1.5}, "too small"),
    ],
)
def test_unusable_halves_give_a_reason(change, words):
    found, _ = assessed(simulate_scan(**{**SETTINGS, **change}))
    assert found.halves is None
    assert words in found.no_halves


def test_half_datasets_can_be_switched_off(scan):
    found, _ = assessed(scan, half_datasets=False)
    assert (found.halves, found.no_halves) == (None, "not requested")


def test_poor_resolution_gets_a_warning():
    scan = simulate_scan(**{**SETTINGS, "n_positions": 225, "object_name": "photographs"})
    shuffled = scan.positions_px[np.random.default_rng(0).permutation(len(scan))]
    found, _ = assessed(dataclasses.replace(scan, positions_px=shuffled), fit_positions="off")
    assert found.halves.resolution < 0.2
    assert any("Half datasets agree only up to" in warning for warning in found.warnings)


STAGES = ("phase alignment", "stitching", "iterations")


def test_stage_names_contain_the_number_of_the_half(scan):
    events = []
    model = model_of(scan)
    image = reconstruct_scan(scan, model, INFERENCE)
    assess(scan, image, model, INFERENCE, events.append)
    assert {event.stage for event in events} == {
        "residual",
        "prediction",
        "agreement",
        *(f"half {n}: {stage}" for n in (1, 2) for stage in STAGES),
    }
    # An image of half the patterns is not the image of the scan.
    assert all(event.image is None for event in events)


class Counting(SinglePattern):
    """A model that counts predicted patterns."""

    n_predicted = 0

    def predict_patches(self, batch, amplitude_constraint=False):
        Counting.n_predicted += len(batch.x)
        return super().predict_patches(batch, amplitude_constraint)


def test_patterns_are_predicted_once(scan):
    model = model_of(scan, Counting)
    image = reconstruct_scan(scan, model, INFERENCE)
    again = assess(scan, image, model, INFERENCE)
    predicted = predict(scan, model, INFERENCE)
    Counting.n_predicted = 0
    found = assess(scan, image, model, INFERENCE, predicted=predicted)
    assert Counting.n_predicted == 0
    assert found.to_dict() == again.to_dict()
    assess(scan, image, model, INFERENCE)
    assert Counting.n_predicted == len(scan)


@pytest.mark.parametrize("gridsize", [1, 2])
@pytest.mark.parametrize("large", [False, True])
def test_half_images_equal_separate_reconstructions(scan, engine, monkeypatch, gridsize, large):
    if large:  # halves of every second pattern, patches in a file
        monkeypatch.setattr(half_datasets_module, "COPIED_BYTES", 0)
        monkeypatch.setattr(memory_map, "IN_MEMORY_BYTES", 1000)
    model = model_of(scan).with_calibration(model_of(scan).calibration, gridsize)
    half_images, compare = [], half_datasets_module.compare

    def recording_compare(one, one_origin, other, *more):
        half_images.extend((one, other))
        return compare(one, one_origin, other, *more)

    monkeypatch.setattr(half_datasets_module, "compare", recording_compare)
    assess(scan, reconstruct_scan(scan, model, INFERENCE), model, INFERENCE)
    settings = dataclasses.replace(INFERENCE, calibration="model", probe_iterations=0)
    for rows, obj in zip(split_evenly(scan), half_images, strict=True):
        expected = reconstruct_scan(scan.subset(rows), model, settings)
        np.testing.assert_allclose(obj, expected.obj, atol=1e-5)


# --- the smallest scans -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_patterns_are_assessed(n):
    scan = simulate_scan(**{**SETTINGS, "n_positions": n})
    found, _ = assessed(scan)
    assert np.isfinite(found.residual_per_pattern).all()
    assert found.halves is None


def test_line_scan_is_assessed(scan):
    line = dataclasses.replace(scan, positions_px=np.stack([np.zeros(100), np.arange(100) * 2.0], axis=1))
    found, _ = assessed(line)
    assert np.isfinite(found.residual)
    assert found.conditions.step[0] == pytest.approx(2.0 / (0.35 * 32), rel=0.1)


def test_trained_probe_is_used(scan):
    """A trained probe is stored in the weights, not in the calibration."""
    model, inference = model_of(scan), dataclasses.replace(INFERENCE, half_datasets=False)
    image = dataclasses.replace(reconstruct_scan(scan, model, inference), experiment=None)
    previous = assess(scan, image, model, inference).residual
    model.weights[PROBE] = model.weights[PROBE] * np.float32(1.1)
    assert assess(scan, image, model, inference).residual > 2 * previous


def test_fitted_experiment_belongs_to_the_image(scan):
    """The residual of an image is that of its own probe, positions, flux and background."""
    wrong = dataclasses.replace(scan, positions_px=scan.positions_px + np.random.default_rng(1).normal(0, 1, (100, 2)))
    found, image = assessed(wrong, half_datasets=False)
    assert found.residual < 1.25 * found.shot_noise_floor
    assert found.experiment.moved_px == pytest.approx(np.sqrt(2), rel=0.15)
    bare = dataclasses.replace(image, experiment=None)
    inference = dataclasses.replace(INFERENCE, half_datasets=False)
    assert assess(wrong, bare, model_of(scan), inference).residual > 2.5 * found.residual


def test_image_of_other_patterns_is_refused(scan):
    _, image = assessed(scan, half_datasets=False)
    with pytest.raises(ShapeError, match="a scan of 100 patterns"):
        assess(scan.subset(slice(0, 99)), image, model_of(scan), INFERENCE)
