"""Adapter from Keras' epochs to the metrics logger of the core (spec: config 5.10)."""

from __future__ import annotations

from typing import Any

import keras

from ptycho_backend.engines.model import History
from ptycho_backend.training.loggers import MetricsLogger


class EpochLogger(keras.callbacks.Callback):
    """
    Callback that sends the last row of a history to a logger after every epoch.

    Parameters
    ----------
    logger : MetricsLogger
        The caller closes it.
    history : list of dict
        An earlier callback appends each epoch.
    """

    def __init__(self, logger: MetricsLogger, history: History) -> None:
        super().__init__()
        self._logger, self._history = logger, history

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Log the metrics of an epoch."""
        self._logger.log(self._history[-1], epoch + 1)
