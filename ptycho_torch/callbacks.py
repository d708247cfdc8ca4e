"""What happens between batches under Lightning: events, history, the best epoch, and where training stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import Tensor

from ptycho_backend.config import ExecutionConfig
from ptycho_backend.contract import History
from ptycho_backend.core.control import Control
from ptycho_backend.core.means import Mean
from ptycho_backend.core.monitoring import BestEpoch
from ptycho_backend.core.state import TrainerState
from ptycho_backend.events import BatchEvent, EpochEvent, Event, OnEvent
from ptycho_torch.checkpoint import kept_by, moments_of
from ptycho_torch.model import TorchModel


class Reporter(pl.Callback):
    """
    Sends events, writes the history, remembers the best epoch's weights, and says where training stands.

    Parameters
    ----------
    model : TorchModel
    execution : ExecutionConfig
    best : BestEpoch
    on_event : callable
    control : Control
    n_batches : int
        Of a whole epoch.
    """

    def __init__(
        self,
        model: TorchModel,
        execution: ExecutionConfig,
        best: BestEpoch,
        on_event: OnEvent,
        control: Control,
        n_batches: int,
    ) -> None:
        self.best, self.control = best, control
        self.history: History = list(control.history)
        self.checkpoint_callbacks: list[pl.callbacks.ModelCheckpoint] = []
        self._model, self._execution, self._on_event, self._n_batches = model, execution, on_event, n_batches
        state = control.resume or TrainerState()
        self._best_weights = state.best_weights
        self._epoch, self._batch, self._loss = state.epoch, state.batch, Mean(state.loss_sum, state.groups)

    def on_train_start(self, trainer, module) -> None:
        """Remember who trains; Lightning's own answer to SIGTERM would end an epoch half-way, with status 0."""
        self.control.stop.listen()
        self._trainer, self._module = trainer, module

    def on_train_epoch_start(self, trainer, module) -> None:
        """Note the learning rate now: Lightning moves the schedule on before an epoch ends."""
        if module.team.any(self.control.stop.requested):
            self._stop()
        self._rate = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index) -> None:
        """Report a batch; stop here if that was asked for and an optimiser step has just been taken."""
        loss = float(outputs["batch_loss"])
        self._loss.add(loss, outputs["groups"])
        self._batch = module.first_batch + batch_index + 1
        self._on_event(BatchEvent(self._epoch + 1, trainer.max_epochs, self._batch, self._n_batches, loss))
        stepped = self._batch % self._execution.accumulate_grad_batches == 0
        if stepped and self._batch < self._n_batches and module.team.any(self.control.stop.requested):
            self._stop()

    def on_train_epoch_end(self, trainer, module) -> None:
        """Report an epoch, and compare it with the best one so far."""
        module.log("epoch", float(self._epoch + 1))  # what checkpoint names count with
        module.log(module.train_loss_name, self._loss.value)
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        metrics = {**logged, "epoch": float(self._epoch + 1), "lr": self._rate}
        self.history.append(metrics)
        if self.best.update(metrics) and self._execution.restore_best:
            self._best_weights = self._model.get_weights()
        # Before the checkpoints are written, which hold its state; Lightning steps it after them.
        module.schedule.update(metrics[self.best.monitor_name])
        self._epoch, self._batch, self._loss = self._epoch + 1, 0, Mean()
        self._on_event(EpochEvent(self._epoch, trainer.max_epochs, metrics))

    def finish(self) -> None:
        """Give the model the weights of its best epoch, where that was asked for."""
        if self._best_weights and self._execution.restore_best:
            self._model.set_weights(self._best_weights)

    def state(self) -> TrainerState:
        """Return where training stands."""
        best = self.checkpoint_callbacks[0] if self.checkpoint_callbacks else None
        return TrainerState(
            epoch=self._epoch,
            batch=self._batch,
            loss_sum=self._loss.total,
            groups=self._loss.weight,
            monitor=self.best.state,
            schedule=self._module.schedule.state,
            kept=kept_by(best) if best else {},
            best_weights=self._best_weights,
            **moments_of(self._trainer.optimizers[0], self._model.trained()),
        )

    def write_checkpoint(self, path: Path) -> None:
        """Write a checkpoint of this moment."""
        self.control.checkpoints.write(path, self._model, self.history, self.state())

    def _stop(self) -> None:
        keeper = self.control.checkpoints
        if keeper is not None:
            self.write_checkpoint(keeper.last)
        raise self.control.stopped(self._epoch, self._batch)


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
