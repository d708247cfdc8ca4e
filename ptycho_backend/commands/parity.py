"""``ptychopinn parity``: proof that the engines compute what the reference computes, on this machine."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from ptycho_backend.commands.command_line import CommandLine
from ptycho_backend.commands.common import add_message_options
from ptycho_backend.commands.engines import started_quietly
from ptycho_backend.commands.figures import number, seconds
from ptycho_backend.commands.files import add_scan_options, check_new_file, load
from ptycho_backend.engines.registry import available_backends, get_backend
from ptycho_backend.errors import PtychoError
from ptycho_backend.runtime.log_filters import filtered_logs
from ptycho_backend.runtime.progress import Terminal

if TYPE_CHECKING:
    from rich.text import Text

    from ptycho_backend.testing.parity import Report, Row

logger = logging.getLogger(__name__)

HEADINGS = ("clause", "check", "engine", "device", "error", "tolerance", "passed")
MISSED = 1


def command_line() -> CommandLine:
    """Return the options."""
    line = CommandLine(
        "parity", "[SCAN] [options]", "Check that the engines here compute what the NumPy reference computes."
    )
    add_scan_options(line)
    line.add("--backend", action="append", metavar="NAME", help="Engine to check, repeatable (default: all installed).")
    line.add("--device", default="all", metavar="NAME", help="cpu, cuda, auto, or all that an engine sees (default).")
    line.add("--json", metavar="FILE", help="Write all figures, versions and the machine as JSON; replaces the file.")
    line.add("--seed", type=int, default=0, metavar="INT", help="All inputs are drawn from it (default: 0).")
    line.add("--quick", action="store_true", help="Leave out whatever builds a model or trains.")
    add_message_options(line)
    return line


def run(options: Namespace, terminal: Terminal, line: CommandLine) -> int:
    """Check, show, write; return 1 if a check has not passed."""
    started = time.perf_counter()
    target = None if options.json is None else check_new_file(options.json, ".json", overwrite=True)
    scan = None if options.scan is None else load(options, options.scan)
    names = options.backend or list(available_backends())
    with started_quietly(terminal):
        for name in names:
            get_backend(name).devices()
    if not names:
        raise _no_engine()
    from ptycho_backend.testing.parity import run_parity

    # Every check asks a model of its own, and TensorFlow advises to build fewer graphs.
    with terminal.progress() as on_event, filtered_logs("tensorflow", level=logging.ERROR):
        report = run_parity(names, options.device, scan, options.seed, options.quick, on_event)
    show(report, terminal, time.perf_counter() - started)
    if target is not None:
        report.write(target)
        terminal.show(f"Written to {target}")
    return 0 if report.passed else MISSED


def show(report: Report, terminal: Terminal, took: float) -> None:
    """Show one line for every check, and one that sums them up."""
    terminal.show(table(report.rows))
    for row in report.missed:
        reason = row.message or f"error {number(row.error, '.2e')}, allowed {number(row.tolerance, '.2e')}"
        logger.warning("not passed: %s (%s), %s on %s: %s", row.check, row.clause, row.engine, row.device, reason)
    places = ", ".join(dict.fromkeys(f"{row.engine} on {row.device}" for row in report.rows if "," not in row.engine))
    total, missed = len(report.rows), len(report.missed)
    verdict = f"{missed} of {total} checks not passed" if missed else f"All {total} checks passed"
    terminal.show(f"{verdict}: {places} ({seconds(took)}, seed {report.seed})", "bold red" if missed else "bold")


def table(rows: tuple[Row, ...]) -> Text:
    """Return the rows in columns; lines are never wrapped, so that a log can be searched."""
    from rich.text import Text

    cells = [HEADINGS, *map(_cells, rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    text = Text(lines[0], "cyan")
    for row, written in zip(rows, lines[1:], strict=True):
        text.append("\n").append(written, "" if row.passed else "bold red")
    return text


def _cells(row: Row) -> tuple[str, ...]:
    figures = number(row.error, ".1e"), number(row.tolerance, ".1e")
    return (row.clause, row.check, row.engine, row.device, *figures, "yes" if row.passed else "NO")


def _no_engine() -> PtychoError:
    return PtychoError(
        "There is no engine to check.",
        expected="at least one installed engine",
        received="none",
        fix="'ptychopinn backends' says how to install one",
    )
