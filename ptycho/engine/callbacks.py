"""What Keras tells between batches goes to the course of the training, and what that decides goes to Keras."""

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
from ptycho_backend.training.loop import TrainingLoop
from ptycho_backend.training.means import Mean
from ptycho_backend.training.parallel import process_rank


class Reporter(keras.callbacks.Callback):
    """
    Sets the rates, hands on losses, keeps checkpoints and stops.

    Parameters
    ----------
    model : TensorFlowModel
    loop : TrainingLoop
    """

    def __init__(self, model: TensorFlowModel, loop: TrainingLoop) -> None:
        super().__init__()
        self.loop, self.process_group = loop, ProcessGroup(process_rank(loop.execution), placement(model.device))
        self._owner, self._kept, self._validation = model, loop.start.kept, Mean()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Set the learning rate; stop here if asked to."""
        self.loop.stop_if_asked(self.process_group.any, self.state)
        self._validation, self._rate = Mean(), self.loop.rate
        self.model.optimizer.learning_rate = self._rate

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Hand on the loss of a batch; stop here if asked to and an optimiser step has just been taken."""
        self.loop.take_batch(float(logs["loss"]), logs["groups"])
        if self.loop.between_steps:
            self.loop.stop_if_asked(self.process_group.any, self.state)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        """Take in the loss of a validation batch."""
        self._validation.add(logs["loss"], logs["groups"])

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Hand on the epoch's losses, keep what is to be kept, stop where nothing improves any more."""
        metrics = {"lr": self._rate, self._owner.train_loss_name: self.loop.loss.value}
        if self._validation.weight > 0:
            # Equal in every process but for rounding, which must not lead them to different decisions.
            total = self.process_group.total(self._validation.value)
            metrics[self._owner.val_loss_name] = total / self.process_group.rank.world
        self.loop.end_epoch(metrics)
        logs.update(metrics)  # for the callbacks that come after this one
        writer = self.loop.options.checkpoints
        if writer is not None:
            state = self.state()
            writer.keep_epoch(self._owner, self.loop.history, state, self.loop.best)
            self._kept = state.kept
        self.model.stop_training = self.loop.over

    def state(self) -> TrainerState:
        """Return where training stands."""
        return self.loop.state(moments_of(self.model.optimizer, self._owner.trained()), self._kept)


def replayed(callbacks: Sequence[keras.callbacks.Callback], on_event: OnEvent) -> OnEvent:
    """Return a listener that tells callbacks of this process about every epoch that others have trained."""

    def listen(event: Event) -> None:
        if isinstance(event, EpochEvent):
            for callback in callbacks:
                callback.on_epoch_end(event.epoch - 1, dict(event.metrics))
        on_event(event)

    return listen if callbacks else on_event
