"""Learning rates, epoch by epoch: one formula for both engines (spec: config 5)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ptycho_backend.config import ExecutionConfig, TrainingConfig

RATES = {"scratch": 1e-3, "pretrained": 1e-4}  # by where weights start


def first_rate(training: TrainingConfig, start: str = "scratch") -> float:
    """
    Return the learning rate before scheduling.

    Trained weights get a tenth: the misfit of single patterns falls as they are fitted to their noise, and steps as
    large as those from random weights lose within an epoch what the network knows of slow phases (ADR-013).
    """
    return RATES[start] if training.learning_rate is None else training.learning_rate


class RateSchedule:
    """
    The learning rate of each epoch, as a factor of the configured one.

    Parameters
    ----------
    nepochs : int
    execution : ExecutionConfig
    state : mapping, optional
        :attr:`state` of an earlier training that goes on.

    Notes
    -----
    Spec: config 5.2.
    """

    def __init__(self, nepochs: int, execution: ExecutionConfig, state: Mapping[str, float] | None = None) -> None:
        self._nepochs, self._execution = nepochs, execution
        self._plateau = Plateau(execution, state or {}) if execution.scheduler == "plateau" else None

    def factor(self, epoch: int) -> float:
        """Return the factor of an epoch, counted from 0."""
        reduced = 1.0 if self._plateau is None else self._plateau.factor
        return reduced * rate_factor(epoch, self._nepochs, self._execution)

    def update(self, value: float) -> None:
        """Take in the monitored value of an epoch that has ended."""
        if self._plateau is not None:
            self._plateau.update(value)

    @property
    def state(self) -> dict[str, float]:
        """What a resumed training has to know."""
        return {} if self._plateau is None else self._plateau.state


class Plateau:
    """
    Lowers the rate when the monitored value has not improved for more than `scheduler_patience` epochs.

    Parameters
    ----------
    execution : ExecutionConfig
    state : mapping
        :attr:`state` of an earlier training, or empty.
    """

    def __init__(self, execution: ExecutionConfig, state: Mapping[str, float]) -> None:
        self._execution, self._sign = execution, 1.0 if execution.monitor_mode == "min" else -1.0
        self.factor = float(state.get("factor", 1.0))
        self._best = float(state.get("best", math.inf))
        self._waited = int(state.get("waited", 0))

    def update(self, value: float) -> None:
        """Take in the monitored value of an epoch; NaN is no improvement."""
        if self._sign * value < self._best:
            self._best, self._waited = self._sign * value, 0
            return
        self._waited += 1
        if self._waited > self._execution.scheduler_patience:
            self.factor = max(self.factor * self._execution.scheduler_factor, self._execution.min_lr_ratio)
            self._waited = 0

    @property
    def state(self) -> dict[str, float]:
        """What a resumed training has to know."""
        return {"factor": self.factor, "best": self._best, "waited": float(self._waited)}


def rate_factor(epoch: int, nepochs: int, execution: ExecutionConfig) -> float:
    """
    Return the factor that an epoch (counted from 0) has by its number alone.

    Warm-up rises linearly to 1 over its epochs; the schedule fills the rest.
    """
    warmup = execution.warmup_epochs
    if epoch < warmup:
        return (epoch + 1) / (warmup + 1)
    progress = min((epoch - warmup) / max(1, nepochs - warmup - 1), 1.0)
    low = execution.min_lr_ratio
    if execution.scheduler == "cosine":
        return low + (1.0 - low) * 0.5 * (1.0 + math.cos(math.pi * progress))
    if execution.scheduler == "exponential":
        return float(low**progress)
    if execution.scheduler == "multistep":
        passed = sum(epoch >= milestone for milestone in milestones(nepochs, execution))
        return max(execution.scheduler_factor**passed, low)
    return 1.0


def milestones(nepochs: int, execution: ExecutionConfig) -> list[int]:
    """Return the epochs, counted from 0, that begin with a lower rate: as given, or at 1/2 and 3/4 of the training."""
    given = execution.scheduler_milestones
    return [nepochs // 2, nepochs * 3 // 4] if given is None else given
