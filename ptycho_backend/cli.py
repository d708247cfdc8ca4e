"""
The program ``ptychopinn``.

Exit status: 0 for success, 1 for a failure, 2 for a wrong command line or configuration.
Ctrl-C gives 130, SIGTERM 143.
The program imports only the module of the given command, and a framework only on first use.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run a command and return its exit status.

    Parameters
    ----------
    argv : list of str, optional
        Arguments after the program's name; None takes those of the process, and prepares the process for a program.
    """
    if argv is None:
        _prepare_process()
    from ptycho_backend.commands.program import run_program

    return run_program(list(sys.argv[1:] if argv is None else argv))


def _prepare_process() -> None:
    """
    Prepare a process that only runs a command.

    Ctrl-C during the imports, before there is anything to save, ends the process with one line.
    Pictures are files, so that a notebook's MPLBACKEND has no use.
    """
    signal.signal(signal.SIGINT, _end_at_once)
    _open_missing_streams()
    os.environ["MPLBACKEND"] = "agg"


def _end_at_once(number: int, frame: object) -> None:
    try:
        os.write(2, b"Interrupted\n")
    finally:
        os._exit(INTERRUPTED)


def _open_missing_streams() -> None:
    """Open the null device as each closed standard stream; else a result file would get its number and its messages."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number, which is this one
        if getattr(sys, name) is None:
            mode = "r" if number == 0 else "w"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


if __name__ == "__main__":
    sys.exit(main())
