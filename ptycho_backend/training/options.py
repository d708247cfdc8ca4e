"""What stands around a training: where it starts, where it is kept, whether it has to stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ptycho_backend.engines.model import History, Model
from ptycho_backend.errors import ConfigError, TrainingStopped
from ptycho_backend.model_file.trainer_state import TrainerState
from ptycho_backend.training.signals import Stop

if TYPE_CHECKING:
    from ptycho_backend.training.loggers import MetricsLogger
    from ptycho_backend.training.monitoring import BestEpoch


class CheckpointWriter(Protocol):
    """Writes checkpoints into a folder: :class:`ptycho_backend.training.checkpoints.Checkpoints`."""

    folder: Path
    save_top_k: int

    @property
    def last(self) -> Path:
        """The checkpoint of the last step that was kept."""

    def check_room(self, model: Model) -> None:
        """Refuse a disk that is already too full for the checkpoints of a model."""

    def write(self, path: Path, model: Model, history: History, state: TrainerState) -> None:
        """Write one checkpoint, whole or not at all."""

    def keep_epoch(self, model: Model, history: History, state: TrainerState, best: BestEpoch) -> None:
        """Write an epoch's checkpoints: the last one, and the best ones where it is one of these."""


@dataclass(eq=False)
class FitOptions:
    """
    What stands around a training.

    Parameters
    ----------
    resume : TrainerState, optional
        Where an earlier training stopped; the model already holds its weights.
    history : list of dict
        Epochs of the earlier training.
    checkpoints : CheckpointWriter, optional
        None keeps nothing on disk.
    stop : Stop
        Asked after every optimiser step.
    logger : MetricsLogger, optional
        Receives the metrics of every epoch; closed by whoever made it.
    callbacks : sequence
        The framework's own callbacks, which join those of the engine.
    """

    resume: TrainerState | None = None
    history: History = field(default_factory=list)
    checkpoints: CheckpointWriter | None = None
    stop: Stop = field(default_factory=Stop)
    logger: MetricsLogger | None = None
    callbacks: Sequence[Any] = ()

    def check_callbacks(self, kind: type) -> None:
        """
        Refuse callbacks that are not of the framework's class.

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
                fix="derive the class from it, or listen to epochs with 'on_event', which suits every engine",
            )

    def stopped(self, epoch: int, batch: int) -> TrainingStopped:
        """Return what a training raises when it ends because it was asked to."""
        where = f"after epoch {epoch}" + (f" and batch {batch} of the next one" if batch else "")
        kept = f"kept in '{self.checkpoints.last}'" if self.checkpoints else "not kept: no folder was given"
        error = TrainingStopped(
            "Training was asked to stop.",
            received=f"a signal {where}; {kept}",
            fix="go on with --resume (in Python: resume=True)" if self.checkpoints else "give a folder for checkpoints",
        )
        error.signal = self.stop.signal or error.signal
        return error
