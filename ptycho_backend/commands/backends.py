"""``ptychopinn backends``: list the engines and their devices."""

from __future__ import annotations

from typing import NamedTuple

from jsonargparse import Namespace

from ptycho_backend.commands.command_line import CommandLine
from ptycho_backend.commands.common import add_message_options
from ptycho_backend.commands.engines import captured_library_messages
from ptycho_backend.engines.registry import FRAMEWORKS, NUMPY, get_backend, missing_packages, registered_backends
from ptycho_backend.errors import PtychoError
from ptycho_backend.runtime.progress import Terminal


class Engine(NamedTuple):
    """One line of the table."""

    name: str
    state: str
    versions: str
    devices: str
    install: str


def command_line() -> CommandLine:
    """Return the options."""
    line = CommandLine("backends", "", "List the engines, their versions and their devices.")
    add_message_options(line)
    return line


def run(options: Namespace, terminal: Terminal, line: CommandLine) -> None:
    """Show a table of the engines, and the commands that install missing ones."""
    from rich.table import Table

    table = Table(box=None, header_style="cyan", pad_edge=False)
    for heading in ("engine", "installed", "versions", "devices"):
        table.add_column(heading, overflow="fold")
    with captured_library_messages(terminal):
        engines = [engine_of(name) for name in (*registered_backends(), NUMPY)]
    for engine in engines:
        table.add_row(engine.name, engine.state, engine.versions, engine.devices)
    terminal.show(table)
    for engine in engines:
        if engine.install:
            terminal.show(f"To install '{engine.name}': {engine.install}")


def engine_of(name: str) -> Engine:
    """Return the line of an engine; an error at its import becomes the state "unusable"."""
    _, extra = FRAMEWORKS.get(name, ((), ""))
    missing = missing_packages(name)
    if missing:
        return Engine(name, "no", f"missing: {', '.join(missing)}", "", f"pip install 'ptychopinn[{extra}]'")
    try:
        backend = get_backend(name)
        versions = ", ".join(f"{package} {version}" for package, version in backend.versions().items())
        return Engine(name, "yes", versions, ", ".join(backend.devices()), "")
    except PtychoError as error:
        return Engine(name, "unusable", f"{error.rule} {error.fix}", "", "")
    except Exception as error:  # a broken framework may raise anything at import
        return Engine(name, "unusable", f"{type(error).__name__}: {error}", "", "")
