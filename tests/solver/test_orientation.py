"""Orientation of a scan: ranking, warning and option (physics 8.8, data 11)."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

import ptycho_backend as pb
from ptycho_backend.config import ModelConfig, Orientation
from ptycho_backend.data.orientation import NAMES, ORIENTATIONS, oriented
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.solver.orientation import CLEARLY_BETTER, best_orientation, orientation_errors


@pytest.fixture(scope="module")
def true():
    return pb.simulate_scan(N=32, n_positions=81, seed=11, photons_per_pattern=1e5)


def inverse(name: str) -> str:
    """Return the orientation that undoes another."""
    matrix = np.array(ORIENTATIONS[name]).T
    (found,) = (other for other, rows in ORIENTATIONS.items() if np.array_equal(rows, matrix))
    return found


def test_orientations_are_the_eight_symmetries_of_a_square():
    matrices = {tuple(np.ravel(rows)) for rows in ORIENTATIONS.values()}
    assert len(matrices) == 8
    assert all(abs(np.linalg.det(np.array(rows))) == 1 for rows in ORIENTATIONS.values())
    assert set(NAMES) == set(ORIENTATIONS)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_a_name_is_read_from_left_to_right(name):
    y, x = 3.0, 5.0
    scan = pb.Scan(np.ones((1, 8, 8)), np.array([[y, x]]), np.ones((8, 8), complex))
    values = {"y": y, "x": x}
    expected = [values[name[1]] * (1 if name[0] == "+" else -1), values[name[3]] * (1 if name[2] == "+" else -1)]
    np.testing.assert_array_equal(oriented(scan, name).positions_px[0], expected)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_the_right_orientation_has_by_far_the_smallest_error(true, name):
    turned = oriented(true, inverse(name))
    errors = orientation_errors(turned, calibrate(turned, ModelConfig(N=32)))
    others = [error for other, error in errors.items() if other != name]
    assert errors[name] < CLEARLY_BETTER * min(others)
    assert best_orientation(turned, calibrate(turned, ModelConfig(N=32))) == name


def test_a_mirrored_axis_is_named_and_turned_on_request(true, caplog):
    mirrored = oriented(true, "-y+x")
    image = pb.reconstruct(mirrored, backend="numpy")
    assert "the y axis mirrored" in caplog.text
    found = pb.assess(mirrored, image, inference=pb.InferenceConfig(half_datasets=False))
    assert "orientation='-y+x'" in found.warnings[0]
    best = pb.evaluate(pb.reconstruct(true, backend="numpy"), true).phase_psnr_db
    for orientation in ("auto", "-y+x"):
        turned = pb.reconstruct(mirrored, backend="numpy", orientation=orientation)
        assert pb.evaluate(turned, true).phase_psnr_db == pytest.approx(best, abs=0.1)
        assert turned.experiment is not None
        np.testing.assert_allclose(turned.experiment.positions_px, true.positions_px, atol=0.1)
        # The image remembers its orientation: the same scan and default options suffice.
        assert pb.assess(mirrored, turned, inference=pb.InferenceConfig(half_datasets=False)).warnings == ()
        assert pb.evaluate(turned, mirrored).amplitude_psnr_db == pytest.approx(
            pb.evaluate(turned, true).amplitude_psnr_db, abs=1.0
        )


def test_a_right_orientation_is_not_ranked(true, monkeypatch):
    monkeypatch.setattr("ptycho_backend.reconstruction.best_orientation", None)
    pb.reconstruct(true, backend="numpy")


def test_the_option_has_the_names_of_the_orientations():
    assert get_args(Orientation) == ("given", "auto", *ORIENTATIONS)


@pytest.mark.parametrize("orientation", ["-y+x", "+x+y"])
def test_axes_are_found_without_a_probe_guess(orientation):
    true = pb.simulate_scan(N=32, n_positions=100, seed=3, probe_name="zone-plate", photons_per_pattern=1e5)
    scan = pb.Scan(patterns=true.patterns, positions_px=true.positions_px, measurement="counts")
    assert best_orientation(scan, calibrate(scan, ModelConfig(N=32))) == "+y+x"
    turned = oriented(scan, orientation)
    found = best_orientation(turned, calibrate(turned, ModelConfig(N=32)))
    back = oriented(turned, found).positions_px
    np.testing.assert_allclose(np.abs(back), np.abs(scan.positions_px))  # or both mirrored: the twin
    assert np.prod(back * scan.positions_px, axis=1).min() >= 0
