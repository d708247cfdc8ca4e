"""An image that is written while it grows, and kept when the work is stopped (spec: data 6.4)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptycho_backend.commands.files import BESIDE_IMAGE, Interrupted, remove_earlier, write_image
from ptycho_backend.data.image import Image
from ptycho_backend.data.product import INCOMPLETE
from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import OutputError
from ptycho_backend.events import Event, OnEvent, StageEvent
from ptycho_backend.physics.calibration import Calibration
from ptycho_backend.training.signals import Stop

logger = logging.getLogger(__name__)

WRITE_EVERY_S = 60.0  # an unfinished image is written no more often
WRITING_SHARE = 0.05  # and takes no more of the time than this


class IncrementalImage:
    """
    The image of a reconstruction that goes on.

    Parameters
    ----------
    folder : path
        Receives the image under its final name, with the attribute "incomplete" until it is whole.
    scan : Scan
    costs : list of float
    attributes : dict
        As of the finished image.
    """

    def __init__(self, folder: Path, scan: Scan, costs: list[float], attributes: dict[str, Any]) -> None:
        self._folder, self._scan, self._costs, self._attributes = folder, scan, costs, attributes
        self._latest: _Latest | None = None
        self._due_s = time.perf_counter() + WRITE_EVERY_S

    def listener(self, calibration: Calibration, on_event: OnEvent) -> OnEvent:
        """Return a listener for the making of the image with some calibration; it passes all events on."""

        def listen(event: Event) -> None:
            if isinstance(event, StageEvent) and event.image is not None:
                self._latest = _Latest(event.image, calibration, f"{event.stage}: {event.done:g} of {event.total}")
                if time.perf_counter() >= self._due_s:
                    self._write(self._latest)
            on_event(event)

        return listen

    def complete(self, image: Image, calibration: Calibration) -> None:
        """Take the finished image, which is written if the work is stopped before its result is."""
        self._latest = _Latest(lambda: image, calibration, "")

    @contextmanager
    def kept_on_signals(self, on_event: OnEvent) -> Iterator[OnEvent]:
        """
        Give a listener that ends the work after SIGINT or SIGTERM, with what there is of the image kept.

        Raises
        ------
        Interrupted
            After the image was written. A second signal ends the work at once, with the image that was written last.
        """
        stop = Stop()

        def listen(event: Event) -> None:
            on_event(event)
            if stop.requested:
                raise _Stopped

        try:
            with stop.on_signals():
                yield listen
        except _Stopped:
            logger.info("stopped: what there is is being written; another signal ends that too")
            note = self._write(self._latest) if self._latest else ""
            raise Interrupted(note, stop.signal or 0) from None

    def _write(self, latest: _Latest) -> str:
        """Write an image, and say of which kind it is; what cannot be written is a warning, for the work may go on."""
        started = time.perf_counter()
        attributes = self._attributes | ({INCOMPLETE: latest.reached} if latest.reached else {})
        try:
            remove_earlier(self._folder, BESIDE_IMAGE)
            write_image(self._folder, self._scan, latest.image(), latest.calibration, self._costs, attributes)
        except OutputError as error:
            logger.warning("the image so far is not written: %s", error.received)
            return ""
        finally:
            now = time.perf_counter()
            self._due_s = now + max(WRITE_EVERY_S, (now - started) / WRITING_SHARE)
        return f"the image is incomplete ({latest.reached})" if latest.reached else "the image is complete"


@dataclass(frozen=True)
class _Latest:
    """How to make the latest image, with its calibration, and how far it has come."""

    image: Callable[[], Image]
    calibration: Calibration
    reached: str


class _Stopped(BaseException):
    """Ends the work between two of its steps."""
