"""Which epoch was the best, and when to stop: one rule for both engines (spec: config 5)."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

from ptycho_backend.contract import Model
from ptycho_backend.errors import ConfigError, TrainingError, nearest_name

logger = logging.getLogger(__name__)


class BestEpoch:
    """
    Watches one metric, of which less is better.

    Parameters
    ----------
    monitor_name : str
        Metric name, as :func:`resolve_monitor` returns it.
    patience : int, optional
        Epochs in a row without improvement after which training should stop; None never stops.
    """

    def __init__(self, monitor_name: str, patience: int | None = None) -> None:
        self.monitor_name = monitor_name
        self.patience = patience
        self.best = math.inf
        self.best_epoch = 0
        self._epochs = 0

    def update(self, metrics: Mapping[str, float]) -> bool:
        """Take in the metrics of one more epoch and return whether it is the best so far; NaN never is."""
        self._epochs += 1
        value = float(metrics[self.monitor_name])
        improved = value < self.best
        if improved:
            self.best, self.best_epoch = value, self._epochs
        return improved

    @property
    def should_stop(self) -> bool:
        """Whether `patience` epochs have passed since the best one."""
        return self.patience is not None and self._epochs - self.best_epoch >= self.patience


def resolve_monitor(monitor: str, model: Model, has_validation: bool) -> str:
    """
    Return the metric that a monitor setting stands for.

    "val_loss" and "train_loss" stand for the model's own names; without validation data the validation loss
    falls back to the training loss, with a warning in the log.

    Raises
    ------
    ConfigError
        For a metric that this model does not report.
    """
    train, validation = model.train_loss_name, model.val_loss_name
    known = {"val_loss": validation, "train_loss": train, validation: validation, train: train}
    if monitor not in known:
        nearest = nearest_name(monitor, known)
        raise ConfigError(
            f"Unknown metric '{monitor}'.",
            expected=f"one of {', '.join(known)}",
            received=f"monitor={monitor!r}",
            fix=f"did you mean '{nearest}'?" if nearest else "use monitor='val_loss'",
        )
    if known[monitor] == validation and not has_validation:
        logger.warning("no validation data: '%s' is monitored instead of '%s'", train, monitor)
        return train
    return known[monitor]


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
