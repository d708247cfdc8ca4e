"""``ptychopinn migrate``: a configuration of PtychoPINN becomes one of this package."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import Namespace

from ptycho_backend.commands.command_line import CommandLine
from ptycho_backend.commands.common import add_message_options
from ptycho_backend.commands.figures import show_rows
from ptycho_backend.commands.files import check_new_file
from ptycho_backend.compat.predecessor.migration import Fate, Migration, migrate
from ptycho_backend.data.output import atomic_path
from ptycho_backend.runtime.progress import Terminal
from ptycho_backend.runtime.yaml_files import read_yaml


def command_line() -> CommandLine:
    """Return the options."""
    line = CommandLine(
        "migrate", "OLD.yaml [--output NEW.yaml]", "Translate a configuration of PtychoPINN, and report on it."
    )
    line.add("old", nargs="?", metavar="OLD.yaml", help="Flat, with dotted keys, or nested in sections.")
    line.add("--output", "-o", metavar="PATH", help="YAML file to write; without it, the new configuration is printed.")
    line.add("--overwrite", action="store_true", help="Replace a file that is there already.")
    add_message_options(line)
    return line


def run(options: Namespace, terminal: Terminal, line: CommandLine) -> None:
    """Read, translate, write or print, report."""
    old = line.require(options, "old", "OLD.yaml")
    output = check_new_file(options.output, ".yaml", options.overwrite) if options.output else None
    done = migrate(read_yaml(old))
    text = yaml_text(done, old)
    if output is None:
        terminal.out.print(text.rstrip(), markup=False, soft_wrap=True)
        return
    with atomic_path(output, options.overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")
    carried = [(fate.old or "(default)", told(fate)) for fate in done.fates if fate.new]
    show_rows(terminal, f"Carried over into {output}", carried)
    left = [(fate.old, f"{fate.value!r}: {fate.note}") for fate in done.left_out]
    show_rows(terminal, "Not carried over", left or [("nothing", "")])
    terminal.show(f"\nNext: ptychopinn train SCAN --config {output} --output FOLDER")


def told(fate: Fate) -> str:
    """Return where an option went, with its value."""
    return f"{fate.new} = {fate.value!r}" + (f" ({fate.note})" if fate.note else "")


def yaml_text(done: Migration, source: str) -> str:
    """Return a configuration with what could not be carried over as comments."""
    import yaml

    lines = [f"# Translated from {Path(source).name} by 'ptychopinn migrate'."]
    lines += [f"# Not carried over: {fate.old} = {fate.value!r}: {fate.note}" for fate in done.left_out]
    comments = [" ".join(line.split()) for line in lines]
    return "\n".join([*comments, yaml.safe_dump(done.values, sort_keys=False)])
