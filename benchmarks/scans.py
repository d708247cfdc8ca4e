"""Scans of any size for benchmarks of speed and memory: a periodic object, so few different patterns suffice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import ptycho_backend as pb
from ptycho_backend.simulation.objects import make_object
from ptycho_backend.simulation.probes import make_probe
from ptycho_backend.simulation.simulate import expected_counts

PERIOD = 16  # the object repeats after these steps
PHOTONS = 1e5  # per pattern, without the object


@dataclass(frozen=True, eq=False)
class PeriodicScan:
    """
    Raster scan of a periodic object.

    Parameters
    ----------
    counts : uint16, shape (cell, y, x)
        All different patterns, at most PERIOD².
    cell : int, shape (position,)
        Pattern of each position.
    positions_px : float64, shape (position, 2), (y, x)
    probe : complex64, shape (mode, y, x)
    """

    counts: NDArray[np.uint16]
    cell: NDArray[np.intp]
    positions_px: NDArray[np.float64]
    probe: NDArray[np.complex64]

    def scan(self) -> pb.Scan:
        """Return the scan with its patterns in memory."""
        return pb.Scan(self.counts[self.cell], self.positions_px, self.probe, "counts", source="periodic object")


def periodic_scan(n: int, N: int, step_px: float, jitter: float = 0.0) -> PeriodicScan:
    """
    Simulate a raster scan of `n` positions.

    Parameters
    ----------
    n : int
        Number of positions.
    N : int
        Side of a pattern, pixels.
    step_px : float
        Distance of neighbouring positions; PERIOD steps are a whole number of pixels.
    jitter : float
        Largest random displacement along each axis, in steps; equal in all periods.
    """
    rng = np.random.default_rng(0)
    period_px = round(PERIOD * step_px)
    repeats = -(-(2 * N + period_px) // period_px) + 1
    obj = np.tile(make_object("lines", (period_px, period_px), rng), (repeats, repeats))
    probe = make_probe("disc", N, rng, diameter_fraction=0.3)
    probe = probe * np.sqrt(PHOTONS / (np.abs(probe) ** 2).sum())
    row, column = np.divmod(np.arange(n), int(np.ceil(np.sqrt(n))))
    cells, cell = np.unique((row % PERIOD) * PERIOD + column % PERIOD, return_inverse=True)
    in_period = np.stack(np.divmod(cells, PERIOD), axis=1)
    offset_px = step_px * jitter * np.random.default_rng(1).uniform(-1, 1, in_period.shape)
    expected = expected_counts(obj, (0.0, 0.0), probe, N + step_px * in_period + offset_px)
    counts = rng.poisson(expected).astype(np.uint16)
    positions_px = N + step_px * np.stack([row, column], axis=1) + offset_px[cell]
    return PeriodicScan(counts, cell, positions_px, probe.astype(np.complex64))
