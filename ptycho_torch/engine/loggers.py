"""Adapter from Lightning's logger to the metrics logger of the core (spec: config 5.10)."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from ptycho_backend.training.loggers import MetricsLogger


class EpochLogger(Logger):
    """
    Lightning logger that collects the metrics of an epoch and sends them to a logger as one row.

    Lightning logs the learning rate first, then the validation loss and the training loss.

    Parameters
    ----------
    logger : MetricsLogger
        The caller closes it.
    last : str
        Last metric of an epoch: it completes a row.
    """

    def __init__(self, logger: MetricsLogger, last: str) -> None:
        super().__init__()
        self._logger, self._last = logger, last
        self._row: dict[str, float] = {}

    @property
    def name(self) -> str:
        """Name of the metrics logger."""
        return self._logger.name

    @property
    def version(self) -> str:
        """Empty: a run folder holds one run."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Collect metrics of this epoch; `step` counts batches and is unused."""
        self._row |= metrics
        if self._last in metrics:
            self._logger.log(self._row, int(self._row["epoch"]))
            self._row = {}

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the core logs the configuration for every engine."""
