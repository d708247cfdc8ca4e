"""What stands around a training: where it starts, where it is kept, whether it has to stop."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ptycho_backend.contract import History, Model
from ptycho_backend.core.interruption import Stop
from ptycho_backend.core.state import TrainerState
from ptycho_backend.errors import TrainingStopped

if TYPE_CHECKING:
    from ptycho_backend.core.monitoring import BestEpoch
    from ptycho_backend.loggers import MetricsLogger


class Keeper(Protocol):
    """Writes checkpoints into a folder: :class:`ptycho_backend.checkpoints.Checkpoints`."""

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
class Control:
    """
    What stands around a training.

    Parameters
    ----------
    resume : TrainerState, optional
        Where an earlier training stopped; the model already holds its weights.
    history : list of dict
        Epochs of the earlier training.
    checkpoints : Keeper, optional
        None keeps nothing on disk.
    stop : Stop
        Asked after every optimiser step.
    logger : MetricsLogger, optional
        Receives the metrics of every epoch; closed by whoever made it.
    """

    resume: TrainerState | None = None
    history: History = field(default_factory=list)
    checkpoints: Keeper | None = None
    stop: Stop = field(default_factory=Stop)
    logger: MetricsLogger | None = None

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
