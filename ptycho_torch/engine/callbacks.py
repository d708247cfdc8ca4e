"""What Lightning tells between batches goes to the course of the training, and where that stands into checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import Tensor

from ptycho_backend.events import EpochEvent, Event, OnEvent
from ptycho_backend.model_file.trainer_state import TrainerState
from ptycho_backend.training.loop import TrainingLoop
from ptycho_torch.engine.checkpoint import kept_by, moments_of
from ptycho_torch.engine.model import TorchModel


class Reporter(pl.Callback):
    """
    Hands on losses, stops, and says where training stands.

    Parameters
    ----------
    model : TorchModel
    loop : TrainingLoop
    """

    def __init__(self, model: TorchModel, loop: TrainingLoop) -> None:
        self.loop, self._model = loop, model
        self.checkpoint_callbacks: list[pl.callbacks.ModelCheckpoint] = []

    def on_train_start(self, trainer, module) -> None:
        """Remember who trains; Lightning's own answer to SIGTERM would end an epoch half-way, with status 0."""
        self.loop.options.stop.listen()
        self._optimizer = trainer.optimizers[0]

    def on_train_epoch_start(self, trainer, module) -> None:
        """Note the learning rate now: Lightning moves the schedule on before an epoch ends."""
        self.loop.stop_if_asked(module.process_group.any, self.state)
        self._rate = float(self._optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index) -> None:
        """Hand on the loss of a batch; stop here if asked to and an optimiser step has just been taken."""
        self.loop.take_batch(float(outputs["batch_loss"]), outputs["groups"])
        if self.loop.between_steps:
            self.loop.stop_if_asked(module.process_group.any, self.state)

    def on_train_epoch_end(self, trainer, module) -> None:
        """Hand on the epoch's losses, before Lightning writes checkpoints, which hold what follows from them."""
        module.log("epoch", float(self.loop.epoch + 1))  # what checkpoint names count with
        module.log(module.train_loss_name, self.loop.loss.value)
        # Read back, so that the history holds the very numbers that Lightning's callbacks decide by.
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.loop.end_epoch({**logged, "lr": self._rate})

    def state(self) -> TrainerState:
        """Return where training stands."""
        kept = kept_by(self.checkpoint_callbacks[0]) if self.checkpoint_callbacks else {}
        return self.loop.state(moments_of(self._optimizer, self._model.trained()), kept)

    def write_checkpoint(self, path: Path) -> None:
        """Write a checkpoint of this moment."""
        self.loop.options.checkpoints.write(path, self._model, self.loop.history, self.state())


@dataclass(eq=False)
class ReplayedTrainer:
    """What a callback sees of a Trainer that works in other processes: the epoch and its metrics."""

    max_epochs: int
    current_epoch: int = 0
    callback_metrics: dict[str, Tensor] = field(default_factory=dict)
    sanity_checking: bool = False


def replayed(callbacks: Sequence[pl.Callback], model: TorchModel, on_event: OnEvent) -> OnEvent:
    """
    Return a listener that tells callbacks of this process about every epoch that others have trained.

    A class may be local to a function and so cannot travel to them, and lists that it fills there would not come back.
    """
    trainer = ReplayedTrainer(model.training.nepochs)

    def listen(event: Event) -> None:
        if isinstance(event, EpochEvent):
            trainer.current_epoch = event.epoch - 1
            trainer.callback_metrics = {name: torch.tensor(value) for name, value in event.metrics.items()}
            validated = model.val_loss_name in event.metrics
            for callback in callbacks:
                if validated:
                    callback.on_validation_epoch_end(trainer, model.module)
                callback.on_train_epoch_end(trainer, model.module)
        on_event(event)

    return listen if callbacks else on_event
