"""Probe refinement and object and probe update (physics 8.4, 8.5)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import ptycho_backend as pb
from ptycho_backend.config import ModelConfig, TrainingConfig
from ptycho_backend.engines.numpy import solver as numpy_solver
from ptycho_backend.engines.numpy.solver import NumpyKernels
from ptycho_backend.simulation.simulate import simulate_scan
from ptycho_backend.solver import probe_refinement
from ptycho_backend.solver.epie import EpieOptions, epie
from ptycho_backend.solver.probe_refinement import centred_like, drift_px, refine_probe, refined_calibration
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.scan_geometry import shifted_probe
from ptycho_backend.solver.solver import Solution, SolverOptions, solve
from ptycho_backend.testing import assert_close
from ptycho_backend.testing.images import scaled_distance
from ptycho_backend.testing.scans import calibration_of_scan as calibration_of
from ptycho_backend.testing.scans import small_scan as simulated
from ptycho_backend.testing.tolerances import Tolerance

N = 32
ITERATIONS = 12


@pytest.fixture(scope="module")
def guessed():
    """Return a scan whose probe guess is a quarter too wide."""
    return simulated(probe_error=0.25)


@pytest.fixture(scope="module")
def true():
    return calibration_of(simulated()).probe


@pytest.fixture(scope="module")
def rough(guessed):
    return epie(guessed, calibration_of(guessed), EpieOptions(ITERATIONS), np.random.default_rng(0))


def updated(scan, rough, iterations=8, update_probe=True, calibration=None) -> Solution:
    """Return object and probe after updates from all patterns, from the result of ePIE."""
    calibration = dataclasses.replace(calibration or calibration_of(scan), probe=rough.probe)
    options = SolverOptions(iterations, update_probe, step=0.5, coarse=False, stage="probe")
    return solve(Problem.of(scan, calibration), NumpyKernels(), rough.image, options)


def test_updates_from_all_patterns_remove_the_noise_of_epie_from_the_probe(guessed, true, rough):
    result = updated(guessed, rough, 32)
    guess_distance = scaled_distance(calibration_of(guessed).probe, true)
    assert scaled_distance(result.probe, true) < 0.75 * scaled_distance(rough.probe, true) < 0.3 * guess_distance
    assert result.errors[-1] < 0.2 * result.errors[0]
    assert result.probe.dtype == np.complex64


def test_true_object_and_probe_are_a_fixed_point(true):
    # The dose makes Poisson noise negligible.
    scan = simulated(photons_per_pattern=1e9)
    solved = epie(scan, calibration_of(scan), EpieOptions(60, update_probe=False), np.random.default_rng(0))
    result = updated(scan, solved, 4)
    assert result.errors[-1] <= result.errors[0] < 1e-4
    assert scaled_distance(result.probe, true) < 1e-3


def test_fixed_probe_does_not_change(guessed, rough):
    fixed, free = updated(guessed, rough, 3, update_probe=False), updated(guessed, rough, 3)
    np.testing.assert_array_equal(fixed.probe, rough.probe)
    assert fixed.errors[0] == free.errors[0]
    assert fixed.errors[-1] > free.errors[-1]


def test_every_mode_is_corrected():
    scan = simulated(modes=2)
    wrong = dataclasses.replace(scan, probe=scan.probe * np.array([1.0, 0.5])[:, None, None])
    rough = epie(wrong, calibration_of(wrong), EpieOptions(ITERATIONS, update_probe=False), np.random.default_rng(0))
    shares = [(np.abs(probe[1]) ** 2).sum() for probe in (calibration_of(scan).probe, rough.probe)]
    found = (np.abs(updated(wrong, rough, 64).probe[1]) ** 2).sum()
    assert abs(found - shares[0]) < 0.65 * abs(shares[1] - shares[0])


def test_bad_pixels_do_not_change_the_probe(rng):
    scan = simulated(probe_error=0.25)
    bad = rng.random((N, N)) < 0.1
    spoiled = scan.patterns.copy()
    spoiled[:, bad] = 1e5
    scans = [dataclasses.replace(scan, patterns=patterns, mask=~bad) for patterns in (scan.patterns, spoiled)]
    calibration = calibration_of(scans[0])
    start = epie(scans[0], calibration, EpieOptions(4), np.random.default_rng(0))
    one, other = (updated(each, start, 3, calibration=calibration).probe for each in scans)
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("chunk_pixels", [N * N, 7 * N * N])
def test_chunks_do_not_change_the_probe(guessed, rough, monkeypatch, chunk_pixels):
    expected = updated(guessed, rough, 3).probe
    monkeypatch.setattr(numpy_solver, "CHUNK_PIXELS", chunk_pixels)
    # The order of float32 sums differs.
    np.testing.assert_allclose(updated(guessed, rough, 3).probe, expected, atol=1e-5 * np.abs(expected).max())


def test_better_probe_is_used(guessed, true):
    calibration = calibration_of(guessed)
    probe, used = refine_probe(guessed, calibration, TrainingConfig.probe_iterations)
    assert used
    assert scaled_distance(probe, true) < 0.3 * scaled_distance(calibration.probe, true)


@pytest.mark.parametrize("shift_px", [(0.0, 0.0), (0.4, -0.3), (2.0, 1.5)])
def test_refined_probe_is_centred_like_its_guess(true, shift_px):
    assert_close(
        centred_like(shifted_probe(true, np.array(shift_px)), true),
        true,
        Tolerance(1e-3, "a shift loses the Nyquist component of a disc"),
    )


def test_intensity_distribution_within_the_outline_does_not_shift_the_probe(true):
    # A measured guess is brighter on one side; its refined probe has the same outline and is uniform.
    lopsided = true * np.linspace(0.2, 1.8, N, dtype=np.float32)
    weights = (np.abs(lopsided[0]) ** 4).sum(axis=0, dtype=np.float64)
    assert np.average(np.arange(N), weights=weights) > N // 2 + 1.0
    assert np.abs(drift_px(true, lopsided)).max() < 0.5


@pytest.mark.parametrize("factor", [2.0, np.nan])
def test_probe_without_a_lower_error_is_not_used(guessed, monkeypatch, factor):
    """Patterns that took no part decide: a probe of twice the amplitude explains them worse, and NaN not at all."""
    calibration = calibration_of(guessed)

    def staged(problem, kernels, start, options, on_event):
        solution = solve(problem, kernels, start, dataclasses.replace(options, update_probe=False), on_event)
        return dataclasses.replace(solution, probe=solution.probe * factor) if options.update_probe else solution

    monkeypatch.setattr(probe_refinement, "solve", staged)
    probe, used = refine_probe(guessed, calibration, 2)
    assert not used
    assert probe is calibration.probe


def test_one_iteration_does_not_refine(guessed):
    probe, used = refine_probe(guessed, calibration_of(guessed), 1)
    assert not used
    np.testing.assert_array_equal(probe, calibration_of(guessed).probe)


def test_large_scan_is_refined_on_the_patterns_at_its_centre(guessed, monkeypatch):
    monkeypatch.setattr(probe_refinement, "MAX_PATTERNS", 15)
    parts = []

    def recorded(problem, *arguments):
        parts.append(problem.scan)
        return solve(problem, *arguments)

    monkeypatch.setattr(probe_refinement, "solve", recorded)
    refine_probe(guessed, calibration_of(guessed), 2)
    middle = (guessed.positions_px.min(axis=0) + guessed.positions_px.max(axis=0)) / 2
    distance = np.sort(np.linalg.norm(guessed.positions_px - middle, axis=1))
    assert [len(part) for part in parts] == [12, 12]  # every fifth pattern is held out
    assert np.linalg.norm(parts[0].positions_px - middle, axis=1).max() <= distance[14]


def test_iterations_are_reported(guessed):
    events = []
    training = TrainingConfig(model=ModelConfig(N=N))
    _, record = refined_calibration(guessed, calibration_of(guessed), training, 4, events.append)
    reported = [(event.stage, event.done, event.total) for event in events if event.done == int(event.done)]
    assert reported == [("probe", n, 4) for n in range(1, 5)]
    assert all(event.image is None for event in events)
    assert record["probe_refined"]


@pytest.mark.parametrize("photons", [300, 3000])
def test_exact_guess_at_low_dose_gives_no_worse_image(photons):
    scan = simulate_scan(N=64, n_positions=144, seed=3, photons_per_pattern=photons)
    given, refined = (pb.evaluate(pb.reconstruct(scan, backend="numpy", probe_iterations=n), scan) for n in (0, None))
    assert refined.amplitude_psnr_db > given.amplitude_psnr_db - 0.1
    assert refined.phase_psnr_db > given.phase_psnr_db - 0.1
