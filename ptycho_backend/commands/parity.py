"""``ptychopinn parity``: compare the engines of this machine with the NumPy reference."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from ptycho_backend.commands.command_line import CommandLine
from ptycho_backend.commands.common import add_message_options
from ptycho_backend.commands.engines import captured_library_messages
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
FAILURE = 1


def command_line() -> CommandLine:
    """Return the options."""
    line = CommandLine("parity", "[SCAN] [options]", "Compare the engines of this machine with the NumPy reference.")
    add_scan_options(line)
    line.add(
        "--backend", action="append", metavar="NAME", help="Engine to check; repeatable. All installed ones without it."
    )
    line.add("--device", default="all", help='Device: "cpu", "cuda", "auto", or "all" devices of an engine.')
    line.add(
        "--json", metavar="FILE", help="JSON file for all figures, versions and the machine; replaced if it exists."
    )
    line.add("--seed", type=int, default=0, help="Seed of all random inputs.")
    line.add("--quick", action="store_true", help="Skip the checks that build a model or train.")
    add_message_options(line)
    return line


def run(options: Namespace, terminal: Terminal, line: CommandLine) -> int:
    """Run the checks, show and write the report; return 1 for a failed check."""
    started = time.perf_counter()
    target = None if options.json is None else check_new_file(options.json, ".json", overwrite=True)
    scan = None if options.scan is None else load(options, options.scan)
    names = options.backend or list(available_backends())
    with captured_library_messages(terminal):
        for name in names:
            get_backend(name).devices()
    if not names:
        raise PtychoError(
            "The checks need an engine.",
            expected="at least one installed engine",
            received="none",
            fix="'ptychopinn backends' shows how to install one",
        )
    from ptycho_backend.testing.parity import run_parity

    # Every check builds a model, and TensorFlow warns about many traced functions.
    with terminal.progress() as on_event, filtered_logs("tensorflow", level=logging.ERROR):
        report = run_parity(names, options.device, scan, options.seed, options.quick, on_event)
    show(report, terminal, time.perf_counter() - started)
    if target is not None:
        report.write(target)
        terminal.show(f"Written to {target}")
    return 0 if report.passed else FAILURE


def show(report: Report, terminal: Terminal, duration_s: float) -> None:
    """Show one line for every check, and a summary."""
    terminal.show(table(report.rows))
    for row in report.failed:
        reason = row.message or f"error {number(row.error, '.2e')}, allowed {number(row.tolerance, '.2e')}"
        logger.warning("not passed: %s (%s), %s on %s: %s", row.check, row.clause, row.engine, row.device, reason)
    devices = ", ".join(dict.fromkeys(f"{row.engine} on {row.device}" for row in report.rows if "," not in row.engine))
    total, failed = len(report.rows), len(report.failed)
    summary = f"{failed} of {total} checks not passed" if failed else f"All {total} checks passed"
    text = f"{summary}: {devices} ({seconds(duration_s)}, seed {report.seed})"
    terminal.show(text, "bold red" if failed else "bold")


def table(rows: tuple[Row, ...]) -> Text:
    """Return the rows in columns, without line breaks, so that a log can be searched."""
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
