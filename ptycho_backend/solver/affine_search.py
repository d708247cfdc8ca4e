"""
Search for an affine error that all positions share: scale along y and x, rotation and shear (spec: physics 9.10).

No single pattern shows such an error: neighbours agree to a few hundredths of a pixel, and the object follows slowly.
The error of a block of patterns after some iterations is a parabola over each parameter, whose vertex is the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.scan import Scan
from ptycho_backend.events import OnEvent, StageEvent, ignore
from ptycho_backend.physics.calibration import Calibration
from ptycho_backend.solver.block_trial import block_error
from ptycho_backend.solver.probe_refinement import central_part
from ptycho_backend.solver.unknown_probe import vertex

STAGE = "affine positions"
PATTERNS = 100
STEPS = (0.03, 0.01)  # of the parameters: a strain of 3 %, or 1.7 degrees
BETTER = 0.997  # error of corrected positions over that of the given ones
GENERATORS = np.array([[[1, 0], [0, 0]], [[0, 0], [0, 1]], [[0, -1], [1, 0]], [[0, 1], [1, 0]]], dtype=np.float64)
SUSPECTS = np.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])  # scale of both axes, and rotation
INFORMATIVE = 1.02  # mean error at both first steps over that between: 1.004 at 1e4 photons per pattern, 1.04 at 1e6
SMALLEST = 0.004  # vertex that starts the search: a strain of 0.4 %; exact positions reach 0.2 %
Real = NDArray[np.float64]


def affine_correction(scan: Scan, calibration: Calibration, on_event: OnEvent = ignore) -> Real:
    """
    Return the matrix (2, 2) that corrects positions about their mean; the identity if none is better.

    Parameters
    ----------
    scan : Scan
    calibration : Calibration
        Scale and probe.
    on_event : callable
        Receives a StageEvent after every trial.
    """
    block, values, done = central_part(scan, PATTERNS), np.zeros(len(GENERATORS)), 0

    @cache  # the first trials of the rotation are those that make it suspect
    def error_of(*values: float) -> float:
        return block_error(corrected(block, matrix(np.array(values))), calibration)

    given = best = error_of(*values)
    if not _is_suspect(error_of, given):
        return np.eye(2)
    for step in STEPS:
        vertices = np.zeros(len(GENERATORS))
        for k in range(len(GENERATORS)):
            change = step * np.eye(len(GENERATORS))[k]
            low, high = (error_of(*(values + sign * change)) for sign in (-1, 1))
            vertices[k], done = step * vertex(low, best, high), done + 1
            on_event(StageEvent(STAGE, done, len(GENERATORS) * len(STEPS)))
        error = error_of(*(values + vertices))
        if error < best:
            values, best = values + vertices, error
    return matrix(values) if best < BETTER * given else np.eye(2)


def _is_suspect(error_of: Callable[..., float], given: float) -> bool:
    """Return whether a common scale or a rotation would lower the error: the vertex of either lies away from 0."""
    for direction in SUSPECTS:
        low, high = (error_of(*(sign * STEPS[0] * direction)) for sign in (-1, 1))
        if (low + high) / 2 < INFORMATIVE * given:
            return False  # at low dose the error hardly depends on positions
        if abs(STEPS[0] * vertex(low, given, high)) > SMALLEST:
            return True
    return False


def corrected(scan: Scan, correction: Real) -> Scan:
    """Return a scan with positions multiplied by a matrix (2, 2) about their mean."""
    middle = scan.positions_px.mean(axis=0)
    return scan.changed(positions_px=(scan.positions_px - middle) @ correction.T + middle)


def matrix(values: Real) -> Real:
    """Return 1 + Σ value·generator."""
    return np.eye(2) + np.tensordot(values, GENERATORS, axes=1)
