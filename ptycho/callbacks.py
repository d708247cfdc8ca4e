"""What happens between batches under Keras: rates, events, history, checkpoints, and when to stop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from ptycho.checkpoint import moments_of
from ptycho.execution import placement
from ptycho.model import TensorFlowModel
from ptycho.parallel import Team
from ptycho_backend.config import ExecutionConfig
from ptycho_backend.contract import History
from ptycho_backend.core.control import Control
from ptycho_backend.core.means import Mean
from ptycho_backend.core.monitoring import BestEpoch, refuse_non_finite
from ptycho_backend.core.schedules import RateSchedule
from ptycho_backend.core.state import TrainerState
from ptycho_backend.events import BatchEvent, EpochEvent, Event, OnEvent
from ptycho_backend.parallel import place_of


class Reporter(keras.callbacks.Callback):
    """
    Sets the rates, sends events, writes the history, keeps checkpoints and stops.

    Parameters
    ----------
    model : TensorFlowModel
    execution : ExecutionConfig
    best : BestEpoch
    on_event : callable
    control : Control
    n_batches : int
        Of a whole epoch.
    """

    def __init__(
        self,
        model: TensorFlowModel,
        execution: ExecutionConfig,
        best: BestEpoch,
        on_event: OnEvent,
        control: Control,
        n_batches: int,
    ) -> None:
        super().__init__()
        self.best, self.control, self.team = best, control, Team(place_of(execution), placement(model.device))
        self.history: History = list(control.history)
        self._owner, self._execution, self._on_event, self._n_batches = model, execution, on_event, n_batches
        state = control.resume or TrainerState()
        self._schedule = RateSchedule(model.training.nepochs, execution, state.schedule)
        self._best_weights, self._kept = state.best_weights, state.kept
        self._epoch, self._batch, self._loss = state.epoch, state.batch, Mean(state.loss_sum, state.groups)
        self._validation = Mean()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Set the learning rate."""
        if self.team.any(self.control.stop.requested):
            self._stop()
        self._validation = Mean()
        self._rate = self._owner.training.learning_rate * self._schedule.factor(epoch)
        self.model.optimizer.learning_rate = self._rate

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Take in the loss of a batch; stop here if asked to and an optimiser step has just been taken."""
        loss, nepochs = float(logs["loss"]), self._owner.training.nepochs
        self._batch += 1
        refuse_non_finite(loss, self._epoch + 1, self._batch)
        self._loss.add(loss, logs["groups"])
        self._on_event(BatchEvent(self._epoch + 1, nepochs, self._batch, self._n_batches, loss))
        stepped = self._batch % self._execution.accumulate_grad_batches == 0
        if stepped and self._batch < self._n_batches and self.team.any(self.control.stop.requested):
            self._stop()

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        """Take in the loss of a validation batch."""
        self._validation.add(logs["loss"], logs["groups"])

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Report the epoch, keep what is to be kept, stop where nothing improves any more."""
        metrics = {"epoch": float(epoch + 1), "lr": self._rate, self._owner.train_loss_name: self._loss.value}
        if self._validation.weight > 0:
            # Equal in every process but for rounding, which must not lead them to different decisions.
            total = self.team.total(self._validation.value)
            metrics[self._owner.val_loss_name] = total / self.team.place.world
        self.history.append(metrics)
        logs.update(metrics)  # for the callbacks that come after this one
        if self.best.update(metrics) and self._execution.restore_best:
            self._best_weights = self._owner.get_weights()
        self._schedule.update(metrics[self.best.monitor_name])
        self._epoch, self._batch, self._loss = epoch + 1, 0, Mean()
        if self.control.checkpoints is not None:
            state = self.state()
            self.control.checkpoints.keep_epoch(self._owner, self.history, state, self.best)
            self._kept = state.kept
        self._on_event(EpochEvent(self._epoch, self._owner.training.nepochs, metrics))
        self.model.stop_training = self.best.should_stop

    def finish(self) -> None:
        """Give the model the weights of its best epoch, where that was asked for."""
        if self._best_weights and self._execution.restore_best:
            self._owner.set_weights(self._best_weights)

    def state(self) -> TrainerState:
        """Return where training stands."""
        return TrainerState(
            epoch=self._epoch,
            batch=self._batch,
            loss_sum=self._loss.total,
            groups=self._loss.weight,
            monitor=self.best.state,
            schedule=self._schedule.state,
            kept=self._kept,
            best_weights=self._best_weights,
            **moments_of(self.model.optimizer, self._owner.trained()),
        )

    def _stop(self) -> None:
        keeper = self.control.checkpoints
        if keeper is not None:
            keeper.write(keeper.last, self._owner, self.history, self.state())
        raise self.control.stopped(self._epoch, self._batch)


def replayed(callbacks: Sequence[keras.callbacks.Callback], on_event: OnEvent) -> OnEvent:
    """Return a listener that tells callbacks of this process about every epoch that others have trained."""

    def listen(event: Event) -> None:
        if isinstance(event, EpochEvent):
            for callback in callbacks:
                callback.on_epoch_end(event.epoch - 1, dict(event.metrics))
        on_event(event)

    return listen if callbacks else on_event
