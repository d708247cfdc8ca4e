"""Choice and run of a command: its messages, exit status and help."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TextIO

from ptycho_backend._version import __version__
from ptycho_backend.commands import COMMANDS, command_module
from ptycho_backend.commands.interruption import Interrupted
from ptycho_backend.errors import (
    ConfigError,
    DeprecatedNameWarning,
    InertOptionWarning,
    OutputError,
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


def run_program(arguments: list[str]) -> int:
    """
    Run a command and return its exit status.

    Parameters
    ----------
    arguments : list of str
        Arguments after the program's name.
    """
    from ptycho_backend.runtime.progress import Terminal

    terminal = Terminal(quiet="--quiet" in arguments, debug="--debug" in arguments)
    with _logging_to(terminal):
        try:
            status = _dispatch(arguments, terminal)
            _check_written(terminal)
            return status
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
    if command in ("-h", "--help", "--help-all"):
        terminal.show_text(_overview())
    elif command == "--version":
        terminal.show_text(f"ptychopinn {__version__}")
    elif command.partition("=")[0] == "--completion":
        from ptycho_backend.commands.completion import script

        terminal.show_text(script(command.partition("=")[2] or " ".join(arguments[1:])))
    elif command in COMMANDS:
        return _run(command, arguments[1:], terminal)
    elif command:
        raise ConfigError.unknown("command", command, COMMANDS, otherwise=HELP)
    else:
        raise ConfigError("A command is needed.", f"one of {', '.join(COMMANDS)}", "no command", HELP)
    return SUCCESS


def _run(command: str, arguments: list[str], terminal: Terminal) -> int:
    module = command_module(command)
    line = module.command_line()
    if {"-h", "--help", "--help-all", "--help_all"} & set(arguments):
        terminal.show_text(line.help(complete=not {"-h", "--help"} & set(arguments)))
        return SUCCESS
    options = line.parse(arguments)
    with _sigint_raises():
        if options.get("print_config"):
            from ptycho_backend.commands.common import yaml_text

            terminal.show_text(yaml_text(module.configs(options)))
            return SUCCESS
        return int(module.run(options, terminal, line) or SUCCESS)


def _check_written(terminal: Terminal) -> None:
    """
    Check that the results reached standard output.

    Raises
    ------
    OutputError
    """
    error = getattr(getattr(terminal.out, "stream", None), "error", None)
    if error is not None:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise OutputError(
            "The results need a standard output that accepts them.",
            expected="a terminal, or a file or program that reads standard output",
            received=f"standard output: {reason}",
            fix="free space on the disk, or send standard output elsewhere; files of results are complete",
        )


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
            "'ptychopinn COMMAND --help' lists the usual options of a command, '--help-all' every one.",
            "'ptychopinn --completion bash' prints the completion of a shell; '--version' is an option too.",
        ]
    )


@contextmanager
def _sigint_raises() -> Iterator[None]:
    """
    Raise Interrupted on Ctrl-C while a command works.

    Lightning handles KeyboardInterrupt itself and ends the process with status 1.
    """

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
