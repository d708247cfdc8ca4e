"""What Lightning logs goes to the logger that both engines share (spec: config 5.10)."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from ptycho_backend.training.loggers import MetricsLogger


class PortableLogger(Logger):
    """
    Gathers what Lightning logs in the course of an epoch, and hands it on as one row.

    Lightning logs the rate when an epoch begins, the validation loss after it and the training loss at its end.

    Parameters
    ----------
    logger : MetricsLogger
        Closed by whoever made it.
    last : str
        The metric that comes last: with it a row is complete.
    """

    def __init__(self, logger: MetricsLogger, last: str) -> None:
        super().__init__()
        self._logger, self._last = logger, last
        self._row: dict[str, float] = {}

    @property
    def name(self) -> str:
        """Name of the logger that writes."""
        return self._logger.name

    @property
    def version(self) -> str:
        """Empty: a run folder holds one run."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Take in metrics of this epoch; `step` counts batches and is not used."""
        self._row |= metrics
        if self._last in metrics:
            self._logger.log(self._row, int(self._row["epoch"]))
            self._row = {}

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the front door hands over the whole configuration, on every engine."""
