"""Report of a scan: a list of checks, each good, doubtful or wrong, with its number, reason and remedy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ptycho_backend.data.odd_frames import odd_frames
from ptycho_backend.data.scan import Scan
from ptycho_backend.quality import scan_checks, scan_checks_positions, scan_checks_probe, scan_checks_raster
from ptycho_backend.quality.scan_check import GRADES, Check, Grade, ScanNumbers

FRAMES, NETWORK, AXES = "frames", "network", "axes"
CHECKS: dict[str, Callable[[ScanNumbers], Check]] = {
    "unit": scan_checks.check_unit,
    "saturation": scan_checks.check_saturation,
    "bad pixels": scan_checks.check_pixels,
    "background": scan_checks.check_background,
    "zero frequency": scan_checks.check_zero_frequency,
    FRAMES: scan_checks.check_frames,
    "position unit": scan_checks_positions.check_position_unit,
    "duplicates": scan_checks_positions.check_duplicates,
    "strays": scan_checks_positions.check_strays,
    "regions": scan_checks_positions.check_regions,
    "drift": scan_checks_raster.check_drift,
    "overlap": scan_checks_positions.check_overlap,
    "canvas": scan_checks_positions.check_canvas_size,
    "probe place": scan_checks_probe.check_probe_place,
    "probe size": scan_checks_probe.check_probe_size,
    "probe far field": scan_checks_probe.check_probe_far_field,
    NETWORK: scan_checks_probe.check_training_domain,
    AXES: scan_checks_probe.check_axes,
}
# Other code warns of these while a scan is loaded or reconstructed.
WARNED_ELSEWHERE = ("bad pixels", FRAMES, NETWORK)


@dataclass(frozen=True)
class ScanReport:
    """
    Checks of a scan.

    Parameters
    ----------
    checks : tuple of Check
    """

    checks: tuple[Check, ...]

    @property
    def worst(self) -> Grade:
        """Worst grade of all checks."""
        return max((check.grade for check in self.checks), key=GRADES.index, default="good")

    def of(self, *grades: Grade) -> list[Check]:
        """Return the checks with some grades."""
        return [check for check in self.checks if check.grade in grades]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: the worst grade, and the checks as a list."""
        return {"worst": self.worst, "checks": [check.to_dict() for check in self.checks]}

    def rows(self) -> list[tuple[str, str]]:
        """Return names and texts for a table on a terminal."""
        return [(check.name, text_of(check)) for check in self.checks]


def scan_report(scan: Scan, *, orientation: bool = False, skip: tuple[str, ...] = ()) -> ScanReport:
    """
    Check a scan for common faults, before any reconstruction.

    Parameters
    ----------
    scan : Scan
        Large stacks are read in part, except for the check of odd frames.
    orientation : bool
        Rank the eight orientations of the positions with the solver, on a block of patterns. It takes seconds.
    skip : tuple of str
        Names of checks that are left out.

    Returns
    -------
    ScanReport

    Notes
    -----
    Spec: data 13.
    """
    numbers = ScanNumbers(scan, None if FRAMES in skip else odd_frames(scan))
    left_out = {*skip, *(() if orientation else (AXES,))}
    return ScanReport(tuple(check(numbers) for name, check in CHECKS.items() if name not in left_out))


def text_of(check: Check) -> str:
    """Return grade, number, reason and remedy of a check on one line."""
    if check.grade == "good":
        return f"good: {check.found}"
    return f"{check.grade.upper()}: {check.found}. {check.reason[:1].upper()}{check.reason[1:]}. Fix: {check.fix}"
