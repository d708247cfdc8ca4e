"""Report of a scan: every fault has its grade, its number and its remedy, and clean scans have none (spec: data 13)."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ptycho_backend.data.scan import Scan
from ptycho_backend.quality import scan_checks_positions
from ptycho_backend.quality.scan_report import CHECKS, scan_report
from ptycho_backend.simulation.simulate import simulate_scan


@pytest.fixture(scope="module")
def true():
    """Return a clean scan."""
    return simulate_scan(N=64, n_positions=144, seed=11, photons_per_pattern=1e5)


@pytest.fixture(scope="module")
def rng():
    return np.random.default_rng(0)


def faults(scan, **options):
    """Return the checks that are not good, by name, without the network."""
    return {check.name: check for check in scan_report(scan, skip=("network",), **options).of("doubtful", "wrong")}


def as_floats(scan, patterns, **fields):
    """Return a scan of other patterns in float32."""
    return Scan(np.asarray(patterns, np.float32), scan.positions_px, probe=scan.probe, **fields)


def fraction_noise(scan, rng, sigma=0.6):
    """Return counts with the noise of an integrating detector, clipped at 0."""
    return np.clip(scan.patterns + rng.normal(0, sigma, scan.patterns.shape), 0, None)


@pytest.mark.parametrize("N", [32, 33, 64, 72, 128])
@pytest.mark.parametrize("photons", [1e3, 1e5, 1e7])
def test_a_clean_scan_is_good(N, photons):
    report = scan_report(simulate_scan(N=N, n_positions=64, photons_per_pattern=photons, seed=N))
    assert [check for check in report.checks if check.grade != "good"] == []
    assert report.worst == "good"
    assert [check.name for check in report.checks] == [name for name in CHECKS if name != "axes"]


@pytest.mark.parametrize("bad_pixels", [0.01, 0.1])
def test_masked_pixels_are_good(bad_pixels):
    assert faults(simulate_scan(N=64, n_positions=64, seed=5, bad_pixels=bad_pixels)) == {}


def test_every_fault_has_its_four_texts(true):
    report = scan_report(replace(true, positions_px=true.positions_px * 1e-8))
    assert report.worst == "wrong"
    for check in report.checks:
        assert check.found
        assert bool(check.reason) == bool(check.fix) == (check.grade != "good"), check
    values = json.loads(json.dumps(report.to_dict()))
    assert values["worst"] == "wrong"
    assert [check["name"] for check in values["checks"]] == [name for name, _ in report.rows()]


class TestUnit:
    """Case float_intensities: fractions without a declared unit."""

    @pytest.mark.parametrize("flux", [1e4, 1e5, 1e6])
    def test_undeclared_fractions_are_doubtful(self, flux, rng):
        scan = simulate_scan(N=64, n_positions=100, seed=3, photons_per_pattern=flux)
        found = faults(as_floats(scan, fraction_noise(scan, rng)))
        assert found["unit"].grade == "doubtful"
        assert "--patterns.unit counts" in found["unit"].fix

    def test_undeclared_gain_and_interpolation_are_doubtful(self, true, rng):
        gain = rng.uniform(0.9, 1.1, true.patterns.shape[1:])
        blurred = (true.patterns + np.roll(true.patterns.astype(float), 1, axis=2) * 0.37) / 1.37
        for patterns in (true.patterns * gain, blurred, np.sqrt(blurred)):
            assert "unit" in faults(as_floats(true, patterns))

    def test_declared_fractions_are_good(self, true, rng):
        for measurement in ("counts", "amplitude"):
            assert "unit" not in faults(as_floats(true, fraction_noise(true, rng), measurement=measurement))

    @pytest.mark.parametrize("scale", [1.0, 0.37, 5.0])
    def test_roots_of_whole_numbers_are_amplitudes(self, true, scale):
        assert faults(as_floats(true, np.sqrt(true.patterns) * scale)) == {}

    def test_normalised_amplitude_is_doubtful(self, true):
        found = faults(as_floats(true, np.sqrt(true.patterns / true.patterns.sum(axis=(1, 2)).max())))
        assert "normalised" in found["unit"].reason


class TestDetector:
    @pytest.mark.parametrize("limit", [500, 1000, 3000])
    def test_full_counters(self, true, limit):
        found = faults(replace(true, patterns=np.minimum(true.patterns, limit)))["saturation"]
        assert found.grade == "wrong"
        assert f"--detector.saturation {limit}" in found.fix
        assert f"{int((true.patterns >= limit).sum())} times" in found.found

    def test_a_few_full_counters_are_doubtful(self, true):
        limit = np.sort(true.patterns, axis=None)[-40]
        found = faults(replace(true, patterns=np.minimum(true.patterns, limit)))["saturation"]
        assert found.grade == "doubtful"
        assert "40 times" in found.found

    def test_bad_pixels_by_kind(self, true, rng):
        patterns = true.patterns.copy()
        patterns[:, 5, 6], patterns[:, 32, 30] = rng.poisson(5000, len(patterns)), 0
        scan = replace(true, patterns=patterns)
        assert faults(scan)["bad pixels"].found == "1 hot, 1 dead among the good pixels, 0 masked"
        mask = np.ones((64, 64), dtype=bool)
        mask[5, 6] = mask[32, 30] = False
        report = scan_report(replace(scan, mask=mask))
        assert report.worst == "good"
        text = next(check.found for check in report.checks if check.name == "bad pixels")
        assert text == "none among the good pixels, 2 masked (1 hot, 1 dead)"

    @pytest.mark.parametrize(("level", "grade"), [(2.0, "doubtful"), (5.0, "doubtful"), (30.0, "wrong")])
    def test_background_has_its_level(self, true, rng, level, grade):
        patterns = (true.patterns + rng.poisson(level, true.patterns.shape)).astype(np.uint32)
        found = faults(replace(true, patterns=patterns))["background"]
        assert found.grade == grade
        assert float(found.found.split()[0]) == pytest.approx(level, rel=0.05)


class TestZeroFrequency:
    """Case corner_patterns: the zero frequency in the corner."""

    @pytest.mark.parametrize("N", [32, 33, 64, 72])
    def test_corner_is_wrong(self, N):
        scan = simulate_scan(N=N, n_positions=64, seed=3)
        corner = np.fft.ifftshift(scan.patterns, axes=(1, 2))
        assert faults(replace(scan, patterns=corner))["zero frequency"].grade == "wrong"
        amplitude = replace(scan, patterns=np.sqrt(corner).astype(np.float32), measurement="amplitude")
        found = faults(amplitude)["zero frequency"]
        assert (found.grade, found.found) == ("wrong", "in the corner")
        assert "--detector.fftshift on" in found.fix

    @pytest.mark.parametrize(("shift", "grade"), [((3, 0), "doubtful"), ((-4, 3), "doubtful"), ((0, 12), "wrong")])
    def test_off_centre_by_pixels(self, true, shift, grade):
        found = faults(replace(true, patterns=np.roll(true.patterns, shift, axis=(1, 2))))["zero frequency"]
        assert found.grade == grade
        words = found.fix.split()
        assert float(words[words.index("--detector.centre_y_px") + 1]) == pytest.approx(32 + shift[0], abs=0.6)
        assert float(words[words.index("--detector.centre_x_px") + 1]) == pytest.approx(32 + shift[1], abs=0.6)

    def test_one_pixel_is_good(self, true):
        assert "zero frequency" not in faults(replace(true, patterns=np.roll(true.patterns, 1, axis=2)))

    def test_equal_patterns_have_no_centre(self):
        scan = Scan(
            np.ones((20, 32, 32), np.uint16), np.random.default_rng(0).random((20, 2)) * 20, measurement="counts"
        )
        assert faults(scan)["zero frequency"].found == "not found"


class TestFrames:
    """Case unfinished_file: the end of the scan was never written."""

    @pytest.mark.parametrize(("last", "others"), [(40, ()), (2, ()), (60, (5, 7)), (3, (0,))])
    def test_unwritten_tail_is_named(self, true, last, others):
        patterns = true.patterns.copy()
        patterns[-last:] = 0
        patterns[list(others)] = 0
        found = faults(replace(true, patterns=patterns))["frames"]
        assert f"{last + len(others)} empty" in found.found
        assert f"the last {last} hold no photon" in found.found
        assert found.fix == f"--exclude {144 - last}-143"

    def test_empty_frames_by_number(self, true):
        patterns = true.patterns.copy()
        patterns[[3, 40, 41, 42]] = 0
        found = faults(replace(true, patterns=patterns))["frames"]
        assert (found.grade, found.found) == ("doubtful", "4 empty (3, 40-42)")

    def test_other_checks_are_of_the_usual_frames(self, true):
        patterns = true.patterns.copy()
        patterns[100:] = 0
        assert set(faults(replace(true, patterns=patterns))) == {"frames"}

    def test_hardly_any_frame_is_wrong(self, true):
        patterns = true.patterns.copy()
        patterns[5:] = 0
        assert faults(replace(true, patterns=patterns))["frames"].grade == "wrong"


class TestPositions:
    """Case metres: another unit of length."""

    @pytest.mark.parametrize("scale", [1e-8, 1e-5, 1e-2])
    def test_lengths_span_less_than_a_pixel(self, true, scale):
        found = faults(replace(true, positions_px=true.positions_px * scale))["position unit"]
        assert found.grade == "wrong"
        assert "metres" in found.reason
        assert "--positions.unit m" in found.fix

    def test_nanometres_are_far_apart(self, true):
        found = faults(replace(true, positions_px=true.positions_px * 1e3))
        assert (found["position unit"].grade, found["canvas"].grade) == ("wrong", "wrong")

    def test_one_place_is_wrong(self, true):
        found = faults(replace(true, positions_px=np.full((144, 2), 7.0)))
        assert "one position" in found["position unit"].reason
        assert "143 positions" in found["duplicates"].found

    def test_repeated_positions(self, true):
        positions = true.positions_px.copy()
        positions[:20] = positions[20:40]
        assert faults(replace(true, positions_px=positions))["duplicates"].found == "20 positions equal to another one"

    @pytest.mark.parametrize("rows", [[50], [50, 51], [3, 77, 140]])
    @pytest.mark.parametrize("far", [200.0, 1000.0])
    def test_spikes_are_named(self, true, rows, far):
        positions = true.positions_px.copy()
        positions[rows] += far
        found = faults(replace(true, positions_px=positions))
        assert found["strays"].grade == "doubtful"
        text = "50-51" if rows == [50, 51] else ",".join(map(str, rows))
        assert found["strays"].fix == f"--exclude {text}"
        assert "regions" not in found

    def test_a_jump_makes_two_regions(self, true):
        positions = true.positions_px.copy()
        positions[70:] += 200.0
        found = faults(replace(true, positions_px=positions))["regions"]
        assert "74, 70" in found.found
        assert "pattern 70" in found.reason

    @pytest.mark.parametrize(("factor", "grade"), [(3.0, "doubtful"), (5.0, "wrong"), (0.03, "doubtful")])
    def test_steps_against_the_probe(self, true, factor, grade):
        assert faults(replace(true, positions_px=true.positions_px * factor))["overlap"].grade == grade

    @pytest.mark.parametrize(("share", "grade"), [(0.7, "doubtful"), (1.5, "wrong")])
    def test_canvas_against_free_memory(self, true, monkeypatch, share, grade):
        needed = scan_checks_positions.canvas_bytes(true.positions_px, true.N)
        monkeypatch.setattr(scan_checks_positions, "free_memory_bytes", lambda: int(needed / share))
        assert faults(true)["canvas"].grade == grade


def raster(rows, columns, step_px, snake, shear_px):
    """Return the positions of a raster whose lines move along x by `shear_px` each."""
    i, j = np.divmod(np.arange(rows * columns), columns)
    j = np.where(snake & (i % 2 == 1), columns - 1 - j, j)
    return np.stack([i * step_px, j * step_px + i * shear_px], axis=1).astype(float)


class TestDrift:
    """Rasters whose lines move along the fast axis."""

    @pytest.mark.parametrize("turned", [np.eye(2), [[0, 1], [1, 0]], [[0.8, 0.6], [-0.6, 0.8]]])
    @pytest.mark.parametrize("snake", [False, True])
    @pytest.mark.parametrize("shape", [(12, 12), (9, 16), (16, 9)])
    def test_a_sheared_raster_has_its_angle(self, true, turned, snake, shape):
        rng = np.random.default_rng(1)
        for shear, expected in ((0.0, 0.0), (0.4, 4.6)):
            positions = raster(*shape, 5.0, snake, shear) + rng.normal(0, 0.05, (144, 2))
            scan = replace(true, positions_px=positions @ np.array(turned))
            assert ("drift" in faults(scan)) == (shear > 0)
            check = next(check for check in scan_report(scan).checks if check.name == "drift")
            assert abs(float(check.found.split("°")[0].split()[-1])) == pytest.approx(expected, abs=0.7)

    def test_no_raster_has_no_drift(self, true):
        for positions in (true.positions_px, np.random.default_rng(2).random((144, 2)) * 50):
            check = next(c for c in scan_report(replace(true, positions_px=positions)).checks if c.name == "drift")
            assert (check.grade, check.found) == ("good", "no raster to compare with")


class TestProbe:
    @pytest.mark.parametrize(("shift", "grade"), [(10, "doubtful"), (20, "wrong"), (-20, "wrong")])
    def test_off_the_middle(self, true, shift, grade):
        found = faults(replace(true, probe=np.roll(true.probe, shift, axis=2)))["probe place"]
        assert found.grade == grade
        assert f"x {shift:+d}.0" in found.found

    def test_a_probe_that_fills_its_window(self, true):
        assert faults(replace(true, probe=np.ones((64, 64))))["probe size"].grade == "wrong"

    def test_a_probe_of_another_pixel_size(self, true):
        y, x = np.indices((64, 64)) - 32
        wave = np.exp(-(y**2 + x**2) / 50) * np.exp(2j * np.pi * 0.3 * x)  # tilted: its far field lies elsewhere
        assert faults(replace(true, probe=wave))["probe far field"].grade == "wrong"

    def test_the_scale_of_a_probe_is_free(self, true):
        assert faults(replace(true, probe=true.probe * 1e-3)) == {}

    def test_a_guess_from_the_patterns_has_no_overlap_yet(self, true):
        assert faults(replace(true, probe=None)) == {}


@pytest.mark.parametrize(
    ("turned", "name"), [([[1, 0], [0, -1]], "+y-x"), ([[-1, 0], [0, 1]], "-y+x"), ([[0, 1], [1, 0]], "+x+y")]
)
def test_axes_are_ranked_by_the_solver(turned, name):
    scan = simulate_scan(N=32, n_positions=64, seed=3)
    assert "axes" not in faults(scan, orientation=True)
    found = faults(replace(scan, positions_px=scan.positions_px @ np.array(turned)), orientation=True)["axes"]
    assert found.grade == "wrong"
    assert f"--inference.orientation={name}," in found.fix


def test_conditions_outside_of_the_training():
    report = scan_report(simulate_scan(N=64, n_positions=64, seed=3, photons_per_pattern=1e9))
    assert [check.name for check in report.of("doubtful", "wrong")] == ["network"]
