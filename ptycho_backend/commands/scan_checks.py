"""Checks of a scan on the command line: a table, and warnings or errors before a reconstruction or training."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ptycho_backend.commands.figures import show_rows
from ptycho_backend.commands.files import read_scan
from ptycho_backend.data.scan import Scan
from ptycho_backend.data.selection import examined
from ptycho_backend.errors import DataError
from ptycho_backend.quality.scan_check import Check
from ptycho_backend.quality.scan_report import NETWORK, WARNED_ELSEWHERE, ScanReport, scan_report, text_of
from ptycho_backend.runtime.progress import Terminal
from ptycho_backend.solver.canvas import check_canvas

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from ptycho_backend.commands.command_line import CommandLine

logger = logging.getLogger(__name__)


def add_strict_option(line: CommandLine, description: str) -> None:
    """Add the option that makes faults of a scan errors."""
    line.add("--strict", action="store_true", help=description)


def load_checked(options: Namespace, path: Path | str) -> Scan:
    """
    Load and check a scan for a reconstruction or a training.

    Checks that are not good become warnings, or with `--strict` an error. Without it, checks of which other code
    warns are left out.

    Raises
    ------
    ConfigError
        If `--exclude` is no list of numbers.
    DataError, ShapeError
        If the file breaks a rule, the canvas does not fit in memory, or with `--strict` a check is not good.
    """
    scan = read_scan(options, path)
    check_canvas(scan)
    if options.strict:
        require_good(scan, scan_report(scan, skip=(NETWORK,)).of("doubtful", "wrong"))
        return examined(scan)
    scan = examined(scan)
    for check in scan_report(scan, skip=WARNED_ELSEWHERE).of("doubtful", "wrong"):
        logger.warning("'%s': %s: %s", scan.source, check.name, text_of(check))
    return scan


def require_good(scan: Scan, faults: list[Check]) -> None:
    """
    Check that no fault of a scan was found.

    Raises
    ------
    DataError
        If there are faults.
    """
    if not faults:
        return
    raise DataError(
        "With --strict a scan has no faults.",
        expected="every check good",
        received="; ".join(f"{check.name}: {check.grade}, {check.found}" for check in faults) + f", in '{scan.source}'",
        fix="; ".join(check.fix for check in faults) + "; or leave out --strict",
    )


def show_report(terminal: Terminal, report: ScanReport) -> None:
    """Show the checks of a scan as a table."""
    doubtful, wrong = len(report.of("doubtful")), len(report.of("wrong"))
    summary = f"{wrong} wrong, {doubtful} doubtful" if wrong or doubtful else "all good"
    terminal.show()
    show_rows(terminal, f"Checks: {summary}", report.rows())
