"""The course of a training: what happens between its batches, whatever framework computes them (spec: config 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ptycho_backend.config import ExecutionConfig
from ptycho_backend.data.batching import batches_per_epoch
from ptycho_backend.engines.model import History, Model
from ptycho_backend.events import BatchEvent, EpochEvent, OnEvent
from ptycho_backend.model_file.trainer_state import TrainerState
from ptycho_backend.training.means import Mean
from ptycho_backend.training.monitoring import BestEpoch, monitored, refuse_non_finite
from ptycho_backend.training.options import FitOptions
from ptycho_backend.training.schedules import RateSchedule, first_rate


class TrainingLoop:
    """
    Where a training stands: an engine tells what it has done, and asks what comes next.

    Parameters
    ----------
    model : Model
        Holds the weights of the earlier training where one goes on.
    execution : ExecutionConfig
    on_event : callable
        Receives batches and epochs.
    options : FitOptions
    n_train : int
        Groups trained on.
    validated : bool
        Whether groups are held out.

    Attributes
    ----------
    start : TrainerState
        Where an earlier training stopped; nowhere for a new one.
    history : list of dict
        One row per finished epoch.
    best : BestEpoch
    schedule : RateSchedule
    n_batches : int
        Of a whole epoch.
    epoch, batch : int
        Finished epochs, and batches taken in of the next one.
    loss : Mean
        Over the groups of the unfinished epoch.

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
        monitor = monitored(execution.monitor, (model.train_loss_name, model.val_loss_name), validated)
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
    def over(self) -> bool:
        """Whether no epoch is left, or none may hope to be better."""
        return self.epoch >= self.nepochs or self.best.should_stop

    @property
    def rate(self) -> float:
        """Learning rate of the epoch that begins."""
        return first_rate(self.model.training) * self.schedule.factor(self.epoch)

    @property
    def between_steps(self) -> bool:
        """Whether an optimiser step has just been taken in the middle of an epoch."""
        return self.batch % self.execution.accumulate_grad_batches == 0 and self.batch < self.n_batches

    def take_batch(self, loss: float, groups: float) -> None:
        """
        Take in the loss of one more batch, a mean over its groups.

        Raises
        ------
        TrainingError
            If it is not finite.
        """
        self.batch += 1
        refuse_non_finite(loss, self.epoch + 1, self.batch)
        self.loss.add(loss, groups)
        self._on_event(BatchEvent(self.epoch + 1, self.nepochs, self.batch, self.n_batches, loss))

    def end_epoch(self, metrics: Mapping[str, float]) -> None:
        """Take in the metrics of the epoch that ends: its learning rate and its losses, under the model's names."""
        row = {"epoch": float(self.epoch + 1), **metrics}
        self.history.append(row)
        if self.best.update(row) and self.execution.restore_best:
            self._best_weights = self.model.get_weights()
        self.schedule.update(row[self.best.monitor_name])
        self.epoch, self.batch, self.loss = self.epoch + 1, 0, Mean()
        self._on_event(EpochEvent(self.epoch, self.nepochs, row))

    def state(self, moments: Mapping[str, Any], kept: Mapping[str, float]) -> TrainerState:
        """
        Return where training stands.

        Parameters
        ----------
        moments : mapping
            The optimiser's fields of a TrainerState: `steps`, `first` and `second`.
        kept : mapping of str to float
            File names of the best checkpoints with their monitored values.
        """
        return TrainerState(
            epoch=self.epoch,
            batch=self.batch,
            loss_sum=self.loss.total,
            groups=self.loss.weight,
            monitor=self.best.state,
            schedule=self.schedule.state,
            kept=dict(kept),
            best_weights=self._best_weights,
            **moments,
        )

    def stop_if_asked(self, anyone: Callable[[bool], bool], state: Callable[[], TrainerState]) -> None:
        """
        End training here, kept, if it was asked to stop.

        Parameters
        ----------
        anyone : callable
            Given this process's answer, says whether one of those that train together says yes.
        state : callable
            Returns where training stands.

        Raises
        ------
        TrainingStopped
        """
        if not anyone(self.options.stop.requested):
            return
        writer = self.options.checkpoints
        if writer is not None:
            writer.write(writer.last, self.model, self.history, state())
        raise self.options.stopped(self.epoch, self.batch)

    def finish(self) -> None:
        """Give the model the weights of its best epoch, where that was asked for."""
        if self._best_weights and self.execution.restore_best:
            self.model.set_weights(self._best_weights)
