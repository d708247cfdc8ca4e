"""A probe that suits the data better than its guess, before anything else is done with it (spec: physics 8.4)."""

from __future__ import annotations

import logging
import time
from typing import Any

import numpy as np

from ptycho_backend.config import TrainingConfig
from ptycho_backend.core.calibration import Calibration, calibrate
from ptycho_backend.core.epie import refine_probe
from ptycho_backend.data.scan import Scan
from ptycho_backend.events import OnEvent, ignore

logger = logging.getLogger(__name__)


def refined_calibration(
    scan: Scan, calibration: Calibration, training: TrainingConfig, passes: int, on_event: OnEvent = ignore
) -> tuple[Calibration, dict[str, Any]]:
    """
    Return the calibration with the probe after passes of ePIE, or as it was where that explains the data no better.

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
