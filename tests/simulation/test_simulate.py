"""Simulated scans: physics, scan coordinates and settings."""

from __future__ import annotations

import json
import socket

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from ptycho_backend.errors import ConfigError, DataError, ShapeError
from ptycho_backend.physics.propagation import far_field
from ptycho_backend.simulation import objects
from ptycho_backend.simulation.objects import OBJECTS, make_object, siemens_star
from ptycho_backend.simulation.positions import SCANS, make_positions
from ptycho_backend.simulation.probes import PROBES, make_probe, shifted_probes
from ptycho_backend.simulation.simulate import (
    SimulationConfig,
    covering_frame,
    expected_counts,
    simulate_scan,
)

N = 32
SMALL = {"N": N, "n_positions": 30, "object_name": "lines"}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def complex_noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return rng(seed).normal(size=shape) + 1j * rng(seed + 1).normal(size=shape)


class TestObjects:
    @pytest.mark.parametrize("name", OBJECTS)
    def test_values_fill_their_ranges(self, name):
        obj = make_object(name, (90, 111), rng(), amplitude_range=(0.4, 0.9), phase_range_rad=(-2.0, 0.5))
        amplitude, phase = np.abs(obj), np.angle(obj)
        assert obj.shape == (90, 111)
        assert obj.dtype == np.complex64
        assert 0.4 - 1e-5 <= amplitude.min() < 0.55
        assert 0.75 < amplitude.max() <= 0.9 + 1e-5
        assert -2.0 - 1e-5 <= phase.min() < -1.3
        assert -0.2 < phase.max() <= 0.5 + 1e-5

    @pytest.mark.parametrize("name", OBJECTS)
    def test_detail_near_nyquist_is_weak_but_present(self, name):
        obj = make_object(name, (128, 128), rng(1))
        window = np.hanning(128)[:, None] * np.hanning(128)
        power = np.abs(far_field((obj - obj.mean()) * window)) ** 2
        radius = np.hypot(*(np.indices((128, 128)) - 64))
        middle, high = power[(radius > 16) & (radius < 24)].mean(), power[(radius > 50) & (radius < 62)].mean()
        assert 1e-6 < high / middle < 0.1

    @pytest.mark.parametrize("name", ["photographs", "textures", "lines"])
    def test_amplitude_and_phase_are_different_pictures(self, name):
        obj = make_object(name, (120, 120), rng(2))
        assert abs(np.corrcoef(np.abs(obj).ravel(), np.angle(obj).ravel())[0, 1]) < 0.6

    def test_photographs_need_no_download(self, monkeypatch):
        def refuse(*args, **kwargs):
            raise AssertionError("a photograph needs the network")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        monkeypatch.setattr(socket, "getaddrinfo", refuse)
        for filename in objects.PHOTOGRAPHS + objects.TEXTURES:
            assert objects.photograph(filename, (64, 80), rng()).shape == (64, 80)

    def test_an_object_may_be_larger_than_any_photograph(self):
        obj = make_object("photographs", (900, 1300), rng())
        assert obj.shape == (900, 1300)
        assert np.abs(obj[-50:, -50:]).std() > 0

    def test_a_missing_photograph_names_the_file(self, monkeypatch):
        monkeypatch.setattr(objects, "PHOTOGRAPHS", ("nowhere.png", "nothing.png"))
        with pytest.raises(DataError, match=r"no\w+\.png"):
            make_object("photographs", (64, 64), rng())

    def test_siemens_star_alternates_on_a_circle_of_known_radius(self):
        star = siemens_star((201, 201), centre_px=np.array([100.0, 100.0]), spokes=24)
        turn = np.linspace(0, 2 * np.pi, 2400, endpoint=False)
        ring = star[np.rint(100 + 90 * np.sin(turn)).astype(int), np.rint(100 + 90 * np.cos(turn)).astype(int)]
        assert np.abs(np.fft.rfft(ring - ring.mean())).argmax() == 24
        # Half of every period is covered.
        assert star.mean() == pytest.approx(0.5, abs=0.01)

    def test_an_unknown_name_gets_the_nearest_one(self):
        with pytest.raises(ConfigError, match="siemens"):
            make_object("simens", (64, 64), rng())


