"""Error of a block of patterns after a few iterations: the measure of geometries that are compared."""

from __future__ import annotations

import numpy as np

from ptycho_backend.data.scan import Scan
from ptycho_backend.engines.numpy.solver import NumpyKernels
from ptycho_backend.physics.calibration import Calibration
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.solver import MiniBatches, SolverOptions, solve

BATCHES, ITERATIONS = 4, 8  # of which in mini-batches, and in all


def block_error(block: Scan, calibration: Calibration) -> float:
    """
    Return the error of the last of some iterations of object and probe from a flat object.

    Parameters
    ----------
    block : Scan
        Neighbouring patterns. Blocks that differ in positions alone have errors to compare.
    calibration : Calibration
        Scale and probe.
    """
    options = SolverOptions(ITERATIONS, True, batches=MiniBatches(BATCHES, np.random.default_rng(0)))
    return solve(Problem.of(block, calibration), NumpyKernels(), None, options).errors[-1]
