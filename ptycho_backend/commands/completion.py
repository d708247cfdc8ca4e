"""Completion of commands and options in a shell, as a script of the package `shtab`."""

from __future__ import annotations

import argparse

from ptycho_backend._version import __version__
from ptycho_backend.commands import COMMANDS, command_module
from ptycho_backend.commands.command_line import CommandLine
from ptycho_backend.commands.help import choices, hyphens
from ptycho_backend.errors import ConfigError

SHELLS = ("bash", "zsh", "tcsh")
FILE_NAMES = ("SCAN", "FILE", "FILES", "PATH", "OLD", "NEW", "OLD.yaml", "REFERENCE", "RECONSTRUCTION.h5")


def script(shell: str) -> str:
    """
    Return the completion script of a shell.

    Parameters
    ----------
    shell : {"bash", "zsh", "tcsh"}

    Raises
    ------
    ConfigError
        For another shell.
    """
    import shtab

    if shell not in SHELLS:
        raise ConfigError.unknown("shell", shell, SHELLS, f"'--completion {shell}'")
    text: str = shtab.complete(_parser(), shell)
    return text


def _parser() -> argparse.ArgumentParser:
    """Return a parser of all commands, for completion only."""
    program = argparse.ArgumentParser("ptychopinn", add_help=False)
    program.add_argument("--help", action="store_true", help="Show the commands.")
    program.add_argument("--version", action="store_true", help=f"Show the version, now {__version__}.")
    program.add_argument("--completion", choices=SHELLS, help="Print the completion of a shell.")
    commands = program.add_subparsers()
    for name, summary in COMMANDS.items():
        _add_options(commands.add_parser(name, help=summary, add_help=False), command_module(name).command_line())
    return program


def _add_options(parser: argparse.ArgumentParser, line: CommandLine) -> None:
    import shtab

    for action in line.actions():
        names = [hyphens(name) for name in action.option_strings if not name.endswith("+")]
        help_text = (action.help or "").partition(". ")[0].replace("%", "%%")
        if not names:
            added = parser.add_argument(action.dest, nargs=action.nargs, help=help_text)
        elif action.nargs == 0:
            parser.add_argument(*names, action="store_true", help=help_text)
            continue
        else:
            added = parser.add_argument(*names, choices=choices(line.type_of(action)) or None, help=help_text)
        if action.metavar in FILE_NAMES:
            added.complete = shtab.FILE  # type: ignore[attr-defined]
