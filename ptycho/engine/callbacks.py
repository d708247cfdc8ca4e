"""Keras callbacks that connect Keras' training to the training loop of the core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from ptycho.engine.checkpoint import moments_of
from ptycho.engine.device import placement
from ptycho.engine.model import TensorFlowModel
from ptycho.engine.parallel import ProcessGroup
from ptycho_backend.events import EpochEvent, Event, OnEvent
from ptycho_backend.model_file.trainer_state import TrainerState
from ptycho_backend.training.loop import Mean, TrainingLoop
from ptycho_backend.training.parallel import process_rank


class Reporter(keras.callbacks.Callback):
    """
    Callback that sets the learning rate, reports losses, writes checkpoints and stops training.

    Parameters
    ----------
    model : TensorFlowModel
    loop : TrainingLoop
    """

    def __init__(self, model: TensorFlowModel, loop: TrainingLoop) -> None:
        super().__init__()
        self.loop, self.process_group = loop, ProcessGroup(process_rank(loop.execution), placement(model.device))
        # Keras sets `self.model` to its own model.
        self._trained_model, self._saved, self._validation = model, loop.start.saved, Mean()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Set the learning rate; stop here on request."""
        self.loop.stop_if_requested(self.process_group.any, self.state)
        self._validation, self._rate = Mean(), self.loop.rate
        self.model.optimizer.learning_rate = self._rate

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Report the loss of a batch; stop here on request after an optimiser step."""
        self.loop.add_batch(float(logs["loss"]), logs["groups"])
        if self.loop.between_steps:
            self.loop.stop_if_requested(self.process_group.any, self.state)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        """Add the loss of a validation batch to its mean."""
        self._validation.add(logs["loss"], logs["groups"])

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Report the losses of the epoch, write checkpoints, and stop early if the loop has finished."""
        metrics = {"lr": self._rate, self._trained_model.train_loss_name: self.loop.loss.value}
        if self._validation.weight > 0:
            # The mean over processes removes rounding differences, so that all processes decide alike.
            total = self.process_group.total(self._validation.value)
            metrics[self._trained_model.val_loss_name] = total / self.process_group.process.world
        self.loop.end_epoch(metrics)
        logs.update(metrics)  # for the callbacks after this one
        writer = self.loop.options.checkpoints
        if writer is not None:
            state = self.state()
            writer.write_epoch(self._trained_model, self.loop.history, state, self.loop.best)
            self._saved = state.saved
        self.model.stop_training = self.loop.finished

    def state(self) -> TrainerState:
        """Return the state of training."""
        return self.loop.state(moments_of(self.model.optimizer, self._trained_model.trained()), self._saved)


def replayed(callbacks: Sequence[keras.callbacks.Callback], on_event: OnEvent) -> OnEvent:
    """Return a listener that replays the epochs of other processes to the callbacks of this process."""

    def listen(event: Event) -> None:
        if isinstance(event, EpochEvent):
            for callback in callbacks:
                callback.on_epoch_end(event.epoch - 1, dict(event.metrics))
        on_event(event)

    return listen if callbacks else on_event
