"""Progress of every engine, from its events: bars on a terminal, one log line for every epoch elsewhere."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ptycho_backend.events import BatchEvent, EpochEvent, Event, OnEvent, StageEvent

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress, TaskID

logger = logging.getLogger(__name__)

TRAINING = "training"
LOG_EVERY_S = 30.0  # shortest time between two log lines of a stage
LEVELS = {logging.ERROR: ("error", "bold red"), logging.WARNING: ("warning", "yellow"), logging.INFO: ("", "")}


class Terminal:
    """
    Terminal of a command: results on standard output, messages and progress on standard error.

    Parameters
    ----------
    quiet : bool
        Show only warnings and errors.
    debug : bool
        Show a traceback with every error.
    """

    def __init__(self, quiet: bool = False, debug: bool = False) -> None:
        from rich.console import Console

        self.out, self.err = Console(highlight=False), Console(stderr=True, highlight=False)
        self.quiet, self.debug = quiet, debug

    @property
    def interactive(self) -> bool:
        """Whether both streams are terminals that can move their cursor."""
        return all(console.is_terminal and not console.is_dumb_terminal for console in (self.out, self.err))

    def show(self, content: RenderableType = "", style: str = "") -> None:
        """Write a result to standard output; text is never wrapped, so that paths can be copied."""
        from rich.text import Text

        if not self.quiet:
            self.out.print(content, style=style, soft_wrap=isinstance(content, (str, Text)), markup=False)

    def log(self, level: int, text: str) -> None:
        """Write a log record to standard error."""
        label, style = next((entry for lowest, entry in LEVELS.items() if level >= lowest), ("", "dim"))
        self.write(label, text, style)

    def report_error(self, label: str, text: str) -> None:
        """Write an error to standard error."""
        if self.debug:
            self.err.print_exception(word_wrap=True)
        self.write(label, text, "bold red")

    def write(self, label: str, text: str, style: str) -> None:
        """Write one message to standard error."""
        from rich.text import Text

        prefix = f"{label}: " if label and text else label
        self.err.print(Text.assemble((prefix, style), text), soft_wrap=True)

    @contextmanager
    def progress(self, wanted: bool = True) -> Iterator[OnEvent]:
        """Return a listener for events: bars on an interactive terminal, else log lines."""
        if self.interactive and wanted and not self.quiet:
            with progress_bars(self.err) as listener:
                yield listener
        else:
            yield EventLog()


class EventLog:
    """Logs one line for every finished epoch and stage, and regular lines during a long stage."""

    def __init__(self) -> None:
        self._epoch_start_s = time.perf_counter()
        self._stage: _Stage | None = None

    def __call__(self, event: Event) -> None:
        """Log an event; metrics stand under their own names."""
        if isinstance(event, EpochEvent):
            seconds = time.perf_counter() - self._epoch_start_s
            logger.info("epoch %d/%d: %s, %.1f s", event.epoch, event.nepochs, _named(event.metrics), seconds)
        elif isinstance(event, StageEvent) and event.done >= event.total:
            message = f", {event.message}" if event.message else ""
            logger.info("%s: %d of %d%s", event.stage, event.done, event.total, message)
            self._stage = None
        elif isinstance(event, StageEvent):
            if self._stage is None or self._stage.name != event.stage:
                self._stage = _Stage(event)
            self._stage.log(event)
        if not isinstance(event, BatchEvent):
            self._epoch_start_s = time.perf_counter()


class _Stage:
    """Unfinished stage with the times of its first event and of its last log line."""

    def __init__(self, event: StageEvent) -> None:
        self.name, self._first_done = event.stage, event.done
        self._first_s = self._logged_s = time.perf_counter()

    def log(self, event: StageEvent) -> None:
        """Log the steps done and the estimated time left, unless the last log line is recent."""
        now_s, progress = time.perf_counter(), event.done - self._first_done
        if now_s - self._logged_s < LOG_EVERY_S or progress <= 0:
            return
        left_s = (now_s - self._first_s) / progress * (event.total - event.done)
        done = f"{event.done:.1f}" if event.done % 1 else f"{event.done:.0f}"
        logger.info("%s: %s of %d, about %s left", event.stage, done, event.total, _duration(left_s))
        self._logged_s = now_s


class Bars:
    """Progress bars: one for every stage, one for all batches of a training."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}
        self._done: dict[str, float] = {}
        self._losses = ""
        self._preparing: TaskID | None = progress.add_task("preparing", total=None, note="")

    def __call__(self, event: Event) -> None:
        """Move the bar of an event."""
        if self._preparing is not None:
            self._progress.remove_task(self._preparing)
            self._preparing = None
        if isinstance(event, StageEvent):
            self._move(event.stage, event.done, event.total, event.message)
        elif isinstance(event, EpochEvent):
            self._losses = _short(event.metrics)
            if TRAINING in self._tasks:
                note = f"epoch {event.epoch}/{event.nepochs}, {self._losses}"
                self._progress.update(self._tasks[TRAINING], note=note, refresh=event.epoch == event.nepochs)
        else:
            self._batch(event)

    def _batch(self, event: BatchEvent) -> None:
        done = (event.epoch - 1) * event.n_batches + event.batch
        losses = self._losses or f"loss {event.loss:.3g}"
        self._move(TRAINING, done, event.nepochs * event.n_batches, f"epoch {event.epoch}/{event.nepochs}, {losses}")

    def _move(self, name: str, done: float, total: int, note: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total, note="")
        elif done < self._done[name]:
            self._progress.reset(self._tasks[name])  # the stage runs again; its time starts at zero
        self._done[name] = done
        self._progress.update(self._tasks[name], completed=done, total=total, note=note)


@contextmanager
def progress_bars(console: Console) -> Iterator[Bars]:
    """Show bars on a console until the block ends."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns: tuple[Any, ...] = (
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description}"),
        BarColumn(bar_width=14),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[note]}", style="dim"),
    )
    with Progress(*columns, console=console, refresh_per_second=8) as progress:
        yield Bars(progress)


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _named(metrics: Mapping[str, float]) -> str:
    names = sorted(name for name in metrics if name.endswith("_loss"))
    names += [name for name in metrics if name not in (*names, "epoch")]
    return ", ".join(f"{name} {metrics[name]:.4g}" for name in names)


def _short(metrics: Mapping[str, float]) -> str:
    """Return the training loss and the validation loss as text; losses that are NaN or missing are left out."""
    parts = {"train": "_train_loss", "val": "_val_loss"}
    found = {word: value for word, end in parts.items() for name, value in metrics.items() if name.endswith(end)}
    return ", ".join(f"{word} {value:.3g}" for word, value in found.items() if not math.isnan(value))
