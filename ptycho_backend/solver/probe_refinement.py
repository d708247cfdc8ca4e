"""Probe refinement before all other computations, on the patterns at the scan's centre (spec: physics 8.4)."""

from __future__ import annotations

import dataclasses
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
from ptycho_backend.solver.epie import EpieOptions, epie
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.registration import find_shift
from ptycho_backend.solver.scan_geometry import abs2, shifted_probe
from ptycho_backend.solver.solver import Solution, SolverOptions, solve

MAX_PATTERNS = 1000  # largest number of neighbouring patterns used
STAGE = "probe"
STEP = 0.5  # object and probe update each correct the same residual
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
        ePIE iterations; 0 changes nothing.
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
    probe, used = refine_probe(scan, calibration, iterations, np.random.default_rng([training.seed, 5]), on_event)
    seconds = time.perf_counter() - started
    logger.info("probe refinement: %s after %.1f s", "refined probe used" if used else "guess kept", seconds)
    if used:
        calibration = calibrate(scan, training.model, training.nphotons, probe)
    return calibration, {"probe_refined": used, "probe_refinement_seconds": seconds}


def refine_probe(
    scan: Scan, calibration: Calibration, iterations: int, rng: np.random.Generator, on_event: OnEvent = ignore
) -> tuple[NDArray[np.complex64], bool]:
    """
    Refine a probe by ePIE and then by updates from all patterns at once.

    Parameters
    ----------
    scan : Scan
    calibration : Calibration
        Scale of the data, and the probe guess.
    iterations : int
        ePIE iterations. Half as many iterations over all patterns follow and remove the noise of ePIE.
    rng : numpy Generator
    on_event : callable

    Returns
    -------
    probe : complex64, shape (mode, y, x)
        Refined probe, or the guess if the same iterations with a fixed probe reach an equal error.
    used : bool
        True for the refined probe.

    Notes
    -----
    Spec: physics 8.4, 8.5.
    """
    if iterations < 2:  # ePIE updates the probe from its second iteration on
        return calibration.probe, False
    part = scan.subset(_central_rows(scan.positions_px, MAX_PATTERNS))
    listeners = {True: without_images(on_event), False: ignore}
    refined, fixed = (
        _reconstruct(part, calibration, iterations, update_probe, seed, listeners[update_probe])
        for update_probe, seed in zip((True, False), rng.spawn(2), strict=True)
    )
    better = refined.errors[-1] < fixed.errors[-1]  # False for NaN
    if better and np.isfinite(refined.probe).all():
        return centred_like(refined.probe, calibration.probe), True
    return calibration.probe, False


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


def _reconstruct(
    scan: Scan,
    calibration: Calibration,
    iterations: int,
    update_probe: bool,
    rng: np.random.Generator,
    on_event: OnEvent,
) -> Solution:
    """Run ePIE, then updates from all patterns at once, with a free or a fixed probe."""
    initial = epie(scan, calibration, EpieOptions(iterations, update_probe), rng, on_event)
    calibration = dataclasses.replace(calibration, probe=initial.probe)
    options = SolverOptions(max(2, iterations // 2), update_probe, STEP, coarse=False, stage=STAGE)
    return solve(Problem.of(scan, calibration), NumpyKernels(), initial.image, options, on_event)


def _central_rows(positions_px: NDArray[np.float64], n: int) -> NDArray[np.intp]:
    """Return the n positions nearest to the scan's centre, in scan order."""
    centre = (positions_px.min(axis=0) + positions_px.max(axis=0)) / 2
    nearest = np.argsort(((positions_px - centre) ** 2).sum(axis=1), kind="stable")[:n]
    return np.sort(nearest)
