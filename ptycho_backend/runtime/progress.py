"""Progress of every engine, from its events: bars on a terminal, one log line for every epoch elsewhere."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ptycho_backend.events import BatchEvent, EpochEvent, Event, OnEvent, StageEvent
from ptycho_backend.runtime.stage_plan import StagePlan

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

    Attributes
    ----------
    json : bool
        Standard output is one JSON document: `show` writes nothing.
    warnings : list of str
        Texts of the warnings shown so far.
    """

    def __init__(self, quiet: bool = False, debug: bool = False) -> None:
        from ptycho_backend.runtime.streams import SafeConsole

        self.out: Console = SafeConsole()
        self.err: Console = SafeConsole(stderr=True)
        self.quiet, self.debug, self.json = quiet, debug, False
        self.warnings: list[str] = []

    @property
    def interactive(self) -> bool:
        """Whether both streams are terminals that can move their cursor."""
        return all(console.is_terminal and not console.is_dumb_terminal for console in (self.out, self.err))

    def show(self, content: RenderableType = "", style: str = "") -> None:
        """Write a result to standard output; text is never wrapped, so that paths can be copied."""
        from rich.text import Text

        if not (self.quiet or self.json):
            self.out.print(content, style=style, soft_wrap=isinstance(content, (str, Text)), markup=False)

    def show_text(self, text: str) -> None:
        """Write a text for files and programs to standard output, also with `quiet` and `json`."""
        self.out.print(text, markup=False, soft_wrap=True)

    def log(self, level: int, text: str) -> None:
        """Write a log record to standard error."""
        if level >= logging.WARNING:
            self.warnings.append(text)
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
    def progress(self, wanted: bool = True, plan: StagePlan | None = None) -> Iterator[OnEvent]:
        """Return a listener for events: bars on an interactive terminal, else log lines."""
        if self.interactive and wanted and not self.quiet:
            with progress_bars(self.err, plan) as listener:
                yield listener
        else:
            yield EventLog(plan)


class EventLog:
    """
    Logs one line for every finished epoch and stage, and regular lines during a long stage.

    Parameters
    ----------
    plan : StagePlan, optional
        Numbers of the stages; None for stages without numbers.
    """

    def __init__(self, plan: StagePlan | None = None) -> None:
        self._plan = plan or StagePlan()
        self._epoch_start_s = time.perf_counter()
        self._stage: _Stage | None = None

    def __call__(self, event: Event) -> None:
        """Log an event; metrics stand under their own names."""
        self._plan.start(event.stage if isinstance(event, StageEvent) else TRAINING)
        if isinstance(event, EpochEvent):
            seconds = time.perf_counter() - self._epoch_start_s
            logger.info("epoch %d/%d: %s, %.1f s", event.epoch, event.nepochs, _named(event.metrics), seconds)
        elif isinstance(event, StageEvent) and event.done >= event.total:
            message = f", {event.message}" if event.message else ""
            logger.info("%s: %d of %d%s", self._plan.label(event.stage), event.done, event.total, message)
            self._stage = None
        elif isinstance(event, StageEvent):
            if self._stage is None or self._stage.name != event.stage:
                self._stage = _Stage(event)
            self._stage.log(event, self._plan)
        if not isinstance(event, BatchEvent):
            self._epoch_start_s = time.perf_counter()


class _Stage:
    """Unfinished stage with the times of its first event and of its last log line."""

    def __init__(self, event: StageEvent) -> None:
        self.name, self._first_done = event.stage, event.done
        self._first_s = self._logged_s = time.perf_counter()

    def log(self, event: StageEvent, plan: StagePlan) -> None:
        """Log the steps done and the estimated times left, unless the last log line is recent."""
        now_s, progress = time.perf_counter(), event.done - self._first_done
        if now_s - self._logged_s < LOG_EVERY_S or progress <= 0:
            return
        left_s = (now_s - self._first_s) / progress * (event.total - event.done)
        done = f"{event.done:.1f}" if event.done % 1 else f"{event.done:.0f}"
        total_s = plan.total_left_s(left_s)
        in_all = f", {_duration(total_s)} in all" if total_s is not None else ""
        logger.info(
            "%s: %s of %d, about %s left%s", plan.label(event.stage), done, event.total, _duration(left_s), in_all
        )
        self._logged_s = now_s


class Bars:
    """
    Progress bars: one for every stage, one for all batches of a training.

    Parameters
    ----------
    progress : Progress
    plan : StagePlan, optional
        Numbers of the stages; None for stages without numbers.
    """

    def __init__(self, progress: Progress, plan: StagePlan | None = None) -> None:
        self._progress, self._plan = progress, plan or StagePlan()
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
        self._plan.start(name)
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(self._plan.label(name), total=total, note="")
        elif done < self._done[name]:
            self._progress.reset(self._tasks[name])  # the stage runs again; its time starts at zero
        self._done[name] = done
        self._progress.update(self._tasks[name], completed=done, total=total, note=self._with_total_left(name, note))

    def _with_total_left(self, name: str, note: str) -> str:
        """Return the note of a stage with the time left for all stages, where both are known."""
        task = next(task for task in self._progress.tasks if task.id == self._tasks[name])
        total_s = None if task.time_remaining is None else self._plan.total_left_s(task.time_remaining)
        return note if total_s is None else ", ".join(filter(None, (note, f"{_duration(total_s)} in all")))


@contextmanager
def progress_bars(console: Console, plan: StagePlan | None = None) -> Iterator[Bars]:
    """Show bars on a console until the block ends."""
    from rich.progress import Progress

    with Progress(*_columns(console.options.ascii_only), console=console, refresh_per_second=8) as progress:
        yield Bars(progress, plan)


def _columns(ascii_only: bool) -> tuple[Any, ...]:
    """Return the columns of the bars: name, bar, share, time and note."""
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeRemainingColumn

    return (
        SpinnerColumn("line" if ascii_only else "dots", finished_text=" "),
        TextColumn("{task.description}"),
        BarColumn(bar_width=14),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[note]}", style="dim"),
    )


@contextmanager
def progress(plan: StagePlan | None = None) -> Iterator[OnEvent]:
    """
    Return a callback for `on_event` that shows progress: bars on a terminal and in a notebook, log lines elsewhere.

    Parameters
    ----------
    plan : StagePlan, optional
        Numbers of the stages; None for stages without numbers.

    Yields
    ------
    callable
        Takes the events of :func:`~ptycho_backend.api.reconstruct` and :func:`~ptycho_backend.api.train`. Log lines
        have the level INFO of Python's logging.

    Notes
    -----
    Spec: backend_contract 5.3.
    """
    from rich.console import Console

    from ptycho_backend.runtime.notebook_bars import notebook_bars
    from ptycho_backend.runtime.streams import SafeConsole

    if Console().is_jupyter:
        from rich.progress import Progress

        bars = Progress(*_columns(ascii_only=False), auto_refresh=False, disable=True)
        with notebook_bars(bars, Bars(bars, plan)) as listener:
            yield listener
    elif (console := SafeConsole(stderr=True)).is_terminal and not console.is_dumb_terminal:
        with progress_bars(console, plan) as shown:
            yield shown
    else:
        yield EventLog(plan)


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
