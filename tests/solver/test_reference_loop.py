"""The solver's loop against the same iterations written with the float64 oracle (physics 7.7, 8.5, 9)."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_backend.engines.numpy.solver import NumpyKernels
from ptycho_backend.physics import updates as oracle
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.solver import SolverOptions, solve
from ptycho_backend.testing.scans import calibration_of_scan, small_scan


def regularised(weight):
    return weight + 0.02 * weight.max()


def reference(problem, iterations, step, update_probe):
    """Return object, probe and errors of the iterations, term by term as the specification writes them."""
    scan, geometry = problem.scan, problem.geometry
    amplitudes = np.fft.fftshift(problem.amplitudes(slice(None)).astype(float), axes=(1, 2))
    patterns = oracle.Patterns(amplitudes, scan.mask.astype(float), geometry.corners_px, geometry.shifts_px)
    obj = previous = geometry.canvas().astype(complex)
    probe = previous_probe = problem.calibration.probe.astype(complex)
    illumination = regularised(oracle.illumination(probe, patterns, obj.shape))
    errors = []
    for k in range(iterations):
        m = k / (k + 3)
        extrapolated, extrapolated_probe = obj + m * (obj - previous), probe + m * (probe - previous_probe)
        found = oracle.updates(extrapolated, extrapolated_probe, patterns)
        if update_probe:
            illumination = regularised(oracle.illumination(extrapolated_probe, patterns, obj.shape))
        weight = (np.abs(oracle.extract_patches(extrapolated, geometry.corners_px, scan.N)) ** 2).sum(axis=0)
        errors.append(found.squared_error / found.norm)
        previous, obj = obj, extrapolated + step * found.obj / illumination
        if update_probe:
            previous_probe, probe = probe, extrapolated_probe + step * found.probe / regularised(weight)
    return obj, probe, errors


@pytest.mark.parametrize(("update_probe", "step"), [(False, 1.0), (True, 0.5)])
def test_iterations_are_those_of_the_oracle(update_probe, step):
    scan = small_scan(n_positions=16, modes=2, bad_pixels=0.05, probe_error=0.1)
    problem = Problem.of(scan, calibration_of_scan(scan))
    obj, probe, errors = reference(problem, 6, step, update_probe)
    found = solve(problem, NumpyKernels(), None, SolverOptions(6, update_probe, step, coarse=False))
    covered = found.image.coverage > 0
    np.testing.assert_allclose(found.image.obj[covered], obj[:-1, :-1][covered], atol=1e-4)
    np.testing.assert_allclose(found.probe, probe, atol=1e-5 * np.abs(probe).max())
    np.testing.assert_allclose(found.errors, errors, rtol=1e-4)
