"""Probe refinement, and updates of object and probe (physics 8.4, 8.5)."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

import ptycho_backend as pb
from ptycho_backend.config import ModelConfig, TrainingConfig
from ptycho_backend.engines.numpy import solver as numpy_solver
from ptycho_backend.engines.numpy.solver import NumpyKernels
from ptycho_backend.runtime.quantities import mode_shares
from ptycho_backend.simulation.simulate import simulate_scan
from ptycho_backend.solver import probe_refinement
from ptycho_backend.solver.probe_refinement import centred_like, drift_px, refine_probe, refined_calibration
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.scan_geometry import shifted_probe
from ptycho_backend.solver.solver import MiniBatches, Solution, SolverOptions, solve
from ptycho_backend.testing import assert_close
from ptycho_backend.testing.images import scaled_distance
from ptycho_backend.testing.scans import calibration_of_scan as calibration_of
from ptycho_backend.testing.scans import small_scan as simulated
from ptycho_backend.testing.tolerances import Tolerance

N = 32
ITERATIONS = 16


@pytest.fixture(scope="module")
def guessed():
    """Return a scan whose probe guess is a quarter too wide."""
    return simulated(probe_error=0.25)


@pytest.fixture(scope="module")
def true():
    return calibration_of(simulated()).probe


@pytest.fixture(scope="module")
def rough(guessed):
    return in_batches(guessed, calibration_of(guessed))


def in_batches(scan, calibration, iterations=ITERATIONS, update_probe=True) -> Solution:
    """Return object and probe after mini-batches of one pattern, from a flat object."""
    batches = MiniBatches(iterations, np.random.default_rng(0), size=1)
    options = SolverOptions(iterations, update_probe, coarse=False, batches=batches)
    return solve(Problem.of(scan, calibration), NumpyKernels(), None, options)


def updated(scan, rough, iterations=8, update_probe=True, calibration=None) -> Solution:
    """Return object and probe after updates from all patterns, from that of mini-batches."""
    calibration = dataclasses.replace(calibration or calibration_of(scan), probe=rough.probe)
    options = SolverOptions(iterations, update_probe, step=0.5, coarse=False, stage="probe")
    return solve(Problem.of(scan, calibration), NumpyKernels(), rough.image, options)


def test_updates_from_all_patterns_remove_the_noise_of_mini_batches_from_the_probe(guessed, true, rough):
    result = updated(guessed, rough, 32)
    before, after = (scaled_distance(centred_like(each.probe, true), true) for each in (rough, result))
    assert after < 0.75 * before < 0.3 * scaled_distance(calibration_of(guessed).probe, true)
    assert result.errors[-1] < 0.2 * result.errors[0]
    assert result.probe.dtype == np.complex64


def test_true_object_and_probe_are_a_fixed_point(true):
    # The dose makes Poisson noise negligible.
    scan = simulated(photons_per_pattern=1e9)
    solved = in_batches(scan, calibration_of(scan), 60, update_probe=False)
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
    rough = in_batches(wrong, calibration_of(wrong), update_probe=False)
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
    start = in_batches(scans[0], calibration, 4)
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
    found = refine_probe(guessed, calibration, TrainingConfig.probe_iterations)
    assert found.used
    assert scaled_distance(found.probe, true) < 0.3 * scaled_distance(calibration.probe, true)


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
    found = refine_probe(guessed, calibration, 2)
    assert not found.used
    assert found.probe is calibration.probe


def test_one_iteration_does_not_refine(guessed):
    found = refine_probe(guessed, calibration_of(guessed), 1)
    assert not found.used
    np.testing.assert_array_equal(found.probe, calibration_of(guessed).probe)


def test_large_scan_is_refined_on_the_patterns_at_its_centre(guessed, monkeypatch):
    monkeypatch.setattr(probe_refinement, "MAX_PATTERNS", 15)
    parts = []

    def recorded(problem, *arguments):
        parts.append(problem.scan)
        return solve(problem, *arguments)

    monkeypatch.setattr(probe_refinement, "solve", recorded)
    monkeypatch.setattr(probe_refinement, "SEARCH_PATTERNS", 7)
    blocks = []

    def searched(block, on_event):
        blocks.append(block.scan)
        return block.calibration.probe

    monkeypatch.setattr(probe_refinement, "search_probe", searched)
    refine_probe(guessed, calibration_of(guessed), 2)
    middle = (guessed.positions_px.min(axis=0) + guessed.positions_px.max(axis=0)) / 2
    distance = np.sort(np.linalg.norm(guessed.positions_px - middle, axis=1))
    assert {len(part) for part in parts} == {12}  # every fifth pattern is held out
    assert max(np.linalg.norm(part.positions_px - middle, axis=1).max() for part in parts) <= distance[14]
    # The search takes the most central of those that are not held out.
    central = np.sort(np.linalg.norm(parts[0].positions_px - middle, axis=1))[:7]
    np.testing.assert_allclose(np.sort(np.linalg.norm(blocks[0].positions_px - middle, axis=1)), central)


def test_iterations_are_reported():
    scan, events = simulated(), []
    training = TrainingConfig(model=ModelConfig(N=N))
    _, record = refined_calibration(scan, calibration_of(scan), training, 8, events.append)
    reported = [(event.stage, event.done, event.total) for event in events if event.done == int(event.done)]
    assert reported == [("probe", n, 8) for n in range(1, 9)]
    assert all(event.image is None for event in events)
    assert 1 <= record["held_out_over_noise"] < 4


def test_search_and_modes_are_reported(guessed):
    events = []
    training = TrainingConfig(model=ModelConfig(N=N))
    _, record = refined_calibration(guessed, calibration_of(guessed), training, 4, events.append)
    stages = [stage for stage, _ in itertools.groupby(event.stage for event in events)]
    assert stages == ["probe", "probe search", "probe"]
    assert all(event.image is None for event in events)
    assert record["probe_refined"]


@pytest.mark.parametrize("photons", [300, 3000])
def test_exact_guess_at_low_dose_gives_no_worse_image(photons):
    scan = simulate_scan(N=64, n_positions=144, seed=3, photons_per_pattern=photons)
    given, refined = (pb.evaluate(pb.reconstruct(scan, backend="numpy", probe_iterations=n), scan) for n in (0, None))
    assert refined.amplitude_psnr_db > given.amplitude_psnr_db - 0.1
    assert refined.phase_psnr_db > given.phase_psnr_db - 0.1


# --- other starts (physics 8.4) ------------------------------------------------------------------------------------

GUESS, SEARCHED = 1.0, 2.0  # factors of the probes below
NAN = (np.nan, np.nan)


@pytest.mark.parametrize(
    ("photons", "trials", "expected"),
    [
        # Error of held-out patterns and half-deviance over noise: free and fixed guess, then search and modes.
        pytest.param(1e7, [(1.02, 9), (1, 9)], (True, GUESS, 1), id="tie"),
        pytest.param(1e7, [(1.04, 9), (1, 9)], (False, GUESS, 1), id="worse"),
        pytest.param(3000, [(1.02, 9), (1, 9)], (False, GUESS, 1), id="tie at low dose"),
        pytest.param(3000, [(0.99, 9), (1, 9)], (True, GUESS, 1), id="better at low dose"),
        pytest.param(1e7, [(0.72, 9), (1, 9)], (True, GUESS, 1), id="not the probe's fault"),
        pytest.param(1e7, [(0.68, 1.9), (1, 9)], (True, GUESS, 1), id="well explained"),
        pytest.param(1e7, [(0.6, 3.9), (1, 9), (0.43, 1)], (True, GUESS, 1), id="modes little better"),
        pytest.param(1e7, [(0.6, 3.9), (1, 9), (0.41, 1)], (True, GUESS, 3), id="modes"),
        pytest.param(1e7, [(0.6, 4.1), (1, 9), (0.43, 1), (0.43, 1)], (True, GUESS, 1), id="search little better"),
        pytest.param(1e7, [(0.6, 4.1), (1, 9), (0.41, 1.9)], (True, SEARCHED, 1), id="search"),
        pytest.param(1e7, [(0.6, 4.1), (1, 9), (0.41, 2.1), (0.28, 1)], (True, SEARCHED, 3), id="search and modes"),
        pytest.param(1e7, [NAN, (1, 9), (0.6, 1)], (True, SEARCHED, 1), id="no finite error"),
        pytest.param(1e7, [NAN, (1, 9), NAN, NAN], (False, GUESS, 1), id="no finite error at all"),
    ],
)
def test_held_out_errors_decide_which_probe_is_used(monkeypatch, photons, trials, expected):
    scan = simulated(photons_per_pattern=photons)
    calibration = calibration_of(scan)
    left = iter(trials)
    stubs = {
        "solve": lambda problem, *_: Solution(None, problem.calibration.probe),
        "_held_out_error": lambda *_: next(left),
        "search_probe": lambda block, _: SEARCHED * block.calibration.probe,
        "started_modes": lambda probe: np.concatenate([probe] * 3),
        "orthogonal_modes": lambda probe: probe,
        "centred_like": lambda probe, _: probe,
    }
    for name, stub in stubs.items():
        monkeypatch.setattr(probe_refinement, name, stub)
    found = refine_probe(scan, calibration, 20)
    used, factor, modes = expected
    assert found.used is used
    np.testing.assert_array_equal(found.probe, np.concatenate([factor * calibration.probe] * modes))
    assert next(left, None) is None  # no other trial runs


@pytest.fixture
def started(monkeypatch):
    """Return the names of the starts that were tried beside the guess."""
    names = []
    for name in ("search_probe", "started_modes"):
        function = getattr(probe_refinement, name)
        monkeypatch.setattr(
            probe_refinement, name, lambda *args, name=name, call=function: (names.append(name), call(*args))[1]
        )
    return names


@pytest.mark.parametrize("photons", [3000, 1e5, 1e7])
def test_an_exact_guess_starts_no_search(started, photons):
    scan = simulated(photons_per_pattern=photons)
    refine_probe(scan, calibration_of(scan), 20)
    assert started == []


@pytest.mark.parametrize(("photons", "error_px"), [(1e5, 1.0), (1e7, 2.0)])
def test_wrong_positions_start_neither_search_nor_modes(started, rng, photons, error_px):
    scan = simulated(n_positions=100, photons_per_pattern=photons)
    wrong = dataclasses.replace(scan, positions_px=scan.positions_px + rng.normal(0, error_px, (100, 2)))
    found = refine_probe(wrong, calibration_of(wrong), 20)
    assert found.over_noise > probe_refinement.SUSPECT
    assert started == []


def three_modes(photons):
    """Return a partially coherent scan, and the same scan with one mode as its guess."""
    options = {"modes": 3, "n_positions": 100, "step_px": 2.5, "diameter_fraction": 0.5, "object_name": "textures"}
    scan = simulated(**options, photons_per_pattern=photons)
    return scan, dataclasses.replace(scan, probe=scan.probe[:1] * np.sqrt(mode_shares(scan.probe)[0]) ** -1)


@pytest.mark.parametrize("photons", [1e6, pytest.param(1e7, marks=pytest.mark.slow)])
def test_three_modes_are_found_from_one_guess(started, photons):
    scan, guess = three_modes(photons)
    found = refine_probe(guess, calibration_of(guess), 60)
    assert found.used
    assert started == ["search_probe", "started_modes"]
    true = calibration_of(scan).probe
    assert found.probe.shape == true.shape
    np.testing.assert_allclose(mode_shares(found.probe), mode_shares(true), atol=0.02)
    # The share of the true modes that lies in the space of those found.
    basis = np.linalg.qr(centred_like(found.probe, true).reshape(3, -1).T)[0]
    inside = np.linalg.norm(basis.conj().T @ true.reshape(3, -1).T) ** 2 / np.linalg.norm(true) ** 2
    assert inside > 0.985


def test_modes_of_a_coherent_scan_are_not_used(guessed, true, started, monkeypatch):
    monkeypatch.setattr(probe_refinement, "PARTLY_COHERENT", 0.0)
    found = refine_probe(guessed, calibration_of(guessed), 20)
    assert started[-1] == "started_modes"
    assert found.used
    assert found.probe.shape == true.shape


def test_a_background_does_not_become_a_part_of_the_probe(rng):
    scan = simulated(photons_per_pattern=1e6, n_positions=100)
    background = 0.05 * scan.patterns.mean()
    counts = scan.patterns + rng.poisson(background, scan.patterns.shape)
    brighter = dataclasses.replace(scan, patterns=counts.astype(np.float32))
    found = refine_probe(brighter, calibration_of(brighter), 20)
    assert found.over_noise < 2
    assert scaled_distance(found.probe, calibration_of(scan).probe) < 0.1


def test_trials_run_on_the_kernels_of_the_reconstruction(guessed):
    """A GPU computes the refinement too, not only the iterations after it."""
    loaded = []

    class Recorded(NumpyKernels):
        def load(self, problem):
            loaded.append(len(problem))
            super().load(problem)

    kernels = Recorded()
    own = refine_probe(guessed, calibration_of(guessed), 4)
    found = refine_probe(guessed, calibration_of(guessed), 4, kernels=kernels)
    assert len(loaded) >= 2
    np.testing.assert_array_equal(found.probe, own.probe)
