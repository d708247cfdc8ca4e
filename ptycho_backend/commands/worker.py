"""Commands in processes of rank above 0: they compute their share, and rank 0 writes and shows the results."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ptycho_backend.commands.files import Interrupted
from ptycho_backend.commands.results import Request
from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import ProcessError
from ptycho_backend.quality.half_datasets import half_datasets
from ptycho_backend.reconstruction import other_start, prepare
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


def compute_share(scan: Scan, request: Request) -> None:
    """Reconstruct with all steps of rank 0 that use the kernels, in its order; rank 0 has the same images."""
    reconstruction = prepare(scan, request.model, request.inference, request.kernels)
    predicted = reconstruction.predict()
    reconstruction.image(predicted=predicted)
    if request.compare:
        other_start(reconstruction, request.network).image()
    if request.inference.half_datasets:
        half_datasets(reconstruction, predicted)
