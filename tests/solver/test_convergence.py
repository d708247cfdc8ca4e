"""Convergence does not depend on the probe, the overlap or the number of positions (physics 7.8, 9.4)."""

from __future__ import annotations

import numpy as np
import pytest

import ptycho_backend as pb
from ptycho_backend.data.image import Image
from ptycho_backend.data.scan import Scan
from ptycho_backend.engines.numpy.solver import NumpyKernels
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.solver import MAX_ITERATIONS, Solution, SolverOptions, solve
from ptycho_backend.testing.scans import calibration_of_scan

pytestmark = pytest.mark.slow

SETTINGS = {"N": 64, "photons_per_pattern": 1e6}
MORE = 64  # iterations after convergence
RIM_PX = 16  # of the scanned area, where few patterns overlap and noise dominates


def simulated(n_positions, **fields) -> Scan:
    return pb.simulate_scan(n_positions=n_positions, **{**SETTINGS, **fields})


def solution(scan, iterations=None, coarse=True) -> Solution:
    """Return the solution of a scan from 1 everywhere."""
    problem = Problem.of(scan, calibration_of_scan(scan))
    return solve(problem, NumpyKernels(), None, SolverOptions(iterations, coarse=coarse))


def inner(image, scan) -> Image:
    """Return the part of an image inside the scanned area, without its rim."""
    origin = np.asarray(image.origin_px)
    low = np.ceil(scan.positions_px.min(axis=0) + RIM_PX - origin).astype(int)
    high = np.floor(scan.positions_px.max(axis=0) - RIM_PX - origin).astype(int)
    part = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    return Image(image.obj[part], image.coverage[part], tuple((origin + low).tolist()))


def decibels(image, scan):
    """Return the PSNR of phase and amplitude, shape (2,)."""
    found = pb.evaluate(inner(image, scan), scan)
    return np.array([found.phase_psnr_db, found.amplitude_psnr_db])


SCANS = {
    "disc": {"seed": 1},
    "zone plate": {"probe_name": "zone-plate", "seed": 2},
    "Gaussian beam": {"probe_name": "gaussian", "seed": 2},
    "half the overlap": {"step_px": 12.5, "seed": 1},
}


@pytest.fixture(scope="module", params=SCANS)
def gain(request):
    """Return the name of a scan, and what 64 iterations after convergence gain in phase and amplitude, dB."""
    scan = simulated(324, **SCANS[request.param])
    converged = solution(scan)
    n = len(converged.errors)
    assert n < MAX_ITERATIONS
    before = decibels(converged.image, scan)
    assert before[0] > 40
    return request.param, decibels(solution(scan, n + MORE).image, scan) - before


def test_phase_that_is_called_converged_gains_little_in_more_iterations(gain):
    assert gain[1][0] < 0.2


def test_amplitude_that_is_called_converged_gains_little_in_more_iterations(gain, request):
    if gain[0] == "Gaussian beam":
        reason = "single features of the amplitude gain 0.3 to 2 dB between 50 and 130 iterations"
        request.applymarker(pytest.mark.xfail(strict=True, reason=reason))
    assert gain[1][1] < 0.2


def test_phase_of_a_large_scan_converges_only_with_coarse_corrections():
    scan = simulated(900, step_px=12.5, seed=2)
    corrected, plain = solution(scan), solution(scan, MAX_ITERATIONS, coarse=False)
    assert len(corrected.errors) < MAX_ITERATIONS / 2
    assert decibels(corrected.image, scan)[0] >= 40
    assert decibels(plain.image, scan)[0] < 40
