"""``ptychopinn info``: describe and check a scan; describe a model, a reconstruction or a folder of results."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from ptycho_backend.commands.command_line import CommandLine
from ptycho_backend.commands.common import add_message_options
from ptycho_backend.commands.describe import Rows, model_rows, product_rows, scan_rows
from ptycho_backend.commands.figures import show_rows
from ptycho_backend.commands.files import add_selection_options, is_product, read_scan
from ptycho_backend.commands.folders import Part, folder_kind, folder_parts
from ptycho_backend.commands.json_output import show_json
from ptycho_backend.commands.scan_checks import add_strict_option, require_good, show_report
from ptycho_backend.data.product import read_product
from ptycho_backend.data.readers import existing_file
from ptycho_backend.data.run_folder import after_swap
from ptycho_backend.data.scan import Scan
from ptycho_backend.data.selection import examined
from ptycho_backend.errors import DataError
from ptycho_backend.model_file.bundle import read_bundle
from ptycho_backend.model_file.run import without_nan
from ptycho_backend.quality.scan_report import ScanReport, scan_report
from ptycho_backend.runtime.progress import Terminal


@dataclass(frozen=True, eq=False)
class Described:
    """
    Content of a file or folder.

    Parameters
    ----------
    kind : str
        Kind of the file.
    parts : list of (str, rows)
        Titles and rows; one part without a title for a file.
    scan : Scan, optional
        Scan, if it is one.
    report : ScanReport, optional
        Checks of a scan.
    """

    kind: str
    parts: list[Part] = field(default_factory=list)
    scan: Scan | None = None
    report: ScanReport | None = None

    def to_dict(self, path: Path) -> dict[str, Any]:
        """Return plain values for JSON."""
        values: dict[str, Any] = {"kind": self.kind.lower(), "file": str(path)}
        for title, rows in self.parts:
            values[title.lower() or "rows"] = _by_name(rows)
        return without_nan(values | (self.report.to_dict() if self.report else {}))


def command_line() -> CommandLine:
    """Return the options."""
    line = CommandLine(
        "info", "FILE [options]", "Describe and check a scan; describe a model, a reconstruction or their folder."
    )
    line.add("file", nargs="?", metavar="FILE", help="Scan, model file, run folder, reconstruction or its folder.")
    line.add("--patterns", metavar="FILE", help="HDF5 file with the patterns of a ptychodus product FILE.")
    line.add("--json", action="store_true", help="Print one JSON document with all rows and checks.")
    text = "Rank the eight orientations of the axes with the solver, on a block of patterns. It takes seconds."
    line.add("--axes", action="store_true", help=text)
    add_strict_option(line, "Exit status 1 if a check of the scan is wrong.")
    add_selection_options(line)
    add_message_options(line)
    return line


def run(options: Namespace, terminal: Terminal, line: CommandLine) -> None:
    """Show the content of a file."""
    path = Path(line.require(options, "file", "FILE"))
    content = described(path, options)
    if options.json:
        show_json(terminal, content.to_dict(path))
    else:
        for number, (title, rows) in enumerate(content.parts):
            if number:
                terminal.show()
            show_rows(terminal, title if number else f"{content.kind}, {path}", rows)
        if content.report is not None:
            show_report(terminal, content.report)
    if options.strict and content.scan is not None and content.report is not None:
        require_good(content.scan, content.report.of("wrong"))


def described(path: Path, options: Namespace) -> Described:
    """Return the kind and the content of a file or folder."""
    path = after_swap(path)
    if path.is_dir():
        parts = folder_parts(path)
        return Described(folder_kind(parts), parts)
    if path.suffix.lower() == ".zip":
        return Described("Model", [("", model_rows(read_bundle(path), path))])
    if options.patterns is None and is_product(existing_file(path)):
        return Described("Reconstruction", [("", product_rows(read_product(path), path))])
    scan = read_scan(options, path)
    report = scan_report(scan, orientation=options.axes)
    try:
        used = examined(scan)
    except DataError:  # hardly any usable pattern: the check of the frames gives the numbers
        used = scan
    return Described("Scan", [("", scan_rows(used))], scan, report)


def _by_name(rows: Rows) -> dict[str, Any]:
    """Return rows by name; several rows of one name become a list."""
    names = [name for name, _ in rows]
    return {
        name: value if names.count(name) == 1 else [other for key, other in rows if key == name] for name, value in rows
    }
