"""Training through Keras: `fit` with a train step of our own, and callbacks for what happens between batches."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from ptycho.data import batches_per_epoch, training_batches, validation_batches
from ptycho.execution import convolution_dtype, placement, resolve_device
from ptycho.model import TensorFlowModel
from ptycho.module import TensorBatch
from ptycho.optimizer import Adam
from ptycho_backend.config import ExecutionConfig
from ptycho_backend.contract import History, Model
from ptycho_backend.core.batching import Samples
from ptycho_backend.core.monitoring import BestEpoch, refuse_non_finite, resolve_monitor
from ptycho_backend.core.schedules import rate_factor
from ptycho_backend.errors import DeviceError, PtychoError
from ptycho_backend.events import BatchEvent, EpochEvent, OnEvent


def fit(
    model: Model, train: Samples, validation: Samples | None, execution: ExecutionConfig, on_event: OnEvent
) -> History:
    """
    Train a model in place.

    Returns
    -------
    list of dict
        One per epoch, see :meth:`ptycho_backend.contract.Backend.fit`.

    Raises
    ------
    ConfigError
        If the monitored metric does not exist.
    TrainingError
        If a loss is not finite.
    """
    model, training = _own(model, execution), model.training
    monitor = resolve_monitor(execution.monitor, model, validation is not None)
    canvas_px = max(samples.canvas_px for samples in (train, validation) if samples is not None)
    reporter = Reporter(model, execution, BestEpoch(monitor, execution.early_stop_patience), on_event)
    with (
        training_batches(train, training, execution.accumulate_grad_batches) as batches,
        validation_batches(validation, training) as held_out,
        tf.device(placement(model.device)),
    ):
        Trainer(model, execution, canvas_px).fit(
            batches,
            epochs=training.nepochs,
            steps_per_epoch=batches_per_epoch(train, training),
            validation_data=held_out,
            callbacks=[reporter],
            shuffle=False,
            verbose=0,
        )
    reporter.restore_best()
    return reporter.history


class Trainer(keras.Model):
    """
    One training run of a model, as Keras sees it.

    Parameters
    ----------
    model : TensorFlowModel
    execution : ExecutionConfig
    canvas_px : int
        Side of the group canvas.
    """

    def __init__(self, model: TensorFlowModel, execution: ExecutionConfig, canvas_px: int) -> None:
        super().__init__(dtype="float32")
        self._module, self._canvas_px, self._device = model.module, canvas_px, placement(model.device)
        automatic = execution.precision == "auto"
        self._convolutions = model.dtype if automatic else convolution_dtype(execution, model.device)
        self._accumulates = execution.accumulate_grad_batches > 1
        self._trained = list(model.trained().values())
        optimizer = Adam(model.training.learning_rate, execution.gradient_clip_val)
        optimizer.build(self._trained)
        self.compile(optimizer, jit_compile=False)  # XLA's convolutions are slower than oneDNN's
        self._sums = [tf.Variable(tf.zeros_like(v.value)) for v in self._trained] if self._accumulates else []
        self._groups = tf.Variable(0.0)

    def train_step(self, data: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        """Take one batch into account; its last element says whether a window of batches ends with it."""
        *tensors, ends_window = data
        with tf.device(self._device):
            batch = self._batch(tensors)
            loss, gradients = self._module.loss_and_gradients(batch, self._convolutions, self._trained)
            if self._accumulates:
                self._accumulate(gradients, _groups(batch), ends_window)
            else:
                self.optimizer.apply(gradients, self._trained)
            return {"loss": loss, "groups": _groups(batch)}

    def test_step(self, data: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        """Return the loss of one batch."""
        with tf.device(self._device):
            batch = self._batch(data)
            return {"loss": self._module.loss(batch, self._convolutions), "groups": _groups(batch)}

    def _batch(self, tensors: Any) -> TensorBatch:
        return TensorBatch(*tensors, canvas_px=self._canvas_px)

    def _accumulate(self, gradients: list[tf.Tensor], groups: tf.Tensor, ends_window: tf.Tensor) -> None:
        """Add up gradients weighted by groups, so that k batches of b count like one of k·b."""
        for total, gradient in zip(self._sums, gradients, strict=True):
            total.assign_add(gradient * groups)
        self._groups.assign_add(groups)
        tf.cond(ends_window, self._apply_window, lambda: None)

    def _apply_window(self) -> None:
        self.optimizer.apply([total / self._groups for total in self._sums], self._trained)
        for variable in (*self._sums, self._groups):
            variable.assign(tf.zeros_like(variable))


class Reporter(keras.callbacks.Callback):
    """
    What happens between batches: learning rates, means over groups, events, the best epoch, early stopping.

    Parameters
    ----------
    model : TensorFlowModel
    execution : ExecutionConfig
    best : BestEpoch
    on_event : callable
    """

    def __init__(self, model: TensorFlowModel, execution: ExecutionConfig, best: BestEpoch, on_event: OnEvent) -> None:
        super().__init__()
        self.history: History = []
        self._owner, self._execution, self._best, self._on_event = model, execution, best, on_event
        self._best_weights: dict[str, Any] | None = None
        self._train, self._validation = Mean(), Mean()
        self._epoch, self._rate = 0, model.training.learning_rate

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Set the learning rate."""
        self._epoch = epoch + 1
        self._train, self._validation = Mean(), Mean()
        training = self._owner.training
        self._rate = training.learning_rate * rate_factor(epoch, training.nepochs, self._execution)
        self.model.optimizer.learning_rate = self._rate

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Take in the loss of a batch."""
        loss, nepochs = float(logs["loss"]), self._owner.training.nepochs
        refuse_non_finite(loss, self._epoch, batch + 1)
        self._train.add(loss, logs["groups"])
        self._on_event(BatchEvent(self._epoch, nepochs, batch + 1, self.params["steps"], loss))

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        """Take in the loss of a validation batch."""
        self._validation.add(logs["loss"], logs["groups"])

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Report the epoch, keep the best weights, stop where nothing improves any more."""
        metrics = {"epoch": self._epoch, "lr": self._rate, self._owner.train_loss_name: self._train.value}
        if self._validation.weight > 0:
            metrics[self._owner.val_loss_name] = self._validation.value
        self.history.append(metrics)
        if self._best.update(metrics) and self._execution.restore_best:
            self._best_weights = self._owner.get_weights()
        self._on_event(EpochEvent(self._epoch, self._owner.training.nepochs, metrics))
        self.model.stop_training = self._best.should_stop

    def restore_best(self) -> None:
        """Give the model the weights of its best epoch, where that was asked for."""
        if self._best_weights is not None:
            self._owner.set_weights(self._best_weights)


class Mean:
    """A weighted mean that grows."""

    def __init__(self) -> None:
        self.total, self.weight = 0.0, 0.0

    def add(self, value: float, weight: float) -> None:
        """Take in one more value."""
        self.total += float(value) * float(weight)
        self.weight += float(weight)

    @property
    def value(self) -> float:
        """The mean so far; NaN before the first value."""
        return self.total / self.weight if self.weight else math.nan


def _groups(batch: TensorBatch) -> tf.Tensor:
    return tf.cast(tf.shape(batch.x)[0], tf.float32)


def _own(model: Model, execution: ExecutionConfig) -> TensorFlowModel:
    """Refuse models of other engines, and a device other than the model's."""
    if not isinstance(model, TensorFlowModel):
        raise PtychoError(
            "An engine trains its own models.",
            expected="a model from TensorFlowBackend.create_model",
            received=f"a {type(model).__name__}",
            fix="create the model with this engine and set_weights() from the other one",
        )
    if execution.device != "auto" and resolve_device(execution.device) != model.device:
        raise DeviceError(
            "A model is trained on the device it was created on.",
            expected=f"device='auto' or {model.device!r}",
            received=f"device={execution.device!r}",
            fix="create the model with the same ExecutionConfig",
        )
    return model
