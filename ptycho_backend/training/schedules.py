"""Learning-rate schedules by epoch: one formula for both engines (spec: config 5)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ptycho_backend.config import ExecutionConfig, TrainingConfig

RATES = {"scratch": 1e-3, "pretrained": 1e-4}  # by the origin of the first weights


def first_rate(training: TrainingConfig, start: str = "scratch") -> float:
    """
    Return the learning rate before scheduling.

    Pretrained weights get a tenth. The residuals of single patterns fall as their noise is fitted; large steps
    destroy within an epoch the network's estimate of slow phases (ADR-013).
    """
    return RATES[start] if training.learning_rate is None else training.learning_rate


class RateSchedule:
    """
    Learning rate of each epoch as a factor of the first one.

    "plateau" lowers it after more than `scheduler_patience` epochs without improvement of the monitored value.

    Parameters
    ----------
    nepochs : int
    execution : ExecutionConfig
    state : mapping, optional
        :attr:`state` of the checkpoint that training resumes from.

    Notes
    -----
    Spec: config 5.2.
    """

    def __init__(self, nepochs: int, execution: ExecutionConfig, state: Mapping[str, float] | None = None) -> None:
        self._nepochs, self._execution = nepochs, execution
        self._plateau, self._sign = execution.scheduler == "plateau", 1.0 if execution.monitor_mode == "min" else -1.0
        start = (state or {}) if self._plateau else {}
        self._reduction = float(start.get("factor", 1.0))
        self._best = float(start.get("best", math.inf))
        self._waited = int(start.get("waited", 0))

    def factor(self, epoch: int) -> float:
        """Return the factor of an epoch, counted from 0."""
        return self._reduction * rate_factor(epoch, self._nepochs, self._execution)

    def update(self, value: float) -> None:
        """Record the monitored value of a finished epoch; NaN is no improvement."""
        if not self._plateau:
            return
        if self._sign * value < self._best:
            self._best, self._waited = self._sign * value, 0
            return
        self._waited += 1
        if self._waited > self._execution.scheduler_patience:
            self._reduction = max(self._reduction * self._execution.scheduler_factor, self._execution.min_lr_ratio)
            self._waited = 0

    @property
    def state(self) -> dict[str, float]:
        """Values that a resumed training starts from; empty if they depend on the epoch only."""
        if not self._plateau:
            return {}
        return {"factor": self._reduction, "best": self._best, "waited": float(self._waited)}


def rate_factor(epoch: int, nepochs: int, execution: ExecutionConfig) -> float:
    """
    Return the factor of an epoch (counted from 0), as far as it depends on the epoch's number only.

    Warm-up rises linearly to 1; the schedule covers the other epochs.
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
    """Return the epochs, counted from 0, that begin with a lower rate; by default at 1/2 and 3/4 of the training."""
    given = execution.scheduler_milestones
    return [nepochs // 2, nepochs * 3 // 4] if given is None else given