class TestProbes:
    @pytest.mark.parametrize("name", PROBES)
    def test_modes_are_orthogonal_with_decaying_energy_of_one(self, name):
        probe = make_probe(name, 64, rng(), modes=3)
        gram = np.einsum("ayx,byx->ab", probe.conj(), probe)
        energy = np.diag(gram).real
        assert probe.shape == (3, 64, 64)
        assert probe.dtype == np.complex64
        assert energy.sum() == pytest.approx(1.0, abs=1e-5)
        np.testing.assert_allclose(energy / energy[0], [1, 0.2, 0.04], rtol=1e-3)
        np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=1e-5)

    @pytest.mark.parametrize("name", PROBES)
    @pytest.mark.parametrize("side", [32, 48, 65])
    def test_the_middle_is_pixel_n_over_2(self, name, side):
        intensity = np.abs(make_probe(name, side, rng())[0].astype(complex)) ** 2
        centre = [(np.arange(side) * intensity.sum(axis=axis)).sum() / intensity.sum() for axis in (1, 0)]
        np.testing.assert_allclose(centre, side // 2, atol=0.05)

    @pytest.mark.parametrize("name", PROBES)
    def test_diameter_is_as_requested(self, name):
        radius = np.hypot(*(np.indices((128, 128)) - 64))
        for fraction in (0.25, 0.4):
            intensity = np.abs(make_probe(name, 128, rng(), diameter_fraction=fraction)[0]) ** 2
            inside = intensity[radius <= 1.1 * fraction * 128 / 2].sum() / intensity.sum()
            far_inside = intensity[radius <= 0.5 * fraction * 128 / 2].sum() / intensity.sum()
            assert inside > 0.75
            assert far_inside < 0.45

    def test_shifting_a_gaussian_gives_the_gaussian_elsewhere(self):
        probe = make_probe("gaussian", 64, rng(), diameter_fraction=0.2)
        shift = np.array([[0.3, -0.45], [-2.25, 1.0], [0.0, 0.0]])
        y, x = np.indices((64, 64)) - 32
        for shifted, (dy, dx) in zip(shifted_probes(probe, shift), shift, strict=True):
            expected = np.exp(-((y - dy) ** 2 + (x - dx) ** 2) / 6.4**2)
            np.testing.assert_allclose(shifted[0], expected / np.linalg.norm(expected), atol=1e-6)


class TestPositions:
    @pytest.mark.parametrize("name", SCANS)
    @pytest.mark.parametrize("n", [1, 7, 100, 257])
    def test_number_of_positions_is_as_requested(self, name, n):
        positions = make_positions(name, n, 5.0, rng())
        assert positions.shape == (n, 2)
        assert positions.dtype == np.float64

    @pytest.mark.parametrize("name", SCANS)
    def test_one_position_per_step_squared_without_large_holes(self, name):
        positions = make_positions(name, 400, 4.0, rng())
        inner = rng(1).uniform(-20, 20, size=(2000, 2))
        holes = cKDTree(positions).query(inner)[0]
        density = (np.abs(positions) < 20).all(axis=1).sum() / 40**2
        assert density == pytest.approx(1 / 16, rel=0.15)
        assert holes.max() < 1.5 * 4.0
        assert np.abs(positions.mean(axis=0)).max() < 4.0

    @pytest.mark.parametrize("name", SCANS)
    def test_positions_lie_on_no_grid(self, name):
        fraction = make_positions(name, 400, 5.0, rng()) % 1.0
        filled = np.histogram2d(*fraction.T, bins=4, range=[[0, 1], [0, 1]])[0]
        assert filled.min() > 5


class TestPhysics:
    def test_whole_pixel_positions_are_plain_slices(self):
        obj, probe = complex_noise((80, 90)), complex_noise((2, N, N), 5)
        positions = np.array([[20.0, 30.0], [41.0, 17.0]])
        counts = expected_counts(obj, (-3.0, -5.0), probe, positions)
        for pattern, (y, x) in zip(counts, positions.astype(int), strict=True):
            top, left = y - N // 2 + 3, x - N // 2 + 5
            waves = obj[top : top + N, left : left + N] * probe
            np.testing.assert_allclose(pattern, (np.abs(far_field(waves)) ** 2).sum(axis=0), rtol=1e-9, atol=1e-9)

    @given(y=st.floats(-6, 6), x=st.floats(-6, 6), bright_y=st.integers(-4, 4), bright_x=st.integers(-4, 4))
    @settings(max_examples=40, deadline=None)
    def test_a_bright_pixel_receives_the_probe_at_its_distance(self, y, x, bright_y, bright_x):
        # One transparent pixel at scan coordinates (bright_y, bright_x): its exit wave is the probe there,
        # and a point makes a flat pattern.
        obj = np.zeros((61, 61))
        obj[bright_y + 30, bright_x + 30] = 1.0
        wide = 0.3 * N / 2
        probe = make_probe("gaussian", N, rng(), diameter_fraction=0.3)
        pattern = expected_counts(obj, (-30.0, -30.0), probe, np.array([[y, x]]))[0]
        there = np.exp(-2 * ((bright_y - y) ** 2 + (bright_x - x) ** 2) / wide**2) * 2 / (np.pi * wide**2)
        np.testing.assert_allclose(pattern, there / N**2, atol=1e-9)

    def test_counts_do_not_depend_on_the_window(self):
        obj = make_object("lines", (90, 90), rng())
        probe = make_probe("gaussian", N, rng(), diameter_fraction=0.25)
        below, above = (expected_counts(obj, (-45.0, -45.0), probe, np.array([[e, 0.2]])) for e in (0.499999, 0.500001))
        np.testing.assert_allclose(below, above, atol=1e-4 * above.max())

    def test_positions_object_and_origin_move_together(self):
        obj, probe = complex_noise((80, 80)), complex_noise((1, N, N), 3)
        positions = rng().uniform(20, 60, size=(5, 2))
        here = expected_counts(obj, (0.0, 0.0), probe, positions)
        there = expected_counts(obj, (7.0, -9.0), probe, positions + np.array([7.0, -9.0]))
        np.testing.assert_allclose(here, there, rtol=1e-9)

    def test_energy_is_conserved(self):
        obj, probe = complex_noise((64, 64)), complex_noise((2, N, N), 3)
        counts = expected_counts(obj, (0.0, 0.0), probe, np.array([[30.0, 31.0]]))
        behind = np.abs(obj[14:46, 15:47]) ** 2 * (np.abs(probe) ** 2).sum(axis=0)
        assert counts.sum() == pytest.approx(behind.sum(), rel=1e-12)

    def test_modes_add_as_intensities(self):
        obj, probe = complex_noise((64, 64)), complex_noise((3, N, N), 3)
        positions = np.array([[30.3, 31.7]])
        together = expected_counts(obj, (0.0, 0.0), probe, positions)
        singly = sum(expected_counts(obj, (0.0, 0.0), mode[None], positions) for mode in probe)
        np.testing.assert_allclose(together, singly, rtol=1e-9, atol=1e-9)

    def test_counts_do_not_depend_on_chunks(self, monkeypatch):
        scan = simulate_scan(**SMALL, noise=False)
        monkeypatch.setattr("ptycho_backend.simulation.simulate.CHUNK_PIXELS", 7 * N * N)
        np.testing.assert_array_equal(simulate_scan(**SMALL, noise=False).patterns, scan.patterns)

    def test_a_window_outside_the_object_is_refused(self):
        with pytest.raises(ShapeError, match="covering_frame"):
            expected_counts(np.ones((40, 40)), (0.0, 0.0), complex_noise((1, N, N)), np.array([[30.0, 20.0]]))
        with pytest.raises(ShapeError, match="whole"):
            expected_counts(np.ones((80, 80)), (0.5, 0.0), complex_noise((1, N, N)), np.array([[30.0, 20.0]]))


class TestScan:
    @given(photons=st.floats(1e2, 1e9), modes=st.integers(1, 3))
    @settings(max_examples=8, deadline=None)
    def test_mean_photons_are_as_requested(self, photons, modes):
        scan = simulate_scan(**SMALL, photons_per_pattern=photons, modes=modes, noise=False)
        assert scan.patterns.sum(dtype=np.float64) / len(scan) == pytest.approx(photons, rel=1e-5)
        assert scan.attributes["measured_photons_per_pattern"] == pytest.approx(photons, rel=1e-5)

    def test_the_scan_is_consistent_with_itself(self):
        scan = simulate_scan(**SMALL, modes=2, noise=False)
        counts = expected_counts(scan.obj, scan.obj_origin_px, scan.probe, scan.positions_px)
        np.testing.assert_allclose(scan.patterns, counts, rtol=1e-4, atol=1e-4 * counts.max())

    def test_noise_is_poisson(self):
        noisy, clean = (simulate_scan(**SMALL, photons_per_pattern=1e5, noise=on) for on in (True, False))
        bright = clean.patterns > 20
        deviation = (noisy.patterns - clean.patterns.astype(np.float64))[bright] / np.sqrt(clean.patterns[bright])
        assert bright.sum() > 1000
        assert np.mean(deviation**2) == pytest.approx(1.0, abs=0.1)
        assert np.mean(deviation) == pytest.approx(0.0, abs=0.1)

    @pytest.mark.parametrize(("photons", "dtype"), [(1e5, np.uint16), (1e9, np.uint32)])
    def test_counts_fit_their_type(self, photons, dtype):
        scan = simulate_scan(**SMALL, photons_per_pattern=photons)
        assert scan.patterns.dtype == dtype
        assert scan.measurement == "counts"
        assert scan.patterns.sum(dtype=np.float64) / len(scan) == pytest.approx(photons, rel=0.01)

    def test_scan_depends_on_the_seed(self):
        first, again, other = (simulate_scan(**SMALL, seed=seed) for seed in (3, 3, 4))
        assert first.data_hash() == again.data_hash()
        assert first.data_hash() != other.data_hash()

    def test_noise_mask_and_probe_error_do_not_change_the_object(self):
        plain = simulate_scan(**SMALL)
        changed = simulate_scan(**SMALL, noise=False, bad_pixels=0.1, photons_per_pattern=1e4)
        np.testing.assert_array_equal(plain.obj, changed.obj)
        np.testing.assert_array_equal(plain.positions_px, changed.positions_px)
        guessed = simulate_scan(**SMALL, probe_error=0.2)
        np.testing.assert_array_equal(plain.patterns, guessed.patterns)

    @pytest.mark.parametrize("name", PROBES)
    def test_probe_error_scales_the_diameter(self, name):
        right, wrong = (simulate_scan(**SMALL, probe_name=name, probe_error=e).probe[0] for e in (0.0, 0.3))
        radius = np.hypot(*(np.indices((N, N)) - N // 2))
        spread = [np.average(radius, weights=np.abs(probe) ** 2) for probe in (right, wrong)]
        assert 1.1 < spread[1] / spread[0] < 1.4
        assert np.linalg.norm(wrong) == pytest.approx(np.linalg.norm(right), rel=1e-4)

    def test_bad_pixels_are_masked_and_dead_or_hot(self):
        good, bad = simulate_scan(**SMALL), simulate_scan(**SMALL, bad_pixels=0.1)
        assert 0.85 < bad.mask.mean() < 0.95
        np.testing.assert_array_equal(bad.patterns[:, bad.mask], good.patterns[:, bad.mask])
        hidden = bad.patterns[:, ~bad.mask]
        assert set(np.unique(hidden)) == {0, good.patterns.max()}

    @pytest.mark.parametrize("name", SCANS)
    def test_object_covers_every_window_tightly(self, name):
        scan = simulate_scan(**SMALL, scan_name=name)
        origin, size = covering_frame(scan.positions_px, N)
        nearest = np.floor(scan.positions_px + 0.5) - N // 2 - np.asarray(scan.obj_origin_px)
        assert (origin, size) == (scan.obj_origin_px, scan.obj.shape)
        np.testing.assert_array_equal(nearest.min(axis=0), 0)
        np.testing.assert_array_equal(nearest.max(axis=0) + N, scan.obj.shape)

    def test_attributes_contain_the_settings(self):
        scan = simulate_scan(SimulationConfig(N=N, object_name="siemens"), n_positions=np.int64(9), step_px=4.5)
        plain = json.loads(json.dumps(scan.attributes))
        assert plain["object_name"] == "siemens"
        assert plain["step_px"] == 4.5
        assert plain["n_positions"] == 9

    def test_the_default_scan_overlaps_by_about_seventy_percent(self):
        scan = simulate_scan(n_positions=400, object_name="lines", noise=False)
        nearest = cKDTree(scan.positions_px).query(scan.positions_px, k=2)[0][:, 1]
        assert 0.6 < 1 - np.mean(nearest) / (0.35 * scan.N) < 0.85

    def test_an_unknown_setting_gets_the_nearest_name(self):
        with pytest.raises(ConfigError, match="photons_per_pattern"):
            simulate_scan(photon_per_pattern=10)

    @pytest.mark.parametrize(
        "wrong", [{"N": 8}, {"n_positions": 0}, {"photons_per_pattern": 0.0}, {"bad_pixels": 0.9}, {"modes": 0}]
    )
    def test_settings_out_of_range_are_refused_by_name(self, wrong):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            simulate_scan(**wrong)
