"""Lightning callbacks that connect Lightning's Trainer to the training loop of the core."""

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
from ptycho_torch.engine.checkpoint import moments_of, saved_by
from ptycho_torch.engine.model import TorchModel


class Reporter(pl.Callback):
    """
    Callback that reports losses, stops training and returns its state.

    Parameters
    ----------
    model : TorchModel
    loop : TrainingLoop
    """

    def __init__(self, model: TorchModel, loop: TrainingLoop) -> None:
        self.loop, self._model = loop, model
        self.checkpoint_callbacks: list[pl.callbacks.ModelCheckpoint] = []

    def on_train_start(self, trainer, module) -> None:
        """Keep the optimiser; replace Lightning's SIGTERM handler, which ends an epoch half-way with status 0."""
        self.loop.options.stop.listen()
        self._optimizer = trainer.optimizers[0]

    def on_train_epoch_start(self, trainer, module) -> None:
        """Keep the learning rate, which Lightning changes before the epoch ends; stop here on request."""
        self.loop.stop_if_requested(module.process_group.any, self.state)
        self._rate = float(self._optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index) -> None:
        """Report the loss of a batch; stop here on request after an optimiser step."""
        self.loop.add_batch(float(outputs["batch_loss"]), outputs["groups"])
        if self.loop.between_steps:
            self.loop.stop_if_requested(module.process_group.any, self.state)

    def on_train_epoch_end(self, trainer, module) -> None:
        """Report the losses of the epoch, before Lightning writes checkpoints with the new state."""
        module.log("epoch", float(self.loop.epoch + 1))  # for the file names of checkpoints
        module.log(module.train_loss_name, self.loop.loss.value)
        # Read back: history and Lightning's callbacks use the same numbers.
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.loop.end_epoch({**logged, "lr": self._rate})

    def state(self) -> TrainerState:
        """Return the state of training."""
        saved = saved_by(self.checkpoint_callbacks[0]) if self.checkpoint_callbacks else {}
        return self.loop.state(moments_of(self._optimizer, self._model.trained()), saved)

    def write_checkpoint(self, path: Path) -> None:
        """Write a checkpoint of the present state."""
        self.loop.options.checkpoints.write(path, self._model, self.loop.history, self.state())


@dataclass(eq=False)
class ReplayedTrainer:
    """Stand-in for a Trainer in other processes: its epoch and metrics for callbacks."""

    max_epochs: int
    current_epoch: int = 0
    callback_metrics: dict[str, Tensor] = field(default_factory=dict)
    sanity_checking: bool = False


def replayed(callbacks: Sequence[pl.Callback], model: TorchModel, on_event: OnEvent) -> OnEvent:
    """
    Return a listener that replays the epochs of other processes to the callbacks of this process.

    Callbacks run here because a local class cannot be pickled, and a list that it fills elsewhere would be lost.
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
