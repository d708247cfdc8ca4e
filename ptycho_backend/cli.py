"""
The command ``ptychopinn``.

Exit status: 0 done, 1 the work failed, 2 the command line or a configuration is wrong, 130 stopped by Ctrl-C,
143 by SIGTERM.
Nothing is imported for a command before it is chosen, and no framework before it is needed.
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
from ptycho_backend.commands import COMMANDS
from ptycho_backend.errors import (
    ConfigError,
    DeprecatedNameWarning,
    InertOptionWarning,
    PtychoError,
    TrainingStopped,
    UnknownBackendError,
    first_line,
    nearest_name,
)

if TYPE_CHECKING:
    from ptycho_backend.runtime.progress import Terminal

DONE, FAILED, MISUSED = 0, 1, 2
OWN = ("ptycho_backend", "ptycho", "ptycho_torch")
OWN_WARNINGS = (InertOptionWarning, DeprecatedNameWarning)


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run a command and return its exit status.

    Parameters
    ----------
    argv : list of str, optional
        Arguments without the program's name; None takes those of the process.
    """
    from ptycho_backend.commands.files import Interrupted
    from ptycho_backend.runtime.progress import Terminal

    arguments = list(sys.argv[1:] if argv is None else argv)
    terminal = Terminal(quiet="--quiet" in arguments, debug="--debug" in arguments)
    with _logging_to(terminal):
        try:
            with _interruptible():
                return _dispatch(arguments, terminal)
        except (Interrupted, KeyboardInterrupt) as stop:
            terminal.say("Interrupted", getattr(stop, "kept", ""), "bold red")
            return 128 + getattr(stop, "signal", signal.SIGINT)
        except TrainingStopped as stop:
            terminal.say("Interrupted", f"{stop.received}; {stop.fix}", "bold red")
            return 128 + stop.signal
        except PtychoError as error:
            terminal.complain(type(error).__name__, str(error))
            return MISUSED if isinstance(error, (ConfigError, UnknownBackendError)) else FAILED
        except Exception as error:
            hint = "" if terminal.debug else " (run again with --debug for the traceback)"
            terminal.complain(type(error).__name__, f"{first_line(error)}{hint}")
            return FAILED


def _dispatch(arguments: list[str], terminal: Terminal) -> int:
    """Carry out a command; one that has a status of its own to give returns it."""
    command = arguments[0] if arguments else ""
    if command in ("-h", "--help"):
        terminal.out.print(_overview(), markup=False)
    elif command == "--version":
        terminal.out.print(f"ptychopinn {__version__}", markup=False)
    elif command in COMMANDS:
        return _run(command, arguments[1:], terminal)
    else:
        nearest = nearest_name(command, COMMANDS)
        raise ConfigError(
            f"Unknown command '{command}'." if command else "A command is needed.",
            expected=f"one of {', '.join(COMMANDS)}",
            received=f"'{command}'" if command else "nothing",
            fix=f"did you mean '{nearest}'?" if nearest else "'ptychopinn --help' says what they do",
        )
    return DONE


def _run(command: str, arguments: list[str], terminal: Terminal) -> int:
    from importlib import import_module

    module = import_module(f"ptycho_backend.commands.{command}")
    line = module.command_line()
    if any(argument in ("-h", "--help") for argument in arguments):
        terminal.out.print(line.parser.format_help().rstrip(), markup=False, soft_wrap=True)
        return DONE
    options = line.parse(arguments)
    if options.get("print_config"):
        from ptycho_backend.commands.common import yaml_text

        terminal.out.print(yaml_text(module.configs(options)), markup=False, soft_wrap=True)
        return DONE
    return int(module.run(options, terminal, line) or DONE)


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
def _interruptible() -> Iterator[None]:
    """
    Turn Ctrl-C into an exception of our own, for as long as a command runs.

    Lightning answers a KeyboardInterrupt by ending the process with a status of its own.
    """
    from ptycho_backend.commands.files import Interrupted

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever presses twice means it
        raise Interrupted

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _LogLines(logging.Handler):
    """Shows log records on standard error, above the progress bars; of other packages only what is wrong."""

    def __init__(self, terminal: Terminal, level: int) -> None:
        super().__init__()
        self._terminal, self._level = terminal, level

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record, if it matters."""
        own = record.name.partition(".")[0] in OWN
        if record.levelno >= (self._level if own else max(self._level, logging.WARNING)):
            self._terminal.log(record.levelno, self.format(record))


@contextmanager
def _logging_to(terminal: Terminal) -> Iterator[None]:
    """Send log records and warnings to the terminal while a command runs, and leave no trace of that."""
    level = logging.DEBUG if terminal.debug else logging.WARNING if terminal.quiet else logging.INFO
    root, handler = logging.getLogger(), _LogLines(terminal, level)
    loggers = {log: log.level for log in map(logging.getLogger, OWN)}
    root.addHandler(handler)
    for log in loggers:
        log.setLevel(level)
    try:
        with warnings.catch_warnings():
            for category in OWN_WARNINGS:
                warnings.simplefilter("always", category)
            warnings.showwarning = _log_warning
            yield
    finally:
        root.removeHandler(handler)
        for log, before in loggers.items():
            log.setLevel(before)


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    # What frameworks and their dependencies warn each other about is of no use at a beamline.
    own = issubclass(category, OWN_WARNINGS) or any(name in Path(filename).parts for name in OWN)
    text = " ".join(str(message).split())
    logging.getLogger(__name__).log(logging.WARNING if own else logging.DEBUG, "%s", text)


if __name__ == "__main__":
    sys.exit(main())
