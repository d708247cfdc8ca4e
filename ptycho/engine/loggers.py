"""What Keras has computed in an epoch goes to the logger that both engines share (spec: config 5.10)."""

from __future__ import annotations

from typing import Any

import keras

from ptycho_backend.engines.model import History
from ptycho_backend.training.loggers import MetricsLogger


class EpochLogger(keras.callbacks.Callback):
    """
    Hands on the last row of a history at the end of every epoch.

    Parameters
    ----------
    logger : MetricsLogger
        Closed by whoever made it.
    history : list of dict
        To which a callback that comes before this one has appended the epoch.
    """

    def __init__(self, logger: MetricsLogger, history: History) -> None:
        super().__init__()
        self._logger, self._history = logger, history

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Hand on an epoch."""
        self._logger.log(self._history[-1], epoch + 1)
