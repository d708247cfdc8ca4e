"""Progress events: one stream for both engines, the solver and the commands."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ptycho_backend.data.image import Image

REPORT_EVERY_S = 0.5  # shortest time between two events inside a step


@dataclass(frozen=True)
class StageEvent:
    """
    Progress of a stage outside training, for example of probe refinement.

    Parameters
    ----------
    stage : str
    done : float
        Completed steps; a fraction inside a long step.
    total : int
    message : str
    image : callable, optional
        Computes the image of the whole scan after this step. It stays valid while the work continues.
    error : float, optional
        Σ(x − |ψ|)² / Σx² over good pixels after this step; None for a stage without it.
    """

    stage: str
    done: float
    total: int
    message: str = ""
    image: Callable[[], Image] | None = field(default=None, compare=False, repr=False)
    error: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class BatchEvent:
    """Completed batch: `batch` of `n_batches` in `epoch` of `nepochs`, all counted from 1."""

    epoch: int
    nepochs: int
    batch: int
    n_batches: int
    loss: float


@dataclass(frozen=True)
class EpochEvent:
    """Completed epoch; `metrics` uses the model's own metric names, plus ``lr`` and ``epoch``."""

    epoch: int
    nepochs: int
    metrics: Mapping[str, float] = field(default_factory=dict)


Event = StageEvent | BatchEvent | EpochEvent
OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Discard an event: the default callback."""


def without_images(on_event: OnEvent) -> OnEvent:
    """Return a callback that removes the image from every event, for work on a part of the scan."""
    return lambda event: on_event(replace(event, image=None) if isinstance(event, StageEvent) else event)


def with_image(on_event: OnEvent, change: Callable[[Image], Image]) -> OnEvent:
    """Return a callback that changes the image of every event, once that is computed."""

    def forward(event: Event) -> None:
        if isinstance(event, StageEvent) and (compute := event.image) is not None:
            event = replace(event, image=lambda: change(compute()))
        on_event(event)

    return forward


class ThrottledProgress:
    """
    Throttled StageEvents: at most one every `REPORT_EVERY_S` seconds.

    Parameters
    ----------
    on_event : callable
    stage : str
    total : int
        Steps of the stage.
    """

    def __init__(self, on_event: OnEvent, stage: str, total: int) -> None:
        self._on_event, self._stage, self._total = on_event, stage, total
        self._next_s = time.perf_counter() + REPORT_EVERY_S
        self._reported = False

    def report(self, done: float, share: float = 0.0) -> None:
        """Report the completed steps and the share of the next one, unless the last event is too recent."""
        if time.perf_counter() >= self._next_s:
            self._on_event(StageEvent(self._stage, done + share, self._total))
            self._next_s, self._reported = time.perf_counter() + REPORT_EVERY_S, True

    def finish(self) -> None:
        """Report the end of the stage, if an event has reported its progress."""
        if self._reported:
            self._on_event(StageEvent(self._stage, self._total, self._total))
