"""``ptychopinn convert``: a model of PtychoPINN becomes a model of this package."""

from __future__ import annotations

import typing

from jsonargparse import Namespace

from ptycho_backend.commands.command_line import CommandLine
from ptycho_backend.commands.common import add_message_options
from ptycho_backend.commands.describe import model_rows
from ptycho_backend.commands.figures import show_rows
from ptycho_backend.commands.files import result_folder
from ptycho_backend.compat.predecessor.conversion import convert
from ptycho_backend.config import ModelConfig, fields_of
from ptycho_backend.model_file.bundle import FILE_NAME
from ptycho_backend.runtime.progress import Terminal

OVERRIDES = ("N", "gridsize", "amp_activation", "decoder_outputs")


def command_line() -> CommandLine:
    """Return the options."""
    line = CommandLine(
        "convert", "OLD NEW [options]", "Convert a model archive of PtychoPINN; nothing in it is executed."
    )
    line.add("old", nargs="?", metavar="OLD", help="PtychoPINN's wts.h5.zip, its folder, or a .keras file.")
    line.add("new", nargs="?", metavar="NEW", help="Run folder to write.")
    line.add("--overwrite", action="store_true", help="Replace a run that is there already.")
    kinds = fields_of(ModelConfig)
    for name in ("amp_activation", "decoder_outputs"):
        choices = typing.get_args(kinds[name])
        line.add(
            f"--{name.replace('_', '-')}", choices=choices, help="Where the archive does not say, or says wrongly."
        )
    for name in ("N", "gridsize"):
        line.add(f"--{name}", type=int, metavar="INT", help="Where the archive does not say.")
    line.add(
        "--intensity-scale",
        type=float,
        metavar="FLOAT",
        help="Root of photons per unit of normalised amplitude, likewise.",
    )
    add_message_options(line)
    return line


def run(options: Namespace, terminal: Terminal, line: CommandLine) -> None:
    """Convert, describe, and say what was assumed and left out."""
    old = line.require(options, "old", "OLD")
    new = line.require(options, "new", "NEW")
    given = {name: options[name] for name in OVERRIDES if options[name] is not None}
    with result_folder(new, options.overwrite) as folder:
        done = convert(old, folder, given, options.intensity_scale, overwrite=True)
        show_rows(terminal, f"Model, {folder}", model_rows(done.bundle, folder / FILE_NAME))
        left = done.bundle.provenance["converted_from"]["not_carried_over"]
        show_rows(terminal, "Notes", [("note", note) for note in done.notes])
        show_rows(terminal, "Settings that were not carried over", list(left.items()) or [("none", "")])
        terminal.show(f"\nNext: ptychopinn reconstruct SCAN --model {folder} --output FOLDER")
