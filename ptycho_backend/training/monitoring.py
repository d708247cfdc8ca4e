"""Which epoch was the best, and when to stop: one rule for both engines (spec: config 5)."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

from ptycho_backend.errors import ConfigError, TrainingError, nearest_name

logger = logging.getLogger(__name__)


class BestEpoch:
    """
    Watches one metric.

    Parameters
    ----------
    monitor_name : str
        Metric name, as :func:`resolve_monitor` returns it.
    patience : int, optional
        Epochs in a row without improvement after which training should stop; None never stops.
    mode : {"min", "max"}
        Whether less or more is better.
    state : mapping, optional
        :attr:`state` of an earlier training that goes on.
    """

    def __init__(
        self,
        monitor_name: str,
        patience: int | None = None,
        mode: str = "min",
        state: Mapping[str, float] | None = None,
    ) -> None:
        self.monitor_name, self.patience, self.mode = monitor_name, patience, mode
        earlier = state or {}
        self.best = float(earlier.get("best", math.inf if mode == "min" else -math.inf))
        self.best_epoch = int(earlier.get("best_epoch", 0))
        self.epochs = int(earlier.get("epochs", 0))

    def update(self, metrics: Mapping[str, float]) -> bool:
        """Take in the metrics of one more epoch and return whether it is the best so far; NaN never is."""
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
        """What a resumed training has to know."""
        return {"best": self.best, "best_epoch": float(self.best_epoch), "epochs": float(self.epochs)}


def resolve_monitor(monitor: str, names: tuple[str, str], has_validation: bool = True) -> str:
    """
    Return the metric that a monitor setting stands for.

    "val_loss" and "train_loss" stand for the model's own names; without validation data the validation loss
    falls back to the training loss.

    Parameters
    ----------
    monitor : str
        As configured.
    names : tuple of str
        Under which the model reports its training and its validation loss.
    has_validation : bool

    Raises
    ------
    ConfigError
        For a metric that such a model does not report.
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


def monitored(monitor: str, names: tuple[str, str], has_validation: bool) -> str:
    """Return what :func:`resolve_monitor` returns, and say so in the log where it is another metric than asked for."""
    found = resolve_monitor(monitor, names, has_validation)
    if found != resolve_monitor(monitor, names):
        logger.warning("no validation data: '%s' is monitored instead of '%s'", found, monitor)
    return found


def refuse_non_finite(loss: float, epoch: int, batch: int) -> None:
    """
    Stop training at the first loss that is not a number (`epoch` and `batch` count from 1).

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
