"""State of the training loop: batches, epochs and stopping, whichever engine computes the losses (spec: config 5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ptycho_backend.config import ExecutionConfig
from ptycho_backend.data.batching import batches_per_epoch
from ptycho_backend.engines.model import History, Model
from ptycho_backend.events import BatchEvent, EpochEvent, OnEvent
from ptycho_backend.model_file.trainer_state import TrainerState
from ptycho_backend.training.monitoring import BestEpoch, check_finite, monitored_metric
from ptycho_backend.training.options import FitOptions
from ptycho_backend.training.schedules import RateSchedule, first_rate


class Mean:
    """
    Weighted mean that is updated value by value.

    Parameters
    ----------
    total, weight : float
        Weighted sum and sum of weights so far.
    """

    def __init__(self, total: float = 0.0, weight: float = 0.0) -> None:
        self.total, self.weight = total, weight

    def add(self, value: float, weight: float) -> None:
        """Add a value."""
        self.total += float(value) * float(weight)
        self.weight += float(weight)

    @property
    def value(self) -> float:
        """The mean so far; NaN before the first value."""
        return self.total / self.weight if self.weight else math.nan


class TrainingLoop:
    """
    State of a training, shared by both engines: counts batches, records losses, decides when to stop.

    Parameters
    ----------
    model : Model
        Holds the checkpoint's weights where a training resumes.
    execution : ExecutionConfig
    on_event : callable
        Receives batch and epoch events.
    options : FitOptions
    n_train : int
        Number of training groups.
    validated : bool
        Whether there are validation groups.

    Attributes
    ----------
    start : TrainerState
        State of the checkpoint; empty for a new training.
    history : list of dict
        One row per finished epoch.
    best : BestEpoch
    schedule : RateSchedule
    n_batches : int
        Batches in a whole epoch.
    epoch, batch : int
        Finished epochs, and finished batches of the next epoch.
    loss : Mean
        Loss over the groups of the unfinished epoch.

    Raises
    ------
    ConfigError
        If the monitored metric does not exist.
    """

    def __init__(
        self,
        model: Model,
        execution: ExecutionConfig,
        on_event: OnEvent,
        options: FitOptions,
        n_train: int,
        validated: bool,
    ) -> None:
        self.model, self.execution, self.options, self.n_train = model, execution, options, n_train
        self._on_event, self.start = on_event, options.resume or TrainerState()
        monitor = monitored_metric(execution.monitor, (model.train_loss_name, model.val_loss_name), validated)
        self.best = BestEpoch(monitor, execution.early_stop_patience, execution.monitor_mode, self.start.monitor)
        self.schedule = RateSchedule(self.nepochs, execution, self.start.schedule)
        self.history: History = list(options.history)
        self.n_batches = batches_per_epoch(n_train, model.training.batch_size)
        self.epoch, self.batch = self.start.epoch, self.start.batch
        self.loss = Mean(self.start.loss_sum, self.start.groups)
        self._best_weights = self.start.best_weights

    @property
    def nepochs(self) -> int:
        """Epochs of the whole training."""
        return self.model.training.nepochs

    @property
    def finished(self) -> bool:
        """Whether all epochs are finished, or early stopping ends the training."""
        return self.epoch >= self.nepochs or self.best.should_stop

    @property
    def rate(self) -> float:
        """Learning rate of the next epoch."""
        return first_rate(self.model.training) * self.schedule.factor(self.epoch)

    @property
    def between_steps(self) -> bool:
        """Whether the last batch has completed an optimiser step and the epoch has further batches."""
        return self.batch % self.execution.accumulate_grad_batches == 0 and self.batch < self.n_batches

    def add_batch(self, loss: float, groups: float) -> None:
        """
        Record the loss of a batch, which is a mean over its groups.

        Raises
        ------
        TrainingError
            If it is not finite.
        """
        self.batch += 1
        check_finite(loss, self.epoch + 1, self.batch)
        self.loss.add(loss, groups)
        self._on_event(BatchEvent(self.epoch + 1, self.nepochs, self.batch, self.n_batches, loss))

    def end_epoch(self, metrics: Mapping[str, float]) -> None:
        """Record the learning rate and the losses of an epoch, under the model's names."""
        row = {"epoch": float(self.epoch + 1), **metrics}
        self.history.append(row)
        if self.best.update(row) and self.execution.restore_best:
            self._best_weights = self.model.get_weights()
        self.schedule.update(row[self.best.monitor_name])
        self.epoch, self.batch, self.loss = self.epoch + 1, 0, Mean()
        self._on_event(EpochEvent(self.epoch, self.nepochs, row))

    def state(self, moments: Mapping[str, Any], saved: Mapping[str, float]) -> TrainerState:
        """
        Return the trainer state of this moment.

        Parameters
        ----------
        moments : mapping
            The optimiser's fields of a TrainerState: `steps`, `first` and `second`.
        saved : mapping of str to float
            File names of the best checkpoints with their monitored values.
        """
        return TrainerState(
            epoch=self.epoch,
            batch=self.batch,
            loss_sum=self.loss.total,
            groups=self.loss.weight,
            monitor=self.best.state,
            schedule=self.schedule.state,
            saved=dict(saved),
            best_weights=self._best_weights,
            **moments,
        )

    def stop_if_requested(self, any_process: Callable[[bool], bool], state: Callable[[], TrainerState]) -> None:
        """
        End training with a checkpoint if one of its processes has a request to stop.

        Parameters
        ----------
        any_process : callable
            Receives this process's flag; returns whether the flag of any process is set.
        state : callable
            Returns the trainer state; called only if training stops.

        Raises
        ------
        TrainingStopped
        """
        if not any_process(self.options.stop.requested):
            return
        writer = self.options.checkpoints
        if writer is not None:
            writer.write(writer.last, self.model, self.history, state())
        raise self.options.stopped(self.epoch, self.batch)

    def restore_best(self) -> None:
        """Set the model to the weights of its best epoch, if `restore_best` is on."""
        if self._best_weights and self.execution.restore_best:
            self.model.set_weights(self._best_weights)
