"""A small simulated scan for tests, and its calibration."""

from __future__ import annotations

from typing import Any

from ptycho_backend.config import ModelConfig
from ptycho_backend.data.scan import Scan
from ptycho_backend.physics.calibration import Calibration, calibrate
from ptycho_backend.simulation.simulate import simulate_scan

SMALL = {"N": 32, "n_positions": 36, "object_name": "lines", "photons_per_pattern": 1e7, "step_px": 3.0}


def small_scan(**fields: Any) -> Scan:
    """Return a simulated scan of 36 patterns of 32×32 with large overlap; `fields` override the simulation options."""
    return simulate_scan(**{**SMALL, **fields})


def calibration_of_scan(scan: Scan) -> Calibration:
    """Return the calibration of a scan for a default model."""
    return calibrate(scan, ModelConfig(N=scan.N))
