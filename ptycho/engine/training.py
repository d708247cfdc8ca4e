"""Training through Keras: `fit` with a train step of our own, and callbacks for what happens between batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from ptycho.engine.callbacks import Reporter
from ptycho.engine.checkpoint import restore_moments
from ptycho.engine.data import EpochRange, training_batches, validation_batches
from ptycho.engine.device import convolution_dtype, placement, resolve_device
from ptycho.engine.loggers import EpochLogger
from ptycho.engine.model import TensorFlowModel
from ptycho.engine.module import TensorBatch
from ptycho.engine.optimizer import Adam
from ptycho.engine.parallel import ProcessGroup, Replicas
from ptycho_backend.config import ExecutionConfig
from ptycho_backend.data.batching import Samples
from ptycho_backend.engines.model import History, Model
from ptycho_backend.errors import DeviceError, PtychoError
from ptycho_backend.events import OnEvent
from ptycho_backend.runtime.malloc import freed_memory_kept
from ptycho_backend.training.loop import TrainingLoop
from ptycho_backend.training.options import FitOptions
from ptycho_backend.training.schedules import first_rate

MASK = TensorBatch._fields.index("mask")  # one for all groups


def fit(
    model: Model,
    train: Samples,
    validation: Samples | None,
    execution: ExecutionConfig,
    on_event: OnEvent,
    options: FitOptions | None = None,
) -> History:
    """
    Train a model in place.

    Returns
    -------
    list of dict
        One per epoch, see :meth:`ptycho_backend.engines.contract.Backend.fit`.

    Raises
    ------
    ConfigError
        If the monitored metric does not exist.
    TrainingError
        If a loss is not finite.
    TrainingStopped
        If it was asked to stop.
    """
    model, training, options = _own(model, execution), model.training, options or FitOptions()
    loop = TrainingLoop(model, execution, on_event, options, len(train), validation is not None)
    canvas_px = max(samples.canvas_px for samples in (train, validation) if samples is not None)
    reporter = Reporter(model, loop)
    loggers = [EpochLogger(options.logger, loop.history)] if options.logger else []
    callbacks = [reporter, *loggers, *options.callbacks]
    if not loop.over:
        with (
            validation_batches(validation, training) as held_out,
            tf.device(placement(model.device)),
            freed_memory_kept(),
        ):
            trainer = Trainer(model, execution, canvas_px, reporter.process_group)
            restore_moments(trainer.optimizer, model.trained(), loop.start)
            for epoch_range in _epoch_ranges(loop):
                window = execution.accumulate_grad_batches
                with training_batches(train, training, window, epoch_range, reporter.process_group.rank) as batches:
                    trainer.fit(
                        batches,
                        initial_epoch=epoch_range.epochs.start,
                        epochs=epoch_range.epochs.stop,
                        steps_per_epoch=loop.n_batches - epoch_range.skipped,
                        validation_data=held_out,
                        callbacks=callbacks,
                        shuffle=False,
                        verbose=0,
                    )
    loop.finish()
    return loop.history


def _epoch_ranges(loop: TrainingLoop) -> Iterator[EpochRange]:
    """Yield the parts of a training for each of which Keras sees equally long epochs."""
    if loop.batch > 0:
        yield EpochRange(range(loop.epoch, loop.epoch + 1), loop.batch)
    if not loop.over:
        yield EpochRange(range(loop.epoch, loop.nepochs))


class Trainer(keras.Model):
    """
    One training run of a model, as Keras sees it.

    Parameters
    ----------
    model : TensorFlowModel
    execution : ExecutionConfig
    canvas_px : int
        Side of the group canvas.
    process_group : ProcessGroup
        The processes that train together.
    """

    def __init__(
        self, model: TensorFlowModel, execution: ExecutionConfig, canvas_px: int, process_group: ProcessGroup
    ) -> None:
        super().__init__(dtype="float32")
        mirrored = execution.strategy == "mirrored" and execution.devices > 1
        self._process_group, self._replicas = (
            process_group,
            Replicas(execution.devices, model.device) if mirrored else None,
        )
        self._module, self._canvas_px, self._device = model.module, canvas_px, placement(model.device)
        automatic = execution.precision == "auto"
        self._convolutions = model.dtype if automatic else convolution_dtype(execution, model.device)
        self._accumulates = execution.accumulate_grad_batches > 1
        self._trained = list(model.trained().values())
        optimizer = Adam(first_rate(model.training), execution.gradient_clip_val, execution.gradient_clip_algorithm)
        optimizer.build(self._trained)
        # On processors XLA's convolutions are slower than oneDNN's: only on request.
        self.compile(optimizer, jit_compile=execution.compile)
        self._sums = [tf.Variable(tf.zeros_like(v.value)) for v in self._trained] if self._accumulates else []
        self._groups = tf.Variable(0.0)

    def train_step(self, data: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        """Take one batch into account; its last elements: the groups that count, and whether its window ends."""
        *tensors, counted, ends_window = data
        with tf.device(self._device):
            loss, *gradients = self._loss_and_gradients(tensors)
            groups = counted
            if self._process_group.rank.world > 1:
                groups, loss, *gradients = self._over_all([loss, *gradients], counted)
            if self._accumulates:
                self._accumulate(gradients, groups, ends_window)
            else:
                self.optimizer.apply(gradients, self._trained)
            return {"loss": loss, "groups": groups}

    def test_step(self, data: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        """Return the loss of one batch."""
        with tf.device(self._device):
            batch = self._batch(data)
            return {"loss": self._module.loss(batch, self._convolutions), "groups": _groups(batch)}

    def _batch(self, tensors: Any) -> TensorBatch:
        return TensorBatch(*tensors, canvas_px=self._canvas_px)

    def _loss_and_gradients(self, tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        def function(own: list[tf.Tensor]) -> list[tf.Tensor]:
            loss, gradients = self._module.loss_and_gradients(self._batch(own), self._convolutions, self._trained)
            return [loss, *gradients]

        return function(tensors) if self._replicas is None else self._replicas.means(function, tensors, shared=[MASK])

    def _over_all(self, means: list[tf.Tensor], counted: tf.Tensor) -> list[tf.Tensor]:
        """Return the groups of all processes, and the means over them."""
        groups, *sums = self._process_group.sums([counted, *(mean * counted for mean in means)])
        return [groups, *(total / groups for total in sums)]

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
