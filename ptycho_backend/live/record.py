"""
Record of a running command: stages, errors, losses and messages, in a file beside its run folder.

The file ``progress.json`` is in the hidden folder of the claim, and goes with it at the end of the command.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ptycho_backend.data.run_claim import PROGRESS, control_folder
from ptycho_backend.events import BatchEvent, EpochEvent, Event, OnEvent, StageEvent
from ptycho_backend.model_file.run import without_nan
from ptycho_backend.runtime.printable import printable
from ptycho_backend.runtime.progress import TRAINING

WRITE_EVERY_S = 1.0  # shortest time between two versions of the file
MAX_MESSAGES, MAX_TEXT = 50, 500
MAX_POINTS = 1000  # of the errors and of the epochs; beyond, every second one is dropped
PACKAGES = ("ptycho_backend", "ptycho", "ptycho_torch")


class ProgressRecord:
    """
    Callback that writes the latest progress of a command to a file.

    Parameters
    ----------
    file : Path
        A failure to write it costs the live view, not the work.
    on_event : callable
        Receives every event too.
    """

    def __init__(self, file: Path, on_event: OnEvent) -> None:
        self._file, self._on_event, self._lock = file, on_event, threading.Lock()
        self._stages: dict[str, dict[str, Any]] = {}
        self._errors: list[tuple[str, float, float]] = []  # stage, completed steps, error
        self._epochs: list[dict[str, float]] = []
        self._messages: deque[dict[str, str]] = deque(maxlen=MAX_MESSAGES)
        self._next_write_s = -1.0

    def __call__(self, event: Event) -> None:
        """Record and forward an event."""
        with self._lock:
            if isinstance(event, StageEvent):
                self._record_stage(event)
            elif isinstance(event, EpochEvent):
                self._epochs = _thinned([*self._epochs, {"epoch": event.epoch, **event.metrics}])
            else:
                self._record_batch(event)
            self._write()
        self._on_event(event)

    def log(self, level: str, text: str) -> None:
        """Record a message; `level` is the name of a logging level."""
        with self._lock:
            self._messages.append({"level": level.lower(), "text": printable(text)[:MAX_TEXT]})
            self._write()

    def _record_stage(self, event: StageEvent) -> None:
        values = {"done": event.done, "total": event.total, "message": printable(event.message)[:MAX_TEXT]}
        self._stages.pop(event.stage, None)  # the latest stage stands at the end
        self._stages[event.stage] = values
        if event.error is not None:
            self._errors = _thinned([*self._errors, (event.stage, event.done, event.error)])

    def _record_batch(self, event: BatchEvent) -> None:
        done = (event.epoch - 1) * event.n_batches + event.batch
        message = f"epoch {event.epoch}/{event.nepochs}, loss {event.loss:.3g}"
        self._stages[TRAINING] = {"done": done, "total": event.nepochs * event.n_batches, "message": message}

    def _write(self) -> None:
        """Write the record, unless the last version is recent."""
        if time.perf_counter() < self._next_write_s:
            return
        self._next_write_s = time.perf_counter() + WRITE_EVERY_S
        unfinished = self._file.with_name(f"{self._file.name}.part")
        with suppress(OSError, ValueError):  # no space, or a folder that has gone
            unfinished.write_text(json.dumps(without_nan(self._values())), encoding="utf-8")
            os.replace(unfinished, self._file)

    def _values(self) -> Mapping[str, Any]:
        errors = [{"stage": stage, "done": done, "error": error} for stage, done, error in self._errors]
        stages = [{"stage": printable(name)[:MAX_TEXT], **values} for name, values in self._stages.items()]
        return {"stages": stages, "errors": errors, "epochs": self._epochs, "messages": list(self._messages)}


@contextmanager
def recorded(target: Path | str, on_event: OnEvent) -> Iterator[OnEvent]:
    """
    Yield a callback that records the progress of a command beside its claimed run folder, and forwards every event.

    Parameters
    ----------
    target : path
        Run folder.
    on_event : callable

    Notes
    -----
    Spec: data 6.8.
    """
    file = control_folder(Path(target)) / PROGRESS
    record = ProgressRecord(file, on_event)
    handler = _Messages(record)
    logging.getLogger().addHandler(handler)
    try:
        yield record
    finally:
        logging.getLogger().removeHandler(handler)
        with suppress(OSError):
            file.unlink(missing_ok=True)


class _Messages(logging.Handler):
    """Log handler: messages of this package, warnings and errors of others."""

    def __init__(self, record: ProgressRecord) -> None:
        super().__init__()
        self._record = record

    def emit(self, record: logging.LogRecord) -> None:
        """Record a message."""
        ours = record.name.partition(".")[0] in PACKAGES
        if record.levelno >= (logging.INFO if ours else logging.WARNING):
            with suppress(Exception):  # a message of another package may have a wrong format
                self._record.log(record.levelname, record.getMessage())


def _thinned(values: list[Any]) -> list[Any]:
    """Return a list without every second entry once it is too long; the last entry stays."""
    return values if len(values) <= MAX_POINTS else values[::-2][::-1]
