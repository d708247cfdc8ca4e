"""Patterns of another place are left out during the iterations and named (physics 9.9)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import ptycho_backend as pb
from ptycho_backend.solver.contradicting_patterns import contradicting_patterns

ROWS = np.array([20, 75])


@pytest.fixture(scope="module")
def scan():
    return pb.simulate_scan(N=32, n_positions=144, seed=2, step_px=3.0, photons_per_pattern=1e6)


@pytest.fixture(scope="module")
def wrong(scan):
    patterns = scan.patterns.copy()
    patterns[ROWS] = scan.patterns[(ROWS + 72) % 144]
    return dataclasses.replace(scan, patterns=patterns, searched=("patterns",))


def test_patterns_of_another_place_are_left_out(scan, wrong):
    image = pb.reconstruct(wrong, backend="numpy")
    assert image.experiment.left_out == tuple(ROWS.tolist())
    np.testing.assert_array_equal(image.experiment.positions_px[ROWS], wrong.positions_px[ROWS])
    np.testing.assert_array_equal(image.experiment.scales[ROWS], 1)
    best, found = (pb.evaluate(each, scan) for each in (pb.reconstruct(scan, backend="numpy"), image))
    assert found.amplitude_psnr_db > best.amplitude_psnr_db - 1
    assert found.phase_psnr_db > best.phase_psnr_db - 1


def test_positions_of_the_others_are_fitted(wrong):
    error_px = np.random.default_rng(3).normal(0, 0.3, wrong.positions_px.shape)
    moved = dataclasses.replace(wrong, positions_px=wrong.positions_px + error_px)
    experiment = pb.reconstruct(moved, backend="numpy", fit_positions="on").experiment
    assert experiment.left_out == tuple(ROWS.tolist())
    left_px = np.delete(experiment.positions_px - wrong.positions_px, ROWS, axis=0)
    assert np.median(np.abs(left_px - left_px.mean(axis=0))) < 0.15  # 0.2 as given
    np.testing.assert_array_equal(experiment.positions_px[ROWS], moved.positions_px[ROWS])


def test_they_are_named_by_their_numbers_in_the_file(scan, wrong):
    patterns = wrong.patterns.copy()
    patterns[3] = 0  # left out before, so the others move up
    numbered = dataclasses.replace(wrong, patterns=patterns, searched=())
    image = pb.reconstruct(numbered, backend="numpy")
    found = pb.assess(numbered, image, inference=pb.InferenceConfig(half_datasets=False))
    left_out = set(range(144)) - set(found.numbers) | set(found.experiment.left_out)
    assert left_out == {3, *ROWS}


def test_an_exact_scan_loses_no_pattern(scan):
    assert pb.reconstruct(scan, backend="numpy").experiment.left_out == ()


def test_limits():
    errors = np.exp(np.random.default_rng(0).normal(0, 0.1, 100))
    assert not contradicting_patterns(errors).any()
    errors[[3, 8]] = 100
    assert np.flatnonzero(contradicting_patterns(errors)).tolist() == [3, 8]
    errors[:11] = 100  # more than a tenth
    assert not contradicting_patterns(errors).any()
    wide = np.exp(np.random.default_rng(0).normal(0, 1.0, 100))
    wide[3] = 100
    assert not contradicting_patterns(wide).any()
