"""Checks of the probe, of the network's training domain, and of the axes of a scan."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.config import ModelConfig
from ptycho_backend.data.orientation import AS_GIVEN, NAMES
from ptycho_backend.data.probe_guess import FROM_PATTERNS, PROBE_GUESS, offset_px, smoothed
from ptycho_backend.errors import PtychoError, first_line
from ptycho_backend.network.shipped import shipped_bundle
from ptycho_backend.network.training_domain import outside, scan_conditions, training_domain_of
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.physics.propagation import far_field
from ptycho_backend.quality.scan_check import Check, Grade, ScanNumbers, probe_diameter_px, probe_intensity
from ptycho_backend.solver.orientation import CLEARLY_BETTER, PATTERNS, orientation_errors
from ptycho_backend.solver.probe_refinement import central_part

OFF_MIDDLE, FAR_OFF = 1 / 8, 1 / 4  # of the window's side
WIDE, FILLING = 0.6, 0.8  # diameter over the window's side; a disc of 1 touches its edges
TWIN, DISTINCT = "-y-x", 1.1  # both axes mirrored; error of the next orientation over the given one's
UNLIKE, UNRELATED = 0.5, 0.15  # correlation of the probe's far field with the mean pattern


def check_probe_place(numbers: ScanNumbers) -> Check:
    """Check that the middle of the probe is the middle of its window."""
    intensity = probe_intensity(numbers.scan.probe)
    N, (y, x) = len(intensity), offset_px(intensity)
    off = float(np.hypot(y, x))
    found = f"{off:.1f} px off the middle (y {y:+.1f}, x {x:+.1f})"
    if off <= OFF_MIDDLE * N:
        return Check("probe place", "good", found)
    grade: Grade = "wrong" if off > FAR_OFF * N else "doubtful"
    reason = "positions are those of the window's middle; a probe beside it moves the object, and its rim is cut off"
    return Check("probe place", grade, found, reason, "move the probe to the middle of its array, [N//2, N//2]")


def check_probe_size(numbers: ScanNumbers) -> Check:
    """Check the diameter of the probe against its window."""
    N, diameter = numbers.scan.N, probe_diameter_px(numbers.scan.probe)
    guess = numbers.scan.attributes.get(PROBE_GUESS) == FROM_PATTERNS
    found = f"{diameter:.3g} px, {diameter / N:.0%} of the window"
    found += "; made from the mean pattern, because none was given" if guess else ""
    if diameter <= WIDE * N:
        return Check("probe size", "good", found)
    grade: Grade = "wrong" if diameter > FILLING * N else "doubtful"
    reason = "a probe that fills its window is cut off, and the patterns are too coarse to show it"
    return Check("probe size", grade, found, reason, "ptychopinn import --detector.size_px with more detector pixels")


def check_probe_far_field(numbers: ScanNumbers) -> Check:
    """Check the probe against the patterns: energy, and the correlation of its far field with the mean pattern."""
    scan = numbers.scan
    photons = float(numbers.mean.sum())
    ratio = float(probe_intensity(scan.probe).sum()) / photons if photons > 0 else float("nan")
    likeness = _likeness(numbers)
    found = f"far field and mean pattern correlate to {likeness:.2f}; energy {ratio:.3g} of the patterns'"
    if likeness > UNLIKE:
        return Check("probe far field", "good", found)
    grade: Grade = "wrong" if likeness < UNRELATED else "doubtful"
    reason = "the probe does not give such patterns: another pixel size, place, energy or detector window"
    fix = "import without a probe (--probe.optics none), and the reconstruction searches for it"
    return Check("probe far field", grade, found, reason, fix)


def check_training_domain(numbers: ScanNumbers) -> Check:
    """Check the conditions of the scan against those that the training of the shipped network covers."""
    scan = numbers.scan
    if scan.attributes.get(PROBE_GUESS) == FROM_PATTERNS:
        return Check("network", "good", "not compared before the probe is found")
    calibration = calibrate(scan, ModelConfig(N=scan.N))
    bundle = shipped_bundle()
    conditions = scan_conditions(scan, calibration.probe, calibration.photons_per_pattern)
    beyond = outside(conditions, training_domain_of(bundle.provenance, bundle.calibration))
    if not beyond:
        return Check("network", "good", "inside of the training of the shipped network")
    reason = "the shipped network was not trained for this"
    return Check("network", "doubtful", "; ".join(beyond), reason, "--start flat, or 'ptychopinn train' on this scan")


def check_axes(numbers: ScanNumbers) -> Check:
    """Check the axes of the positions: errors of the eight orientations on a block of patterns."""
    scan = numbers.scan
    try:
        calibration = calibrate(scan, ModelConfig(N=scan.N))
        errors = orientation_errors(central_part(scan, PATTERNS), calibration)
    except PtychoError as error:
        return Check("axes", "doubtful", "not ranked", first_line(error), "correct the checks above first")
    ranked = sorted(errors, key=lambda name: errors[name])
    best = ranked[0]
    found = ", ".join(f"{name} {errors[name] / errors[AS_GIVEN]:.2f}" for name in ranked[:3])
    found = f"errors over that as given: {found}"
    if errors[best] >= CLEARLY_BETTER * errors[AS_GIVEN]:
        # The twin explains patterns as well with the conjugate of a symmetric probe: it decides nothing.
        others = [error for name, error in errors.items() if name not in (AS_GIVEN, TWIN)]
        if min(others) > DISTINCT * errors[AS_GIVEN]:
            return Check("axes", "good", found)
        reason = "a block of patterns fits several orientations alike"
        return Check("axes", "doubtful", found, reason, "compare whole images with --inference.orientation NAME")
    reason = f"the patterns fit much better with {NAMES[best]}"
    return Check("axes", "wrong", found, reason, f"--inference.orientation={best}, or --inference.orientation auto")


def _likeness(numbers: ScanNumbers) -> float:
    """Return the correlation of the amplitudes of the probe's far field and of the mean pattern, both smoothed."""
    probe, good = numbers.scan.probe.astype(np.complex128), numbers.scan.mask
    images = (probe_intensity(far_field(probe)), numbers.mean)
    one, other = (np.sqrt(smoothed(smoothed(image * good))) for image in images)
    return _correlation(one[good], other[good])


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    one, other = one - one.mean(), other - other.mean()
    norm = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / norm if norm > 0 else 0.0
