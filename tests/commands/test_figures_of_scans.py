"""Sizes, distances and photons of `info`, against scans with known figures."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho_backend.commands.describe import (
    geometry_rows,
    neighbour_distance_px,
    photons_per_pattern,
    probe_diameter_px,
    probe_text,
)
from ptycho_backend.simulation.probes import make_probe
from ptycho_backend.simulation.simulate import simulate_scan


def disc(N, diameter, centre=(0.0, 0.0)):
    y, x = np.indices((N, N)) - N // 2
    return (np.hypot(y - centre[0], x - centre[1]) <= diameter / 2).astype(complex)


@given(st.floats(6.0, 40.0), st.floats(-5.0, 5.0), st.floats(-5.0, 5.0))
def test_diameter_of_a_disc(diameter, y, x):
    assert probe_diameter_px(disc(64, diameter, (y, x))) == pytest.approx(diameter, abs=0.7)


def test_diameter_ignores_scale_phase_and_a_faint_tail():
    probe = disc(64, 20.0)
    tail = probe + 1e-3
    assert probe_diameter_px(3e5j * probe) == probe_diameter_px(probe)
    assert probe_diameter_px(tail) == pytest.approx(probe_diameter_px(probe), abs=0.5)


def test_modes_count_by_energy():
    modes = np.stack([disc(64, 20.0), 1e-6 * disc(64, 40.0)])
    assert probe_diameter_px(modes) == pytest.approx(20.0, abs=0.7)
    assert probe_text(np.stack([2 * disc(32, 8.0), disc(32, 8.0)])).startswith("2 modes (80%, 20%), about 7.98 px wide")


def test_dark_probe_has_no_diameter():
    assert np.isnan(probe_diameter_px(np.zeros((16, 16))))


def test_diameter_of_a_simulated_probe():
    probe = make_probe("disc", 128, np.random.default_rng(0), diameter_fraction=0.4)
    assert probe_diameter_px(probe) == pytest.approx(0.4 * 128, rel=0.05)


@given(st.floats(0.5, 20.0), st.integers(2, 6))
def test_neighbour_distance_of_a_grid(step, side):
    positions = np.stack(np.mgrid[0:side, 0:side], axis=-1).reshape(-1, 2) * step
    assert neighbour_distance_px(positions) == pytest.approx(step)


def test_one_position_has_no_neighbour():
    assert np.isnan(neighbour_distance_px(np.zeros((1, 2))))
    rows = dict(geometry_rows(np.zeros((1, 2)), disc(32, 8.0), None))
    assert rows["neighbour distance"] == rows["probe overlap"] == "n/a"


def test_probe_overlap():
    positions = np.stack(np.mgrid[0:3, 0:4], axis=-1).reshape(-1, 2) * 5.0
    rows = dict(geometry_rows(positions, disc(64, 20.0), (1e-8, 2e-8)))
    assert rows["probe overlap"] == "75% of its diameter"
    assert rows["scan extent"] == "10 × 15 px (y × x), 100 × 300 nm; pixel 10 nm × 20 nm (y, x)"
    assert dict(geometry_rows(positions * 10, disc(64, 20.0), None))["probe overlap"] == "0% of its diameter"


def test_photons_count_good_pixels_only():
    scan = simulate_scan(N=32, n_positions=300, photons_per_pattern=2e3, bad_pixels=0.05)
    expected = (scan.patterns.astype(float) * scan.mask).sum(axis=(1, 2))
    np.testing.assert_allclose(photons_per_pattern(scan), expected, rtol=1e-6)
    amplitude = dataclasses.replace(scan, patterns=np.sqrt(scan.patterns).astype(np.float32), measurement="amplitude")
    np.testing.assert_allclose(photons_per_pattern(amplitude), expected, rtol=1e-5)
