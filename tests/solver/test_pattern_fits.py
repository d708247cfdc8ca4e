"""Faults of experiments that the solver finds: wrong positions, unequal flux, a background, a defocused probe."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.fft

import ptycho_backend as pb
from ptycho_backend.engines.numpy.solver import NumpyKernels
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.simulation.simulate import expected_counts
from ptycho_backend.solver.pattern_fits import Fits, rms
from ptycho_backend.solver.probe_correction import ProbeCorrection, phase, probe_correction
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.solver import SolverOptions, solve

AUTO = Fits("auto", "auto", "auto")


@pytest.fixture(scope="module")
def scan():
    return pb.simulate_scan(
        N=32,
        n_positions=196,
        seed=3,
        object_name="photographs",
        phase_range_rad=1.0,
        diameter_fraction=0.5,
        step_px=3.0,
        photons_per_pattern=1e6,
    )


def reconstruct(scan, fits=AUTO, update_probe=False, iterations=40):
    problem = Problem.of(scan, calibrate(scan, pb.ModelConfig(N=scan.N)))
    return problem, solve(problem, NumpyKernels(), None, SolverOptions(iterations, update_probe, fits=fits))


def test_an_exact_scan_starts_no_fit(scan):
    _, solution = reconstruct(scan)
    np.testing.assert_array_equal(solution.image.experiment.positions_px, scan.positions_px)
    np.testing.assert_array_equal(solution.image.experiment.scales, 1)
    assert solution.image.experiment.background == 0


def test_an_opaque_part_of_the_object_starts_no_fit(scan):
    """Patterns behind it have less light, which is no change of flux."""
    obj = scan.obj.copy()
    height, width = obj.shape
    obj[height // 2 - 14 : height // 2 + 14, width // 2 - 14 : width // 2 + 14] = 0
    opaque = dataclasses.replace(scan, obj=obj)
    counts = expected_counts(obj, scan.obj_origin_px, scan.probe, scan.positions_px)
    patterns = np.random.default_rng(0).poisson(counts).astype(np.float32)
    _, solution = reconstruct(dataclasses.replace(opaque, patterns=patterns, searched=("pixels", "patterns")))
    np.testing.assert_array_equal(solution.image.experiment.scales, 1)
    assert solution.image.experiment.background == 0


def test_wrong_positions_are_found(scan, rng):
    error_px = rng.normal(0, 0.7, scan.positions_px.shape)
    wrong = dataclasses.replace(scan, positions_px=scan.positions_px + error_px)
    problem, solution = reconstruct(wrong)
    left_px = error_px + solution.image.experiment.positions_px - problem.scan.positions_px
    left_px = np.abs(left_px - left_px.mean(axis=0))
    assert np.median(left_px) < 0.2 * np.median(np.abs(error_px))
    _, given = reconstruct(wrong, Fits())
    assert solution.errors[-1] < 0.5 * given.errors[-1]


def test_unequal_flux_is_found(scan, rng):
    flux = rng.uniform(0.7, 1.3, len(scan))
    counts = rng.poisson(scan.patterns.astype(float) * flux[:, None, None]).astype(np.float32)
    _, solution = reconstruct(dataclasses.replace(scan, patterns=counts))
    found = solution.image.experiment.scales**2
    expected = flux * np.mean(found) / np.mean(flux)
    assert np.std(found / expected) < 0.4 * np.std(flux)


def test_strong_flicker_costs_little(scan, rng):
    """Flux and the object's smooth amplitude are separated by corrections that go on after the start of the fit."""
    flux = rng.uniform(0.5, 1.5, len(scan))
    counts = rng.poisson(scan.patterns.astype(float) * flux[:, None, None]).astype(np.float32)
    _, steady = reconstruct(scan)
    _, solution = reconstruct(dataclasses.replace(scan, patterns=counts))
    scores = [pb.evaluate(each.image, scan).amplitude_psnr_db for each in (steady, solution)]
    assert scores[1] > scores[0] - 5  # 13 dB without
    np.testing.assert_array_equal(solution.image.experiment.positions_px, scan.positions_px)


def test_a_background_is_found(scan, rng):
    counts = scan.patterns.astype(float)
    background = 0.02 * counts.mean()
    brighter = dataclasses.replace(scan, patterns=rng.poisson(counts + background).astype(np.float32))
    problem, solution = reconstruct(brighter)
    found = solution.image.experiment.background / problem.calibration.rms_input_scale**2
    assert found == pytest.approx(background, rel=0.3)


def test_a_switch_starts_a_fit_without_evidence(scan):
    problem, solution = reconstruct(scan, Fits(positions="on"), iterations=9)
    assert 0 < rms(solution.image.experiment.positions_px - problem.scan.positions_px) < 0.2
    np.testing.assert_array_equal(solution.image.experiment.scales, 1)


def test_probe_and_object_defocused_together_are_corrected(scan):
    """The phase that was put on both comes back with the opposite sign."""
    problem, solution = reconstruct(scan, Fits())
    kernels = NumpyKernels()
    kernels.load(problem)
    added = ProbeCorrection(np.array([0.4, 0.4, 0, 0, 0, 0]), 0.0)
    canvas = problem.geometry.canvas(solution.image)
    found = probe_correction(kernels, added.apply(canvas), added.apply(solution.probe), len(problem))
    spectrum = (np.abs(scipy.fft.fft2(solution.probe)) ** 2).sum(axis=0)
    put, back = (phase(c, (scan.N, scan.N)) for c in (added.coefficients_rad, found.coefficients_rad))
    left = np.sqrt((spectrum * (put + back) ** 2).sum() / (spectrum * put**2).sum())
    assert left < 0.5


def test_a_wide_probe_is_repaired_by_object_and_probe_updates(scan):
    y, x = np.indices((scan.N, scan.N)) - scan.N // 2
    wrong = scan.probe * np.exp(0.01j * (y**2 + x**2))
    guess = dataclasses.replace(scan, probe=wrong.astype(np.complex64))
    _, fixed = reconstruct(guess, Fits())
    _, free = reconstruct(guess, Fits(), update_probe=True)
    assert free.errors[-1] < 0.2 * fixed.errors[-1]
