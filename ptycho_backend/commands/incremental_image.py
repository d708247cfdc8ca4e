"""Incremental image: unfinished images during a reconstruction, and the last one on a signal (spec: data 6.4)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptycho_backend.commands.files import EVALUATION_FILES, remove_files, write_image
from ptycho_backend.commands.interruption import Interrupted
from ptycho_backend.data.image import Image
from ptycho_backend.data.product import INCOMPLETE
from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import OutputError
from ptycho_backend.events import Event, OnEvent, StageEvent
from ptycho_backend.physics.calibration import Calibration
from ptycho_backend.training.signals import Stop

logger = logging.getLogger(__name__)

WRITE_EVERY_S = 10.0  # shortest time between two unfinished images
WRITING_SHARE = 0.05  # largest share of the time for writing them


class IncrementalImage:
    """
    File of the image of a running reconstruction.

    Parameters
    ----------
    folder : path
        Folder of the image, which has its final name and until its completion the attribute "incomplete".
    scan : Scan
    costs : list of float
    attributes : dict
        Attributes of the finished image.
    """

    def __init__(self, folder: Path, scan: Scan, costs: list[float], attributes: dict[str, Any]) -> None:
        self.folder, self.scan, self._costs, self._attributes = folder, scan, costs, attributes
        self._snapshot: _Snapshot | None = None
        self._next_write_s = time.perf_counter() + WRITE_EVERY_S

    def recorder(self, calibration: Calibration, on_event: OnEvent) -> OnEvent:
        """Return a callback that records the image of every event and forwards the event."""

        def record(event: Event) -> None:
            if isinstance(event, StageEvent) and event.image is not None:
                progress = f"{event.stage}: {event.done:g} of {event.total}"
                self._snapshot = _Snapshot(event.image, calibration, progress)
                if time.perf_counter() >= self._next_write_s:
                    self._try_write()
            on_event(event)

        return record

    def set_complete(self, image: Image, calibration: Calibration) -> None:
        """Record the finished image, which a signal before the end of the command still writes."""
        self._snapshot = _Snapshot(lambda: image, calibration, "")

    def write(self) -> None:
        """
        Write the recorded image, and remove the evaluation of an earlier one.

        Raises
        ------
        OutputError
        """
        if snapshot := self._snapshot:
            remove_files(self.folder, EVALUATION_FILES)
            attributes = self._attributes | ({INCOMPLETE: snapshot.progress} if snapshot.progress else {})
            write_image(self.folder, self.scan, snapshot.image(), snapshot.calibration, self._costs, attributes)

    @contextmanager
    def saved_on_signal(self, on_event: OnEvent) -> Iterator[OnEvent]:
        """
        Yield a callback that ends the work after SIGINT or SIGTERM and saves the last image.

        A second signal ends the process at once, with the image that was written last.

        Raises
        ------
        Interrupted
            After a signal, once the image is saved.
        """
        stop = Stop()

        def forward(event: Event) -> None:
            on_event(event)
            if stop.requested:
                raise _StopRequested

        try:
            with stop.on_signals():
                yield forward
        except _StopRequested:
            logger.info("stopped: the last image is being written; another signal ends that too")
            raise Interrupted(self._try_write(), stop.signal or 0) from None

    def _try_write(self) -> str:
        """Write the image and return its status; a failure is a warning, because the work may continue."""
        if self._snapshot is None:
            return ""
        started, progress = time.perf_counter(), self._snapshot.progress
        try:
            self.write()
        except OutputError as error:
            logger.warning("the unfinished image is not written: %s", error.received)
            return ""
        finally:
            now = time.perf_counter()
            self._next_write_s = now + max(WRITE_EVERY_S, (now - started) / WRITING_SHARE)
        return f"the image is incomplete ({progress})" if progress else "the image is complete"


@dataclass(frozen=True)
class _Snapshot:
    """Latest image, computed on demand, with its calibration and the progress of the work; "" for a complete one."""

    image: Callable[[], Image]
    calibration: Calibration
    progress: str


class _StopRequested(BaseException):
    """End of the work between two of its steps."""
