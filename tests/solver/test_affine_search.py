"""Affine errors that all positions share are found and corrected (physics 9.10)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import ptycho_backend as pb
from ptycho_backend.config import ModelConfig
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.reconstruction import prepare
from ptycho_backend.solver.affine_search import affine_correction, corrected, matrix


@pytest.fixture(scope="module")
def scan():
    return pb.simulate_scan(N=32, n_positions=144, seed=3, object_name="lines", photons_per_pattern=1e6)


def rotation(degrees: float):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s], [s, c]])


@pytest.mark.parametrize(
    "error",
    [1.02 * np.eye(2), rotation(2.0), np.array([[1.02, 0.01], [0.0, 0.99]])],
    ids=["scale", "rotation", "anisotropic"],
)
def test_an_affine_error_is_found(scan, error):
    wrong = corrected(scan, error)
    found = affine_correction(wrong, calibrate(wrong, ModelConfig(N=32)))
    left = found @ error - np.eye(2)
    assert np.abs(left).max() < 0.2 * np.abs(error - np.eye(2)).max()


def test_exact_positions_stay(scan):
    np.testing.assert_array_equal(affine_correction(scan, calibrate(scan, ModelConfig(N=32))), np.eye(2))


@pytest.mark.parametrize("photons", [300, 10000])
def test_low_dose_corrects_nothing(photons):
    scan = pb.simulate_scan(N=32, n_positions=100, seed=3, object_name="photographs", photons_per_pattern=photons)
    np.testing.assert_array_equal(affine_correction(scan, calibrate(scan, ModelConfig(N=32))), np.eye(2))


def test_the_image_and_its_assessment_use_the_corrected_positions(scan):
    wrong = corrected(scan, rotation(2.0))
    image = pb.reconstruct(wrong, backend="numpy")
    left_px = image.experiment.positions_px - scan.positions_px
    assert np.abs(left_px - left_px.mean(axis=0)).max() < 0.3
    found = pb.assess(wrong, image, inference=pb.InferenceConfig(half_datasets=False))
    assert found.residual < 1.5 * found.shot_noise_floor
    assert found.experiment.affine.rotation_deg == pytest.approx(-2.0, abs=0.2)
    uncorrected = pb.InferenceConfig(half_datasets=False, fit_positions="off")
    assert pb.assess(wrong, image, inference=uncorrected).residual == pytest.approx(found.residual, rel=0.05)
    kept = pb.reconstruct(wrong, backend="numpy", fit_positions="off")
    np.testing.assert_array_equal(kept.experiment.positions_px, wrong.positions_px)


def test_a_part_has_the_given_positions_of_its_patterns(scan):
    wrong = corrected(scan, rotation(2.0))
    reconstruction = prepare(wrong, None, pb.InferenceConfig())
    np.testing.assert_array_equal(reconstruction.given_scan.positions_px, wrong.positions_px)
    rows = np.arange(40, 80)
    np.testing.assert_array_equal(reconstruction.part(rows).given_scan.positions_px, wrong.positions_px[rows])


def test_generators_are_scale_rotation_and_shear():
    np.testing.assert_allclose(matrix(np.array([0.1, -0.2, 0.0, 0.0])), np.diag([1.1, 0.8]))
    np.testing.assert_allclose(matrix(np.array([0.0, 0.0, 0.1, 0.0])), [[1, -0.1], [0.1, 1]])
    np.testing.assert_allclose(matrix(np.array([0.0, 0.0, 0.0, 0.1])), [[1, 0.1], [0.1, 1]])


def test_positions_are_corrected_about_their_mean(scan):
    moved = corrected(dataclasses.replace(scan, positions_px=scan.positions_px + 100), 2 * np.eye(2))
    np.testing.assert_allclose(moved.positions_px.mean(axis=0), scan.positions_px.mean(axis=0) + 100)
