"""A probe that suits the data better than its guess, before anything else is done with it (spec: physics 8.4)."""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.config import TrainingConfig
from ptycho_backend.data.scan import Scan
from ptycho_backend.events import OnEvent, ignore, without_images
from ptycho_backend.physics.calibration import Calibration, calibrate
from ptycho_backend.solver.epie import Plan, epie
from ptycho_backend.solver.object_and_probe import JointResult, joint_passes
from ptycho_backend.solver.registration import find_shift
from ptycho_backend.solver.scan_geometry import abs2, shifted_probe

REFINEMENT_PATTERNS = 1000  # a probe is refined on this many neighbouring patterns at the most
ROUNDS = 4  # of registering a probe where it was moved to: the window of the correlation leaves a ninth each time

logger = logging.getLogger(__name__)


def refined_calibration(
    scan: Scan, calibration: Calibration, training: TrainingConfig, passes: int, on_event: OnEvent = ignore
) -> tuple[Calibration, dict[str, Any]]:
    """
    Return the calibration with the refined probe, or as it was where that explains the data no better.

    Parameters
    ----------
    scan : Scan
    calibration : Calibration
    training : TrainingConfig
        Its model, photons and seed.
    passes : int
        0 changes nothing.
    on_event : callable

    Returns
    -------
    calibration : Calibration
    record : dict
        ``probe_refined`` and, where there were passes, ``probe_refinement_seconds``.
    """
    if passes == 0:
        return calibration, {"probe_refined": False}
    started = time.perf_counter()
    probe, used = refine_probe(scan, calibration, passes, np.random.default_rng([training.seed, 5]), on_event)
    seconds = time.perf_counter() - started
    logger.info("probe refinement: %s after %.1f s", "refined probe used" if used else "guess kept", seconds)
    if used:
        calibration = calibrate(scan, training.model, training.nphotons, probe)
    return calibration, {"probe_refined": used, "probe_refinement_seconds": seconds}


def refine_probe(
    scan: Scan, calibration: Calibration, passes: int, rng: np.random.Generator, on_event: OnEvent = ignore
) -> tuple[NDArray[np.complex64], bool]:
    """
    Refine a probe on the patterns around the scan's centre.

    Parameters
    ----------
    scan : Scan
    calibration : Calibration
        Scale of the data, and the probe guess.
    passes : int
        Of ePIE; half as many over all patterns at once follow, which take its noise out again.
    rng : numpy Generator
    on_event : callable

    Returns
    -------
    probe : complex64, shape (mode, y, x)
        The refined probe, or the given one where as many passes explain the data as well with it.
    used : bool
        Whether it is the refined one.

    Notes
    -----
    Spec: physics 8.4, 8.5.
    """
    if passes < 2:  # ePIE corrects the probe from its second pass on
        return calibration.probe, False
    part = scan.subset(_central_rows(scan.positions_px, REFINEMENT_PATTERNS))
    seeds, told = rng.spawn(2), without_images(on_event)
    found, given = (
        _after(part, calibration, passes, update, seed, told if update else ignore)
        for update, seed in zip((True, False), seeds, strict=True)
    )
    better = found.errors[-1] < given.errors[-1]  # False for NaN
    if better and np.isfinite(found.probe).all():
        return centred_like(found.probe, calibration.probe), True
    return calibration.probe, False


def centred_like(probe: NDArray[np.complex64], guess: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """
    Move a probe (mode, y, x) to where its guess lies.

    The data do not say where: a probe and an object that are moved together explain them as well. Positions do, if
    the probe stays.
    """
    move_px = np.zeros(2)
    for _ in range(ROUNDS):
        move_px -= drift_px(shifted_probe(probe, move_px), guess)
    return shifted_probe(probe, move_px)  # once: every move loses some of the finest detail


def drift_px(probe: NDArray[np.complex64], guess: NDArray[np.complex64]) -> NDArray[np.float64]:
    """
    Return how far a probe (mode, y, x) lies from its guess, (y, x), by the correlation of their amplitudes.

    The outline decides. A centre of light would not do: it moves by pixels when the light inside the outline becomes
    more even, as that of a measured guess does.
    """
    amplitude, expected = (np.sqrt(abs2(each).sum(axis=0)) for each in (probe, guess))
    return find_shift(amplitude, expected, probe.shape[-1] / 4)


def _after(
    part: Scan, calibration: Calibration, passes: int, update_probe: bool, rng: np.random.Generator, on_event: OnEvent
) -> JointResult:
    """Return the probe, updated or held, and the errors of the passes over all patterns that follow those of ePIE."""
    rough = epie(part, calibration, Plan(passes, update_probe), rng, on_event)
    rough_calibration = dataclasses.replace(calibration, probe=rough.probe)
    return joint_passes(part, rough_calibration, rough.image, max(2, passes // 2), update_probe, on_event)


def _central_rows(positions_px: NDArray[np.float64], most: int) -> NDArray[np.intp]:
    centre = (positions_px.min(axis=0) + positions_px.max(axis=0)) / 2
    nearest = np.argsort(((positions_px - centre) ** 2).sum(axis=1), kind="stable")[:most]
    return np.sort(nearest)
