"""Commands in processes of rank above 0: they show nothing, and rank 0 writes the results."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ptycho_backend.commands.interruption import Interrupted
from ptycho_backend.errors import ProcessError
from ptycho_backend.training.signals import Stop


@contextmanager
def silent_process() -> Iterator[None]:
    """
    Suppress log records below errors, and leave the first SIGINT or SIGTERM to rank 0.

    Rank 0 stops after its iteration and saves the image. Its end then ends this process.

    Raises
    ------
    Interrupted
        If rank 0 has ended after a signal.
    """
    stop, previous = Stop(), logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with stop.on_signals():
            yield
    except ProcessError:
        if stop.signal is None:
            raise
        raise Interrupted("", stop.signal) from None
    finally:
        logging.disable(previous)
