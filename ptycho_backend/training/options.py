"""Options of a fit beside the configuration: resume, checkpoints, stop request, logger, callbacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ptycho_backend.engines.model import History
from ptycho_backend.errors import ConfigError, TrainingStopped
from ptycho_backend.model_file.trainer_state import TrainerState
from ptycho_backend.training.signals import Stop

if TYPE_CHECKING:
    from ptycho_backend.training.checkpoints import CheckpointWriter
    from ptycho_backend.training.loggers import MetricsLogger


@dataclass(eq=False)
class FitOptions:
    """
    Options of :meth:`ptycho_backend.engines.contract.Backend.fit`.

    Parameters
    ----------
    resume : TrainerState, optional
        State of the checkpoint that training resumes from; the model already holds its weights.
    history : list of dict
        Epochs of the checkpoint.
    checkpoints : CheckpointWriter, optional
        None writes no checkpoints.
    stop : Stop
        Stop request, which the engine reads after every optimiser step.
    logger : MetricsLogger, optional
        Receives the metrics of every epoch; the caller closes it.
    callbacks : sequence
        The framework's own callbacks; they run after those of the engine.
    """

    resume: TrainerState | None = None
    history: History = field(default_factory=list)
    checkpoints: CheckpointWriter | None = None
    stop: Stop = field(default_factory=Stop)
    logger: MetricsLogger | None = None
    callbacks: Sequence[Any] = ()

    def check_callbacks(self, kind: type) -> None:
        """
        Check that callbacks are of the framework's class.

        Raises
        ------
        ConfigError
        """
        foreign = [type(callback).__name__ for callback in self.callbacks if not isinstance(callback, kind)]
        if foreign:
            raise ConfigError(
                "Callbacks are those of the framework that trains.",
                expected=f"instances of {kind.__module__}.{kind.__name__}",
                received=f"callbacks={', '.join(foreign)}",
                fix="derive the class from it, or use 'on_event', which every engine calls",
            )

    def stopped(self, epoch: int, batch: int) -> TrainingStopped:
        """Return the exception that ends training after a stop request."""
        where = f"after epoch {epoch}" + (f" and batch {batch} of the next one" if batch else "")
        saved = f"saved in '{self.checkpoints.last}'" if self.checkpoints else "not saved: no folder was given"
        error = TrainingStopped(
            "Training stopped on request.",
            received=f"a signal {where}; {saved}",
            fix="go on with --resume (in Python: resume=True)" if self.checkpoints else "give a folder for checkpoints",
        )
        error.signal = self.stop.signal or error.signal
        return error
