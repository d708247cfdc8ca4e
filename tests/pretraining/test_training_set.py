"""Training set: distributions of the recipe, physics, and separation from the test objects."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from ptycho_backend.errors import ConfigError
from ptycho_backend.physics.propagation import far_field
from ptycho_backend.pretraining import objects as training_objects
from ptycho_backend.pretraining import probes as training_probes
from ptycho_backend.pretraining.objects import draw_map
from ptycho_backend.pretraining.probes import defocused, draw_probe
from ptycho_backend.pretraining.training_set import NAMES, Recipe, check_recipe, draw, draw_scan
from ptycho_backend.simulation import objects
from ptycho_backend.simulation.simulate import expected_counts

FAULTLESS = {"wrong_probes": 0.0, "wrong_positions": 0.0, "bad_detectors": 0.0, "beamstops": 0.0}


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def small(**fields) -> Recipe:
    """Return a recipe of small scans: 16 patterns of 32×32."""
    recipe = Recipe(**{"sizes": {"32": 1.0}, "pixels": 16 * 32**2, **fields})
    check_recipe(recipe)
    return recipe


class TestScans:
    def test_all_kinds_are_drawn(self):
        attributes = [draw_scan(small(), rng(0, n)).attributes for n in range(250)]
        for table, key in (("objects", "object_name"), ("relations", "relation"), ("probes", "probe_name")):
            assert {item[key] for item in attributes} == set(NAMES[table])
        assert {item["scan_name"] for item in attributes} == set(NAMES["scans"])
        assert {item["modes"] for item in attributes} == {1, 2, 3}
        wrong = np.array([[item[key] != 0 for key in ("probe_error", "position_error_px")] for item in attributes])
        np.testing.assert_allclose(wrong.mean(axis=0), 0.4, atol=0.12)

    def test_values_fill_their_ranges(self):
        recipe = small()
        scans = [draw_scan(recipe, rng(1, n)).attributes for n in range(250)]
        for key, limits, log in (
            ("photons_per_pattern", recipe.photons_per_pattern, True),
            ("darkest", recipe.darkest, False),
            ("detail_sigma_px", recipe.detail_sigma_px, False),
        ):
            values = np.array([item[key] for item in scans if item["relation"] in ("independent", "correlated")])
            low, high = np.log(limits) if log else limits
            unit = ((np.log(values) if log else values) - low) / (high - low)
            assert (unit >= 0).all(), key
            assert (unit <= 1).all(), key
            np.testing.assert_allclose(np.quantile(unit, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.12)
        widths = np.array([item["diameter_px"] / item["N"] for item in scans])
        steps = np.array([item["step_px"] / item["diameter_px"] for item in scans])
        assert 0.1 <= widths.min() < 0.12 < 0.42 < widths.max() <= 0.45
        assert 0.05 <= steps.min() < 0.07 < 0.38 < steps.max() <= 0.4

    def test_relations_of_phase_and_amplitude(self):
        for relation in NAMES["relations"]:
            obj = draw_scan(small(relations={relation: 1.0}, phase_range_rad=[1.0, 1.0]), rng(2)).obj
            amplitude, phase = np.abs(obj), np.angle(obj)
            together = abs(np.corrcoef(amplitude.ravel(), phase.ravel())[0, 1]) if phase.std() > 1e-6 else 0.0
            assert (amplitude.std() < 1e-6) == (relation == "phase-only")
            assert (phase.std() < 1e-6) == (relation == "absorption-only")
            assert (together > 0.99) == (relation == "correlated")

    def test_phases_reach_pi_on_both_sides(self):
        recipe = small(objects={"chips": 1.0}, phase_range_rad=[6.28, 6.28])
        phase = np.angle(draw_scan(recipe, rng(3)).obj)
        assert phase.min() < -2.8
        assert phase.max() > 2.8

    def test_the_same_generator_draws_the_same_scan(self):
        first, again, other = (draw_scan(Recipe(pixels=4096), rng(4, seed)) for seed in (0, 0, 1))
        assert first.data_hash() == again.data_hash()
        np.testing.assert_array_equal(first.obj, again.obj)
        assert first.data_hash() != other.data_hash()

    @pytest.mark.parametrize("N", [32, 64, 128, 256])
    def test_scans_of_every_size_hold_about_the_same_pixels(self, N):
        scan = draw_scan(Recipe(sizes={str(N): 1.0}, pixels=2**18), rng(5))
        assert scan.patterns.size == 2**18
        assert scan.N == N

    def test_photons_are_as_drawn(self):
        for seed in range(10):
            scan = draw_scan(small(**FAULTLESS), rng(6, seed))
            photons = scan.attributes["photons_per_pattern"]
            assert scan.patterns.sum(dtype=float) / len(scan) == pytest.approx(photons, rel=5 / np.sqrt(16 * photons))

    def test_counts_are_poisson_distributed(self):
        recipe = small(photons_per_pattern=[1e5, 1e5], bad_detectors=0.0, beamstops=0.0, wrong_probes=1.0)
        drawn = draw(recipe, rng(7))
        expected = expected_counts(drawn.scan.obj, drawn.scan.obj_origin_px, drawn.probe, drawn.positions_px)
        bright = expected > 20
        deviation = (drawn.scan.patterns - expected)[bright] / np.sqrt(expected[bright])
        assert bright.sum() > 500
        assert np.mean(deviation**2) == pytest.approx(1.0, abs=0.15)
        assert np.mean(deviation) == pytest.approx(0.0, abs=0.15)

    def test_probe_guesses_have_the_energy_of_the_true_probe(self):
        wrong, right = (draw(small(wrong_probes=share), rng(8)) for share in (1.0, 0.0))
        np.testing.assert_allclose(right.scan.probe, right.probe, atol=1e-5 * np.abs(right.probe).max())
        overlap = np.abs(np.vdot(wrong.scan.probe[0], wrong.probe[0]))
        energy = np.linalg.norm(wrong.scan.probe[0]) * np.linalg.norm(wrong.probe[0])
        assert 0.5 < overlap / energy < 0.9999
        assert np.linalg.norm(wrong.scan.probe) == pytest.approx(np.linalg.norm(wrong.probe), rel=1e-4)

    def test_wrong_positions_scatter_around_the_true_ones(self):
        drawn = draw(small(wrong_positions=1.0, position_error_px=2.0), rng(9))
        error = drawn.scan.positions_px - drawn.positions_px
        assert error.std() == pytest.approx(drawn.scan.attributes["position_error_px"], rel=0.5)
        assert error.std() > 0

    def test_beamstops_hide_the_middle(self):
        scan = draw_scan(small(beamstops=1.0, beamstop=0.1, bad_detectors=0.0), rng(10))
        radius = np.hypot(*(np.indices((32, 32)) - 16))
        np.testing.assert_array_equal(scan.mask, radius > scan.attributes["beamstop_px"])
        assert not scan.mask[16, 16]

    def test_attributes_convert_to_json(self):
        assert json.loads(json.dumps(draw_scan(small(), rng(11)).attributes))["N"] == 32


class TestObjects:
    def test_training_pictures_differ_from_test_pictures(self):
        test_pictures = {*objects.PHOTOGRAPHS, *objects.TEXTURES, "motorcycle_right.png"}
        assert not test_pictures & set(training_objects.PICTURES)

    @pytest.mark.parametrize("name", training_objects.PICTURES)
    def test_every_picture_is_inside_scikit_image(self, name):
        assert objects.read_grey(name).ndim == 2

    @pytest.mark.parametrize("kind", training_objects.KINDS)
    def test_maps_fill_their_range_and_differ(self, kind):
        first, other = (draw_map(kind, (90, 71), rng(12, seed)) for seed in (0, 1))
        assert first.shape == (90, 71)
        assert first.dtype == np.float32
        assert 0.0 <= first.min() < 0.2
        assert 0.8 < first.max() <= 1.0
        assert first.std() > 0.01
        assert np.abs(first - other).max() > 0.1

    def test_roughness_is_the_exponent_of_the_power_spectrum(self):
        for exponent in (1.0, 3.0):
            field = training_objects.random_field((256, 256), exponent, rng(13))
            power, radius = np.abs(far_field(field)) ** 2, np.hypot(*(np.indices((256, 256)) - 128))
            low, high = (power[np.abs(radius - r) < 2].mean() for r in (16, 64))
            assert np.log(low / high) / np.log(4.0) == pytest.approx(exponent, abs=0.35)


class TestProbes:
    @pytest.mark.parametrize("kind", training_probes.KINDS)
    def test_energy_is_one_and_inside_the_probe(self, kind):
        radius = np.hypot(*(np.indices((128, 128)) - 64))
        for seed in range(5):
            probe = draw_probe(kind, 128, 40.0, 2, rng(14, seed))
            intensity = (np.abs(probe) ** 2).sum(axis=0)
            assert intensity.sum() == pytest.approx(1.0)
            assert intensity[radius < 40].sum() > 0.9
            assert intensity[radius > 5].sum() > 0.1

    @pytest.mark.parametrize("kind", ["disc", "gaussian", "zone-plate", "aberrated"])
    def test_both_sides_of_the_focus_occur(self, kind):
        y, x = np.indices((64, 64)) - 32
        curved = []
        for seed in range(12):
            wave = draw_probe(kind, 64, 24.0, 1, rng(15, seed))[0]
            flow = np.imag(np.conj(wave) * np.gradient(wave)[0]) * y + np.imag(np.conj(wave) * np.gradient(wave)[1]) * x
            curved.append(np.sign(flow.sum()))
        assert {-1.0, 1.0} == set(curved)

    def test_defocus_is_invertible(self):
        probe = draw_probe("zone-plate", 64, 24.0, 2, rng(16))
        shifted = defocused(probe, 0.7)
        assert np.abs(shifted - probe).max() > 0.01 * np.abs(probe).max()
        np.testing.assert_allclose(refocused(shifted, probe, 0.7), probe, atol=1e-12)


def refocused(shifted: np.ndarray, probe: np.ndarray, edge_rad: float) -> np.ndarray:
    """Undo a defocus: the intensity of the spectrum, which gives its edge, is unchanged."""
    np.testing.assert_allclose(np.abs(far_field(shifted)), np.abs(far_field(probe)), atol=1e-12)
    return defocused(shifted, -edge_rad)


class TestRecipes:
    def test_the_default_is_valid(self):
        check_recipe(Recipe())
        assert set(asdict(Recipe())["sizes"]) == {"32", "64", "128", "256"}

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ({"objects": {"chip": 1.0}}, "chips"),
            ({"sizes": {"33": 1.0}}, "sizes"),
            ({"probes": {"disc": 0.0}}, "nothing above 0"),
            ({"photons_per_pattern": [1e6, 1e3]}, "photons_per_pattern"),
            ({"darkest": [0.5]}, "darkest"),
            ({"beamstops": 1.5}, "beamstops"),
        ],
    )
    def test_wrong_values_are_refused_by_name(self, wrong, words):
        with pytest.raises(ConfigError, match=words):
            check_recipe(Recipe(**wrong))
