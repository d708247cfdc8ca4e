"""Stop requests: SIGINT or SIGTERM ends a training between two optimiser steps, not in the middle of one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Stop request of a training; `signal` is the number of the signal behind it, or None."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether training must end after its optimiser step."""
        return self.signal is not None

    def listen(self) -> None:
        """Install the signal handlers again, in place of handlers that a framework has set meanwhile."""
        for number in self._previous:
            signal.signal(number, self._on_signal)

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """
        Turn the first SIGINT or SIGTERM into a stop request; the second one acts as without this block.

        Python delivers signals to the main thread only: in other threads this block has no effect.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._previous = {number: signal.getsignal(number) for number in SIGNALS}
        self.listen()
        try:
            yield
        finally:
            for number, handler in self._previous.items():
                signal.signal(number, handler)
            self._previous = {}

    def request(self, number: int = signal.SIGINT) -> None:
        """Request that training ends after its optimiser step."""
        self.signal = number

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.request(number)
        signal.signal(number, self._previous[signal.Signals(number)])
