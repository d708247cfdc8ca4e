"""What an engine reports while it trains: one stream of events, one progress view for both engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class StageEvent:
    """A step outside training begins or ends, e.g. probe refinement (`done` of `total`)."""

    stage: str
    done: int
    total: int
    message: str = ""


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
