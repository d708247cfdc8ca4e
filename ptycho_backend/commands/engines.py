"""Start of an engine without the messages of its libraries."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ptycho_backend.runtime.progress import Terminal


@contextmanager
def captured_library_messages(terminal: Terminal) -> Iterator[None]:
    """
    Capture the standard error of a framework during its import, and show it after a failure.

    TensorFlow's libraries write to the file descriptor itself, past every log level and through the progress bars.
    """
    if terminal.debug:
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryFile() as captured:
        try:
            with _redirected_stderr(captured.fileno()):
                yield
        except Exception:
            captured.seek(0)
            terminal.write("", captured.read().decode(errors="replace").rstrip(), "")
            raise


@contextmanager
def _redirected_stderr(target: int) -> Iterator[None]:
    _flush()
    try:
        original = os.dup(2)
    except OSError:  # a process without standard error
        yield
        return
    os.dup2(target, 2)
    try:
        yield
    finally:
        _flush()
        os.dup2(original, 2)
        os.close(original)


def _flush() -> None:
    """Write the buffered text of standard error, if there is one that accepts it."""
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
