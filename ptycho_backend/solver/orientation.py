"""
Ranking of the eight orientations of a scan by a few iterations on a block of patterns (spec: physics 8.8).

A wrong orientation contradicts the patterns wherever windows overlap. Both axes mirrored is the twin image: with the
conjugate of a symmetric probe it explains the data as well. Without a probe guess, spots of several defoci are tried in
each orientation, and those of a twin are left out.
"""

from __future__ import annotations

import dataclasses

from ptycho_backend.data.orientation import AS_GIVEN, ORIENTATIONS, oriented
from ptycho_backend.data.probe_guess import FROM_PATTERNS, PROBE_GUESS
from ptycho_backend.data.scan import Scan
from ptycho_backend.events import OnEvent, StageEvent, ignore
from ptycho_backend.physics.calibration import Calibration
from ptycho_backend.solver.block_trial import block_error
from ptycho_backend.solver.probe_refinement import central_part
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.unknown_probe import GRID, spots

STAGE = "orientation"
PATTERNS = 64
BLURS = GRID[::3]  # defoci of a probe that is not known, of both signs
WITHOUT_TWINS = ("+y+x", "-y+x", "+x+y", "-x+y")  # the others are their twins, with defocus of the other sign
CLEARLY_BETTER = 0.7  # error of another orientation over that of the given one


def best_orientation(scan: Scan, calibration: Calibration, on_event: OnEvent = ignore) -> str:
    """Return the orientation that explains the patterns at the scan's centre clearly better than the given, or it."""
    errors = orientation_errors(central_part(scan, PATTERNS), calibration, on_event)
    best = min(errors, key=lambda name: errors[name])
    return best if errors[best] < CLEARLY_BETTER * errors[AS_GIVEN] else AS_GIVEN


def orientation_errors(scan: Scan, calibration: Calibration, on_event: OnEvent = ignore) -> dict[str, float]:
    """
    Return the error of every orientation after some iterations of object and probe from a flat object.

    Without a probe guess the error is the least of several defoci, and orientations that are twins of others are
    missing.

    Parameters
    ----------
    scan : Scan
        Neighbouring patterns.
    calibration : Calibration
        Scale and probe.
    on_event : callable
        Receives a StageEvent after every orientation.
    """
    errors = {}
    names, calibrations = tuple(ORIENTATIONS), [calibration]
    if scan.attributes.get(PROBE_GUESS) == FROM_PATTERNS:
        probes = spots(Problem.of(scan, calibration), BLURS)
        names, calibrations = WITHOUT_TWINS, [dataclasses.replace(calibration, probe=probe) for probe in probes]
    for name in names:
        errors[name] = min(block_error(oriented(scan, name), each) for each in calibrations)
        on_event(StageEvent(STAGE, len(errors), len(names)))
    return errors
