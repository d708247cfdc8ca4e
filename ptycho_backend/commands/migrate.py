"""``ptychopinn migrate``: translate a configuration of PtychoPINN."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import Namespace

from ptycho_backend.commands.command_line import CommandLine
from ptycho_backend.commands.common import add_message_options
from ptycho_backend.commands.figures import show_rows
from ptycho_backend.commands.files import check_new_file
from ptycho_backend.compat.predecessor.migration import Migration, TranslatedOption, migrate
from ptycho_backend.data.output import atomic_path
from ptycho_backend.runtime.progress import Terminal
from ptycho_backend.runtime.yaml_files import read_yaml


def command_line() -> CommandLine:
    """Return the options."""
    line = CommandLine(
        "migrate", "OLD.yaml [--output NEW.yaml]", "Translate a configuration of PtychoPINN, with a report."
    )
    line.add("old", nargs="?", metavar="OLD.yaml", help="Configuration: flat, with dotted keys, or nested in sections.")
    line.add("--output", "-o", metavar="PATH", help="YAML file to write; without it the translation is printed.")
    line.add("--overwrite", action="store_true", help="Replace an earlier file.")
    add_message_options(line)
    return line


def run(options: Namespace, terminal: Terminal, line: CommandLine) -> None:
    """Translate a configuration, write or print it, and report every option."""
    old = line.require(options, "old", "OLD.yaml")
    output = check_new_file(options.output, ".yaml", options.overwrite) if options.output else None
    migration = migrate(read_yaml(old))
    text = yaml_text(migration, old)
    if output is None:
        terminal.out.print(text.rstrip(), markup=False, soft_wrap=True)
        return
    with atomic_path(output, options.overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")
    carried = [(option.old or "(default)", new_setting(option)) for option in migration.options if option.new]
    show_rows(terminal, f"Carried over into {output}", carried)
    ignored = [(option.old, f"{option.value!r}: {option.note}") for option in migration.left_out]
    show_rows(terminal, "Not carried over", ignored or [("nothing", "")])
    terminal.show(f"\nNext: ptychopinn train SCAN --config {output} --output FOLDER")


def new_setting(option: TranslatedOption) -> str:
    """Return the new name and value of an option."""
    return f"{option.new} = {option.value!r}" + (f" ({option.note})" if option.note else "")


def yaml_text(migration: Migration, source: str) -> str:
    """Return a translated configuration, with the ignored options as comments."""
    import yaml

    lines = [f"# Translated from {Path(source).name} by 'ptychopinn migrate'."]
    lines += [f"# Not carried over: {option.old} = {option.value!r}: {option.note}" for option in migration.left_out]
    comments = [" ".join(line.split()) for line in lines]
    return "\n".join([*comments, yaml.safe_dump(migration.values, sort_keys=False)])
