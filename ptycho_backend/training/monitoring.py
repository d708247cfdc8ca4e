"""Monitored metric, best epoch and early stopping: one rule for both engines (spec: config 5)."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

from ptycho_backend.errors import ConfigError, TrainingError, nearest_name

logger = logging.getLogger(__name__)


class BestEpoch:
    """
    Running optimum of one metric.

    Parameters
    ----------
    monitor_name : str
        Name of the metric, as :func:`resolve_monitor` returns it.
    patience : int, optional
        Epochs in a row without improvement after which training stops; None never stops.
    mode : {"min", "max"}
        Whether the smallest or the largest value is the best.
    state : mapping, optional
        :attr:`state` of the checkpoint that training resumes from.
    """

    def __init__(
        self,
        monitor_name: str,
        patience: int | None = None,
        mode: str = "min",
        state: Mapping[str, float] | None = None,
    ) -> None:
        self.monitor_name, self.patience, self.mode = monitor_name, patience, mode
        start = state or {}
        self.best = float(start.get("best", math.inf if mode == "min" else -math.inf))
        self.best_epoch = int(start.get("best_epoch", 0))
        self.epochs = int(start.get("epochs", 0))

    def update(self, metrics: Mapping[str, float]) -> bool:
        """Record the metrics of one epoch; return whether it is the best so far. NaN is never the best."""
        self.epochs += 1
        value = float(metrics[self.monitor_name])
        improved = value < self.best if self.mode == "min" else value > self.best
        if improved:
            self.best, self.best_epoch = value, self.epochs
        return improved

    @property
    def waited(self) -> int:
        """Epochs since the best one."""
        return self.epochs - self.best_epoch

    @property
    def should_stop(self) -> bool:
        """Whether `patience` epochs have passed since the best one."""
        return self.patience is not None and self.waited >= self.patience

    @property
    def state(self) -> dict[str, float]:
        """Values that a resumed training starts from."""
        return {"best": self.best, "best_epoch": float(self.best_epoch), "epochs": float(self.epochs)}


def resolve_monitor(monitor: str, names: tuple[str, str], has_validation: bool = True) -> str:
    """
    Return the name of the monitored metric.

    "val_loss" and "train_loss" stand for the model's own names. Without validation data the training loss replaces
    the validation loss.

    Parameters
    ----------
    monitor : str
        Value of the option `monitor`.
    names : tuple of str
        Names of the model's training loss and validation loss.
    has_validation : bool

    Raises
    ------
    ConfigError
        If the model reports no such metric.
    """
    train, validation = names
    known = {"val_loss": validation, "train_loss": train, validation: validation, train: train}
    if monitor not in known:
        nearest = nearest_name(monitor, known)
        raise ConfigError(
            f"Unknown metric '{monitor}'.",
            expected=f"one of {', '.join(known)}",
            received=f"monitor={monitor!r}",
            fix=f"did you mean '{nearest}'?" if nearest else "use monitor='val_loss'",
        )
    return train if known[monitor] == validation and not has_validation else known[monitor]


def monitored_metric(monitor: str, names: tuple[str, str], has_validation: bool) -> str:
    """Return the result of :func:`resolve_monitor`; log a warning if it differs from the configured metric."""
    found = resolve_monitor(monitor, names, has_validation)
    if found != resolve_monitor(monitor, names):
        logger.warning("no validation data: '%s' is monitored instead of '%s'", found, monitor)
    return found


def check_finite(loss: float, epoch: int, batch: int) -> None:
    """
    Check that the loss of a batch is a number (`epoch` and `batch` count from 1).

    Raises
    ------
    TrainingError
    """
    if not math.isfinite(loss):
        raise TrainingError(
            "A training loss must stay finite.",
            expected="a finite number",
            received=f"{loss} in epoch {epoch}, batch {batch}",
            fix="lower learning_rate, set gradient_clip_val=1.0, or check probe and data with 'ptychopinn info'",
        )
