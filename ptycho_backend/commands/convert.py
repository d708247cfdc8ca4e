"""``ptychopinn convert``: convert a model archive of PtychoPINN."""

from __future__ import annotations

import typing
from pathlib import Path

from jsonargparse import Namespace

from ptycho_backend.commands.command_line import CommandLine
from ptycho_backend.commands.common import add_message_options
from ptycho_backend.commands.describe import model_rows
from ptycho_backend.commands.figures import show_rows
from ptycho_backend.commands.files import TRAINING, result_folder
from ptycho_backend.compat.predecessor.conversion import convert
from ptycho_backend.config import ModelConfig
from ptycho_backend.model_file.bundle import FILE_NAME
from ptycho_backend.runtime.progress import Terminal

OVERRIDES = {
    "amp_activation": "Activation of the amplitude head, if the archive lacks it or is wrong.",
    "decoder_outputs": "Quantities that the two decoders predict, if the archive lacks them or is wrong.",
    "N": "Side of a pattern in pixels, if the archive lacks it.",
    "gridsize": "Side of a group in positions, if the archive lacks it.",
}


def command_line() -> CommandLine:
    """Return the options."""
    line = CommandLine(
        "convert", "OLD NEW [options]", "Convert a model archive of PtychoPINN, without running code in it."
    )
    line.add("old", nargs="?", metavar="OLD", help="PtychoPINN's wts.h5.zip, its folder, or a .keras file.")
    line.add("new", nargs="?", metavar="NEW", help="Run folder to write.")
    line.add("--overwrite", action="store_true", help="Replace an earlier run.")
    types = typing.get_type_hints(ModelConfig)
    for name, text in OVERRIDES.items():
        line.add(f"--{name.replace('_', '-')}", type=types[name], help=text)
    line.add(
        "--intensity-scale",
        type=float,
        help="Root of photons per unit of normalised amplitude, if the archive lacks it.",
    )
    add_message_options(line)
    return line


def run(options: Namespace, terminal: Terminal, line: CommandLine) -> None:
    """Convert the archive, and describe the model, the assumptions and the ignored settings."""
    old = line.require(options, "old", "OLD")
    new = line.require(options, "new", "NEW")
    given = {name: options[name] for name in OVERRIDES if options[name] is not None}
    with result_folder(new, options.overwrite, TRAINING) as folder:
        conversion = convert(old, folder, given, options.intensity_scale, overwrite=True)
    show_rows(terminal, f"Model, {new}", model_rows(conversion.bundle, Path(new) / FILE_NAME))
    ignored = conversion.bundle.provenance["converted_from"]["not_carried_over"]
    show_rows(terminal, "Notes", [("note", note) for note in conversion.notes])
    show_rows(terminal, "Settings that were not carried over", list(ignored.items()) or [("none", "")])
    terminal.show(f"\nNext: ptychopinn reconstruct SCAN --model {new} --output FOLDER")
