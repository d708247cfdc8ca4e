"""What an engine reports while it trains: one stream of events, one progress view for both engines."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ptycho_backend.data.image import Image

REPORT_EVERY_S = 0.5  # parts of a step are told no more often


@dataclass(frozen=True)
class StageEvent:
    """
    A step outside training goes on or ends, e.g. probe refinement (`done` of `total`).

    Parameters
    ----------
    stage : str
    done : float
        Steps done; a fraction where a step takes long.
    total : int
    message : str
    image : callable, optional
        Makes the image of the whole scan as it stands after this step; it stays valid when the work goes on.
    """

    stage: str
    done: float
    total: int
    message: str = ""
    image: Callable[[], Image] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class BatchEvent:
    """One batch has been processed: `batch` of `n_batches` in `epoch` of `nepochs` (all counted from 1)."""

    epoch: int
    nepochs: int
    batch: int
    n_batches: int
    loss: float


@dataclass(frozen=True)
class EpochEvent:
    """One epoch is complete; `metrics` uses the model's own metric names, plus ``lr`` and ``epoch``."""

    epoch: int
    nepochs: int
    metrics: Mapping[str, float] = field(default_factory=dict)


Event = StageEvent | BatchEvent | EpochEvent
OnEvent = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Listen to nothing: the default listener."""


def without_images(on_event: OnEvent) -> OnEvent:
    """Return a listener for work whose images are not those of the whole scan."""
    return lambda event: on_event(replace(event, image=None) if isinstance(event, StageEvent) else event)


class ThrottledProgress:
    """
    Tells how far a step of a stage has come, but only now and then.

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
        self._told = False

    def report(self, done: float, share: float = 0.0) -> None:
        """Tell that so many steps are done, and a share of the next one, unless something was told a moment ago."""
        if time.perf_counter() >= self._next_s:
            self._on_event(StageEvent(self._stage, done + share, self._total))
            self._next_s, self._told = time.perf_counter() + REPORT_EVERY_S, True

    def finish(self) -> None:
        """Tell that the stage is over, if anything was told of it."""
        if self._told:
            self._on_event(StageEvent(self._stage, self._total, self._total))
