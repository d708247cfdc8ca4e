"""Probe refinement before all other computations, on the patterns at the scan's centre (spec: physics 8.4)."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.config import TrainingConfig
from ptycho_backend.data.scan import Scan
from ptycho_backend.engines.numpy.solver import NumpyKernels
from ptycho_backend.events import OnEvent, ignore, without_images
from ptycho_backend.physics.calibration import Calibration, calibrate
from ptycho_backend.physics.losses import half_deviance
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.registration import find_shift
from ptycho_backend.solver.scan_geometry import abs2, shifted_probe, spectrum_of
from ptycho_backend.solver.solver import SHARED_STEP, Solution, SolverOptions, solve

MAX_PATTERNS = 500  # largest number of neighbouring patterns used
STAGE = "probe"
HELD_OUT = 5  # every fifth pattern decides, and takes no part
LOW_DOSE = 10.0  # photons per good pixel
REGISTRATIONS = 4  # the correlation's Hann window leaves a ninth of the shift each time

logger = logging.getLogger(__name__)


def refined_calibration(
    scan: Scan, calibration: Calibration, training: TrainingConfig, iterations: int, on_event: OnEvent = ignore
) -> tuple[Calibration, dict[str, Any]]:
    """
    Return the calibration with a refined probe, or unchanged if refinement does not lower the error.

    Parameters
    ----------
    scan : Scan
    calibration : Calibration
    training : TrainingConfig
        Provides model, photons and seed.
    iterations : int
        Iterations over object and probe; 0 changes nothing.
    on_event : callable

    Returns
    -------
    calibration : Calibration
    record : dict
        ``probe_refined`` and, after any iterations, ``probe_refinement_seconds``.
    """
    if iterations == 0:
        return calibration, {"probe_refined": False}
    started = time.perf_counter()
    probe, used = refine_probe(scan, calibration, iterations, on_event)
    seconds = time.perf_counter() - started
    logger.info("probe refinement: %s after %.1f s", "refined probe used" if used else "guess kept", seconds)
    if used:
        calibration = calibrate(scan, training.model, training.nphotons, probe)
    return calibration, {"probe_refined": used, "probe_refinement_seconds": seconds}


def refine_probe(
    scan: Scan, calibration: Calibration, iterations: int, on_event: OnEvent = ignore
) -> tuple[NDArray[np.complex64], bool]:
    """
    Refine a probe by updates of object and probe from a block of patterns, and compare its error on others.

    Parameters
    ----------
    scan : Scan
    calibration : Calibration
        Scale of the data, and the probe guess.
    iterations : int
        Iterations from a flat object.
    on_event : callable

    Returns
    -------
    probe : complex64, shape (mode, y, x)
        Refined probe, or the guess if held-out patterns are explained as well with a fixed probe.
    used : bool
        True for the refined probe.

    Notes
    -----
    Spec: physics 8.4, 8.5.
    """
    if iterations < 2:
        return calibration.probe, False
    block = Problem.of(scan.subset(_central_rows(scan.positions_px, MAX_PATTERNS)), calibration)
    held_out = np.arange(len(block)) % HELD_OUT == HELD_OUT // 2
    errors, probes = {}, {}
    for update_probe in (True, False):
        listener = without_images(on_event) if update_probe else ignore
        options = SolverOptions(iterations, update_probe, SHARED_STEP, stage=STAGE)
        solution = solve(block.part(np.flatnonzero(~held_out)), NumpyKernels(), None, options, listener)
        errors[update_probe] = _held_out_error(block.part(np.flatnonzero(held_out)), solution)
        probes[update_probe] = solution.probe
    if errors[True] < errors[False]:  # False for NaN
        return centred_like(probes[True], calibration.probe), True
    return calibration.probe, False


def _held_out_error(problem: Problem, solution: Solution) -> float:
    """
    Return the error of patterns that took no part in a solution: of the amplitudes, or at low dose of the counts.

    At low dose the mean of √counts lies below √(mean counts). A free probe fits that difference too, in held-out
    patterns as in others, and ruins the image. The half-deviance of the counts is free of it. At high dose it would
    weigh the dark pixels alone, where few photons decide.
    """
    scan, calibration, rows = problem.scan, problem.calibration, slice(0, len(problem))
    canvas, spectrum = problem.geometry.canvas(solution.image), spectrum_of(solution.probe)
    to_counts = calibration.photon_scale / calibration.rms_input_scale**2
    expected = problem.geometry.intensities(canvas, spectrum, rows) * to_counts
    counts = scan.counts(rows).astype(np.float64) * calibration.photon_scale
    if counts[:, scan.mask].mean() < LOW_DOSE:
        return float((half_deviance(expected, counts) * scan.mask).sum())
    return float(((np.sqrt(counts) - np.sqrt(expected)) ** 2 * scan.mask).sum())


def centred_like(probe: NDArray[np.complex64], guess: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """
    Shift a probe (mode, y, x) to the position of its guess.

    Diffraction data do not fix it: the same shift of probe and object explains them equally well.
    """
    shift_px = np.zeros(2)
    for _ in range(REGISTRATIONS):
        shift_px -= drift_px(shifted_probe(probe, shift_px), guess)
    return shifted_probe(probe, shift_px)  # one shift only: each loses some of the finest detail


def drift_px(probe: NDArray[np.complex64], guess: NDArray[np.complex64]) -> NDArray[np.float64]:
    """
    Return the shift (y, x) of a probe (mode, y, x) from its guess, by correlation of their amplitudes.

    Correlation follows the outline. The centre of mass would also follow the distribution of intensity within it,
    which refinement changes.
    """
    amplitude, expected = (np.sqrt(abs2(modes).sum(axis=0)) for modes in (probe, guess))
    return find_shift(amplitude, expected, probe.shape[-1] / 4)


def _central_rows(positions_px: NDArray[np.float64], n: int) -> NDArray[np.intp]:
    """Return the n positions nearest to the scan's centre, in scan order."""
    centre = (positions_px.min(axis=0) + positions_px.max(axis=0)) / 2
    nearest = np.argsort(((positions_px - centre) ** 2).sum(axis=1), kind="stable")[:n]
    return np.sort(nearest)
