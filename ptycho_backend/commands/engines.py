"""Engines as commands start them: with their errors, without their chatter."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from ptycho_backend.runtime.progress import Terminal


@contextmanager
def started_quietly(terminal: Terminal) -> Iterator[None]:
    """
    Hold back what a framework's own libraries write while they are loaded; show it if loading fails.

    TensorFlow's libraries write to the file descriptor of standard error, past every log level and through the
    progress bars.
    """
    if terminal.debug:
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryFile() as held:
        try:
            with _standard_error_into(held.fileno()):
                yield
        except Exception:
            held.seek(0)
            terminal.err.out(held.read().decode(errors="replace"), end="")
            raise


@contextmanager
def _standard_error_into(target: int) -> Iterator[None]:
    sys.stderr.flush()
    try:
        original = os.dup(2)
    except OSError:  # a process without standard error has nothing to hold back
        yield
        return
    os.dup2(target, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(original, 2)
        os.close(original)
