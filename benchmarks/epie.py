"""
ePIE for comparisons: the solver in mini-batches of one pattern, each divided by the largest weight (physics 8.1).

References
----------
Maiden and Rodenburg, *An improved ptychographical phase retrieval algorithm for diffractive imaging*,
Ultramicroscopy 109 (2009).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import ptycho_backend as pb
from ptycho_backend.engines.numpy.solver import NumpyKernels
from ptycho_backend.physics.calibration import Calibration
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.solver import MiniBatches, SolverOptions, solve


class EpieKernels(NumpyKernels):
    """Kernels whose steps divide by the largest weight, instead of the weight of each pixel."""

    def precondition(self, update: NDArray[Any], weight: NDArray[np.float32], regularisation: float = 0.0) -> Any:
        """Return update / max weight."""
        return update / weight.max()


def epie(
    scan: pb.Scan,
    calibration: Calibration,
    iterations: int,
    update_probe: bool = False,
    start: pb.Image | None = None,
    seed: int = 0,
) -> pb.Image:
    """
    Reconstruct a scan by ePIE, in a random order of the patterns in each iteration.

    Parameters
    ----------
    scan : Scan
    calibration : Calibration
        Scale of the data, and the initial probe.
    iterations : int
    update_probe : bool
        Update the probe too.
    start : Image, optional
        Initial object; None: 1 everywhere.
    seed : int
        Seed of the order.
    """
    batches = MiniBatches(iterations, np.random.default_rng(seed), size=1)
    options = SolverOptions(iterations, update_probe, coarse=False, stage="ePIE", batches=batches)
    return solve(Problem.of(scan, calibration), EpieKernels(), start, options).image
