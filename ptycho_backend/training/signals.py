"""Stopping between two steps instead of in the middle of one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether a training has been asked to end after its step; `signal` says by which signal."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether it is time to stop."""
        return self.signal is not None

    def listen(self) -> None:
        """Take the signals back from a framework that has set handlers of its own meanwhile."""
        for number in self._before:
            signal.signal(number, self._note)

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """
        Note the first SIGINT or SIGTERM instead of dying of it; the second one acts as it did before.

        Only the main thread receives signals: elsewhere nothing changes.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        self.listen()
        try:
            yield
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self._before = {}

    def request(self, number: int = signal.SIGINT) -> None:
        """Ask the training to end after its step."""
        self.signal = number

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.request(number)
        signal.signal(number, self._before[signal.Signals(number)])
