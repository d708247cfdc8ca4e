"""``ptychopinn import``: make a scan file from files of any layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from ptycho_backend.commands.command_line import CommandLine
from ptycho_backend.commands.common import add_config_options, add_message_options, add_output_options
from ptycho_backend.commands.describe import scan_rows
from ptycho_backend.commands.figures import show_rows
from ptycho_backend.commands.files import check_new_file
from ptycho_backend.config import from_dict
from ptycho_backend.data.readers import HDF5, NPZ
from ptycho_backend.importing.convert import describe, import_layout, output_of
from ptycho_backend.importing.description import ImportConfig
from ptycho_backend.importing.layout import layout_of
from ptycho_backend.importing.presets import presets
from ptycho_backend.runtime.progress import Terminal

SECTIONS = ("patterns", "positions", "geometry", "detector", "probe")


def command_line() -> CommandLine:
    """Return the options."""
    line = CommandLine(
        "import",
        "FILES... --output SCAN.h5 [--preset NAME] [options]",
        "Make a scan file from files of any layout. An address is FILE, or FILE.h5:/name for an array in it.",
    )
    line.add("files", nargs="*", default=[], metavar="FILES", help="Files with the patterns, in the order of the scan.")
    line.add_section("", ImportConfig, "Layout")
    add_output_options(line, "HDF5 or NPZ file to write")
    line.add("--presets", action="store_true", help="List the known layouts, and stop.")
    line.add("--no-progress", action="store_true", help="Show no progress bar.")
    add_config_options(line)
    add_message_options(line)
    line.usual = (
        *("--preset", "--presets", "--patterns.dataset"),
        *("--positions.y", "--positions.x", "--positions.text", "--positions.unit"),
        *("--geometry.energy_kev", "--geometry.distance_m", "--geometry.detector_pixel_m"),
        *("--output", "--overwrite", "--print-config"),
    )
    return line


def configs(options: Namespace) -> ImportConfig:
    """Return the content of ``--print_config``: the description, completed by the preset of the files."""
    config = description(options)
    return layout_of(options.files, config).config if options.files else config


def description(options: Namespace) -> ImportConfig:
    """Return the description that the options give."""
    values: dict[str, Any] = {"preset": options.preset}
    values |= {section: options[section].as_dict() for section in SECTIONS}
    return from_dict(ImportConfig, values, source=options.source)


def run(options: Namespace, terminal: Terminal, line: CommandLine) -> None:
    """Convert the files, and describe the scan."""
    if options.presets:
        show_rows(terminal, "Layouts", [(name, preset.title) for name, preset in presets().items()])
        return
    output = Path(line.require(options, "output", "--output SCAN.h5"))
    if output.suffix.lower() not in (*HDF5, *NPZ):
        output = check_new_file(str(output), HDF5[0], options.overwrite)
    check_new_file(str(output), output.suffix.lower(), options.overwrite)
    layout = layout_of(options.files, description(options))
    target = output_of(layout, output, options.overwrite)
    described = None if layout.by_load_scan else describe(layout)
    with terminal.progress(not options.no_progress) as on_event:
        scan = import_layout(layout, described, target, options.overwrite, on_event)
    title = f"layout '{layout.preset.name}'" if layout.preset else "layout as described"
    notes = described.notes if described else []
    show_rows(terminal, f"Imported scan, {output}", [("layout", title), *(("note", note) for note in notes)])
    show_rows(terminal, "Scan", scan_rows(scan))
    terminal.show(f"\nNext: ptychopinn info {output}, then ptychopinn reconstruct {output} --output FOLDER")
