"""
The program ``ptychopinn``.

Exit status: 0 for success, 1 for a failure, 2 for a wrong command line or configuration.
Ctrl-C gives 130, SIGTERM 143.
The program imports only the module of the given command, and a framework only on first use.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TextIO

from ptycho_backend._version import __version__
from ptycho_backend.commands import COMMANDS, MODULES
from ptycho_backend.errors import (
    ConfigError,
    DeprecatedNameWarning,
    InertOptionWarning,
    PtychoError,
    TrainingStopped,
    UnknownBackendError,
    first_line,
)

if TYPE_CHECKING:
    from ptycho_backend.runtime.progress import Terminal

SUCCESS, FAILURE, MISUSE = 0, 1, 2
HELP = "'ptychopinn --help' describes the commands"
PACKAGES = ("ptycho_backend", "ptycho", "ptycho_torch")
SHOWN_WARNINGS = (InertOptionWarning, DeprecatedNameWarning)


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run a command and return its exit status.

    Parameters
    ----------
    argv : list of str, optional
        Arguments after the program's name; None takes those of the process.
    """
    from ptycho_backend.commands.files import Interrupted
    from ptycho_backend.runtime.progress import Terminal

    arguments = list(sys.argv[1:] if argv is None else argv)
    terminal = Terminal(quiet="--quiet" in arguments, debug="--debug" in arguments)
    with _logging_to(terminal):
        try:
            with _sigint_raises():
                return _dispatch(arguments, terminal)
        except (Interrupted, KeyboardInterrupt) as stop:
            terminal.write("Interrupted", getattr(stop, "saved", ""), "bold red")
            return 128 + getattr(stop, "signal", signal.SIGINT)
        except TrainingStopped as stop:
            terminal.write("Interrupted", f"{stop.received}; {stop.fix}", "bold red")
            return 128 + stop.signal
        except PtychoError as error:
            terminal.report_error(type(error).__name__, str(error))
            return MISUSE if isinstance(error, (ConfigError, UnknownBackendError)) else FAILURE
        except Exception as error:
            hint = "" if terminal.debug else " (run again with --debug for the traceback)"
            terminal.report_error(type(error).__name__, f"{first_line(error)}{hint}")
            return FAILURE


def _dispatch(arguments: list[str], terminal: Terminal) -> int:
    """Run a command and return its exit status."""
    command = arguments[0] if arguments else ""
    if command in ("-h", "--help"):
        terminal.out.print(_overview(), markup=False)
    elif command == "--version":
        terminal.out.print(f"ptychopinn {__version__}", markup=False)
    elif command in COMMANDS:
        return _run(command, arguments[1:], terminal)
    elif command:
        raise ConfigError.unknown("command", command, COMMANDS, otherwise=HELP)
    else:
        raise ConfigError("A command is needed.", f"one of {', '.join(COMMANDS)}", "no command", HELP)
    return SUCCESS


def _run(command: str, arguments: list[str], terminal: Terminal) -> int:
    from importlib import import_module

    module = import_module(f"ptycho_backend.commands.{MODULES.get(command, command)}")
    line = module.command_line()
    if {"-h", "--help"} & set(arguments):
        terminal.out.print(line.parser.format_help().rstrip(), markup=False, soft_wrap=True)
        return SUCCESS
    options = line.parse(arguments)
    if options.get("print_config"):
        from ptycho_backend.commands.common import yaml_text

        terminal.out.print(yaml_text(module.configs(options)), markup=False, soft_wrap=True)
        return SUCCESS
    return int(module.run(options, terminal, line) or SUCCESS)


def _overview() -> str:
    width = max(map(len, COMMANDS)) + 2
    return "\n".join(
        [
            "usage: ptychopinn COMMAND [options]",
            "",
            "Ptychographic reconstruction by physics-informed networks.",
            "",
            "commands:",
            *(f"  {name.ljust(width)}{summary}" for name, summary in COMMANDS.items()),
            "",
            "'ptychopinn COMMAND --help' lists a command's options; '--version' is an option too.",
        ]
    )


@contextmanager
def _sigint_raises() -> Iterator[None]:
    """
    Raise Interrupted instead of KeyboardInterrupt on Ctrl-C.

    Lightning handles KeyboardInterrupt itself and ends the process with status 1.
    """
    from ptycho_backend.commands.files import Interrupted

    def handler(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a second Ctrl-C ends the process at once
        raise Interrupted

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


class _LogLines(logging.Handler):
    """Log handler: records on standard error above the progress bars; of other packages only warnings and errors."""

    def __init__(self, terminal: Terminal, level: int) -> None:
        super().__init__()
        self._terminal, self._level = terminal, level

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record of sufficient level."""
        ours = record.name.partition(".")[0] in PACKAGES
        if record.levelno >= (self._level if ours else max(self._level, logging.WARNING)):
            self._terminal.log(record.levelno, self.format(record))


@contextmanager
def _logging_to(terminal: Terminal) -> Iterator[None]:
    """Send log records and warnings to the terminal inside the block, and restore the logging afterwards."""
    level = logging.DEBUG if terminal.debug else logging.WARNING if terminal.quiet else logging.INFO
    root, handler = logging.getLogger(), _LogLines(terminal, level)
    loggers = {log: log.level for log in map(logging.getLogger, PACKAGES)}
    root.addHandler(handler)
    for log in loggers:
        log.setLevel(level)
    try:
        with warnings.catch_warnings():
            for category in SHOWN_WARNINGS:
                warnings.simplefilter("always", category)
            warnings.showwarning = _log_warning
            yield
    finally:
        root.removeHandler(handler)
        for log, previous in loggers.items():
            log.setLevel(previous)


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    # Frameworks and their dependencies warn about their own interfaces: of no use at a beamline.
    ours = issubclass(category, SHOWN_WARNINGS) or any(name in Path(filename).parts for name in PACKAGES)
    text = " ".join(str(message).split())
    logging.getLogger(__name__).log(logging.WARNING if ours else logging.DEBUG, "%s", text)


if __name__ == "__main__":
    sys.exit(main())
