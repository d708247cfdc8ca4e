"""Iterations in mini-batches: object and probe change after each of them (physics 8.1, 8.3)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ptycho_backend.engines.numpy import solver as numpy_solver
from ptycho_backend.engines.numpy.solver import NumpyKernels
from ptycho_backend.engines.solver_contract import REGULARISATION
from ptycho_backend.physics import updates as oracle
from ptycho_backend.solver import solver
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.solver import MiniBatches, Solution, SolverOptions, solve
from ptycho_backend.testing.scans import calibration_of_scan, small_scan


@pytest.fixture(scope="module")
def problem():
    """Return a scan of 36 patterns with a wrong guess of two modes, and bad pixels."""
    scan = small_scan(modes=2, bad_pixels=0.05, probe_error=0.2)
    return Problem.of(scan, calibration_of_scan(scan))


def in_batches(problem, iterations=2, size=16, seed=0, more=0, update_probe=True, on_event=None) -> Solution:
    batches = MiniBatches(iterations, np.random.default_rng(seed), size)
    options = SolverOptions(iterations + more, update_probe, coarse=False, batches=batches)
    return solve(problem, NumpyKernels(), None, options, *([on_event] if on_event else []))


def reference(problem, iterations, size, seed):
    """Return object, probe and errors of the iterations, term by term as the specification writes them."""
    scan, geometry, order = problem.scan, problem.geometry, np.random.default_rng(seed)
    amplitudes = np.fft.fftshift(problem.amplitudes(slice(None)).astype(float), axes=(1, 2))
    mask = scan.mask.astype(float)
    obj, probe = geometry.canvas().astype(complex), problem.calibration.probe.astype(complex)
    errors = []
    for _ in range(iterations):
        squared_error = norm = 0.0
        permuted = order.permutation(len(problem))
        for start in range(0, len(permuted), size):
            rows = permuted[start : start + size]
            batch = oracle.Patterns(amplitudes[rows], mask, geometry.corners_px[rows], geometry.shifts_px[rows])
            found = oracle.updates(obj, probe, batch)
            illumination = oracle.illumination(probe, batch, obj.shape)
            weight = (np.abs(oracle.extract_patches(obj, batch.corners_px, scan.N)) ** 2).sum(axis=0)
            obj = obj + found.obj / (illumination + 0.1 * illumination.max())
            probe = probe + found.probe / (weight + 0.1 * weight.max())
            squared_error, norm = squared_error + found.squared_error, norm + found.norm
        errors.append(squared_error / norm)
    return obj, probe, errors


@pytest.mark.parametrize("size", [1, 16, 36])
def test_mini_batches_are_those_of_the_oracle(problem, size):
    obj, probe, errors = reference(problem, 2, size, 5)
    found = in_batches(problem, 2, size, 5)
    covered = found.image.coverage > 0
    np.testing.assert_allclose(found.image.obj[covered], obj[:-1, :-1][covered], atol=2e-4)
    np.testing.assert_allclose(found.probe, probe, atol=1e-4 * np.abs(probe).max())
    np.testing.assert_allclose(found.errors, errors, rtol=1e-4)


def test_one_batch_of_all_patterns_is_one_iteration(problem, monkeypatch):
    monkeypatch.setattr(solver, "BATCH_REGULARISATION", REGULARISATION)
    found = in_batches(problem, 1, len(problem))
    plain = solve(problem, NumpyKernels(), None, SolverOptions(1, True, 1.0, coarse=False))
    # The order of float32 sums differs.
    np.testing.assert_allclose(found.image.obj, plain.image.obj, atol=1e-5)
    np.testing.assert_allclose(found.probe, plain.probe, atol=1e-5 * np.abs(plain.probe).max())
    assert found.errors == pytest.approx(plain.errors, rel=1e-5)


def test_result_depends_on_the_seed_only(problem, monkeypatch):
    found, other = in_batches(problem, seed=3), in_batches(problem, seed=4)
    for threads in (1, 3):
        monkeypatch.setattr(numpy_solver, "processors", lambda threads=threads: threads)
        again = in_batches(problem, seed=3)
        np.testing.assert_array_equal(again.image.obj, found.image.obj)
        np.testing.assert_array_equal(again.probe, found.probe)
        assert again.errors == found.errors
    assert np.abs(other.image.obj - found.image.obj).max() > 1e-3


def test_iterations_differ_in_their_order(problem):
    drawn = []

    class Order(np.random.Generator):
        def permutation(self, n):
            drawn.append(super().permutation(n))
            return drawn[-1]

    batches = MiniBatches(3, Order(np.random.PCG64(0)))
    solve(problem, NumpyKernels(), None, SolverOptions(5, True, coarse=False, batches=batches))
    assert len(drawn) == 3
    assert all(sorted(each) == list(range(len(problem))) for each in drawn)
    assert not np.array_equal(drawn[0], drawn[1])


def test_a_fixed_probe_does_not_change(problem):
    found = in_batches(problem, update_probe=False, more=2)
    np.testing.assert_array_equal(found.probe, problem.calibration.probe)
    assert found.errors[-1] < found.errors[0]


def test_all_patterns_go_on_from_the_last_mini_batch(problem):
    """The same iterations as from the image and the probe of the mini-batches, without momentum from before."""
    found = in_batches(problem, 2, more=1)
    before = in_batches(problem, 2)
    calibration = dataclasses.replace(problem.calibration, probe=before.probe)
    changed = Problem.of(problem.scan, calibration)
    after = solve(changed, NumpyKernels(), before.image, SolverOptions(1, True, coarse=False))
    # An image does not contain the canvas outside its windows, which sub-pixel shifts of the probe reach.
    assert found.errors == pytest.approx([*before.errors, *after.errors], rel=5e-4)
    bright = found.image.coverage > 0.1 * found.image.coverage.max()
    np.testing.assert_allclose(found.image.obj[bright], after.image.obj[bright], atol=1e-4)
    np.testing.assert_allclose(found.probe, after.probe, atol=1e-4 * np.abs(after.probe).max())


def test_mini_batches_correct_a_wrong_probe_in_fewer_iterations(problem):
    plain = solve(problem, NumpyKernels(), None, SolverOptions(2, True, coarse=False))
    assert in_batches(problem, 2).errors[-1] < 0.5 * plain.errors[-1]


def test_iterations_are_reported(problem):
    events = []
    found = in_batches(problem, 2, more=1, on_event=events.append)
    ends = [(event.done, event.total, event.message) for event in events if event.stage == "iterations" and event.image]
    assert ends == [(k, 3, f"error {error:.3g}") for k, error in enumerate(found.errors, 1)]
    assert np.abs(events[-1].image().obj - found.image.obj).max() == 0
