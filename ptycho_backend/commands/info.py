"""``ptychopinn info``: describe a scan, a model or a reconstruction."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import Namespace

from ptycho_backend.commands.command_line import CommandLine
from ptycho_backend.commands.common import add_message_options
from ptycho_backend.commands.describe import Rows, model_rows, product_rows, scan_rows
from ptycho_backend.commands.figures import show_rows
from ptycho_backend.commands.files import add_selection_options, is_product, load
from ptycho_backend.data.product import read_product
from ptycho_backend.data.readers import existing_file
from ptycho_backend.model_file.bundle import FILE_NAME, read_bundle
from ptycho_backend.runtime.progress import Terminal


def command_line() -> CommandLine:
    """Return the options."""
    line = CommandLine("info", "FILE", "Describe a scan, a model or a reconstruction.")
    line.add("file", nargs="?", metavar="FILE", help="Scan, model file, run folder or reconstruction.")
    line.add("--patterns", metavar="FILE", help="HDF5 file with the patterns of a ptychodus product FILE.")
    add_selection_options(line)
    add_message_options(line)
    return line


def run(options: Namespace, terminal: Terminal, line: CommandLine) -> None:
    """Show the content of a file."""
    path = Path(line.require(options, "file", "FILE"))
    kind, rows = described(path, options)
    show_rows(terminal, f"{kind}, {path}", rows)


def described(path: Path, options: Namespace) -> tuple[str, Rows]:
    """Return the kind and the content of a file."""
    if path.is_dir() or path.suffix.lower() == ".zip":
        archive = path / FILE_NAME if (path / FILE_NAME).is_file() else path
        hashed = archive if archive.is_file() else path / "weights.h5"
        return "Model", model_rows(read_bundle(path), hashed)
    if options.patterns is None and is_product(existing_file(path)):
        return "Reconstruction", product_rows(read_product(path), path)
    return "Scan", scan_rows(load(options, path))
