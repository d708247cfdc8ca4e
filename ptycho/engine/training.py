"""Training with Keras: `fit` with the callbacks of the training loop, and the training step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from ptycho.engine.callbacks import Reporter
from ptycho.engine.checkpoint import restore_moments
from ptycho.engine.data import EpochRange, training_batches, validation_batches
from ptycho.engine.device import convolution_dtype, placement
from ptycho.engine.loggers import EpochLogger
from ptycho.engine.model import TensorFlowModel
from ptycho.engine.module import TensorBatch
from ptycho.engine.optimizer import Adam
from ptycho.engine.parallel import ProcessGroup, Replicas
from ptycho_backend.config import ExecutionConfig
from ptycho_backend.data.batching import Samples
from ptycho_backend.engines.model import History
from ptycho_backend.events import OnEvent
from ptycho_backend.runtime.malloc import freed_memory_kept
from ptycho_backend.training.loop import TrainingLoop
from ptycho_backend.training.options import FitOptions
from ptycho_backend.training.schedules import first_rate

MASK = TensorBatch._fields.index("mask")  # one mask for all groups


def fit(
    model: TensorFlowModel,
    train: Samples,
    validation: Samples | None,
    execution: ExecutionConfig,
    on_event: OnEvent,
    options: FitOptions | None = None,
) -> History:
    """Train a model in place (contract clause 5)."""
    training, options = model.training, options or FitOptions()
    loop = TrainingLoop(model, execution, on_event, options, len(train), validation is not None)
    canvas_px = max(samples.canvas_px for samples in (train, validation) if samples is not None)
    reporter = Reporter(model, loop)
    loggers = [EpochLogger(options.logger, loop.history)] if options.logger else []
    callbacks = [reporter, *loggers, *options.callbacks]
    if not loop.finished:
        with (
            validation_batches(validation, training) as validation_data,
            tf.device(placement(model.device)),
            freed_memory_kept(),
        ):
            module = TrainingModule(model, execution, canvas_px, reporter.process_group)
            restore_moments(module.optimizer, model.trained(), loop.start)
            for epoch_range in _epoch_ranges(loop):
                window = execution.accumulate_grad_batches
                with training_batches(train, training, window, epoch_range, reporter.process_group.process) as batches:
                    module.fit(
                        batches,
                        initial_epoch=epoch_range.epochs.start,
                        epochs=epoch_range.epochs.stop,
                        steps_per_epoch=loop.n_batches - epoch_range.skipped,
                        validation_data=validation_data,
                        callbacks=callbacks,
                        shuffle=False,
                        verbose=0,
                    )
    loop.restore_best()
    return loop.history


def _epoch_ranges(loop: TrainingLoop) -> Iterator[EpochRange]:
    """Yield the rest of an interrupted epoch, then all other epochs: Keras needs epochs of equal length."""
    if loop.batch > 0:
        yield EpochRange(range(loop.epoch, loop.epoch + 1), loop.batch)
    if not loop.finished:
        yield EpochRange(range(loop.epoch, loop.nepochs))


class TrainingModule(keras.Model):
    """
    Training and validation step of a model for Keras.

    Parameters
    ----------
    model : TensorFlowModel
    execution : ExecutionConfig
    canvas_px : int
        Side of the group canvas.
    process_group : ProcessGroup
        All processes of the training.
    """

    def __init__(
        self, model: TensorFlowModel, execution: ExecutionConfig, canvas_px: int, process_group: ProcessGroup
    ) -> None:
        super().__init__(dtype="float32")
        mirrored = execution.strategy == "mirrored" and execution.devices > 1
        self._replicas = Replicas(execution.devices, model.device) if mirrored else None
        self._process_group, self._module, self._canvas_px = process_group, model.module, canvas_px
        self._device = placement(model.device)
        automatic = execution.precision == "auto"
        self._convolutions = model.dtype if automatic else convolution_dtype(execution, model.device)
        self._accumulates = execution.accumulate_grad_batches > 1
        self._trained = list(model.trained().values())
        optimizer = Adam(first_rate(model.training), execution.gradient_clip_val, execution.gradient_clip_algorithm)
        optimizer.build(self._trained)
        # On a CPU, XLA's convolutions are slower than oneDNN's: only on request.
        self.compile(optimizer, jit_compile=execution.compile)
        self._sums = [tf.Variable(tf.zeros_like(v.value)) for v in self._trained] if self._accumulates else []
        self._groups = tf.Variable(0.0)

    def train_step(self, data: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        """Compute the gradients of one batch, and step at the end of its accumulation window."""
        *tensors, counted, ends_window = data
        with tf.device(self._device):
            loss, *gradients = self._loss_and_gradients(tensors)
            groups = counted
            if self._process_group.process.world > 1:
                groups, loss, *gradients = self._global_means([loss, *gradients], counted)
            if self._accumulates:
                self._accumulate(gradients, groups, ends_window)
            else:
                self.optimizer.apply(gradients, self._trained)
            return {"loss": loss, "groups": groups}

    def test_step(self, data: tuple[tf.Tensor, ...]) -> dict[str, tf.Tensor]:
        """Return the loss of one batch."""
        with tf.device(self._device):
            batch = self._batch(data)
            groups = tf.cast(tf.shape(batch.x)[0], tf.float32)
            return {"loss": self._module.loss(batch, self._convolutions), "groups": groups}

    def _batch(self, tensors: Any) -> TensorBatch:
        return TensorBatch(*tensors, canvas_px=self._canvas_px)

    def _loss_and_gradients(self, tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        def function(local: list[tf.Tensor]) -> list[tf.Tensor]:
            loss, gradients = self._module.loss_and_gradients(self._batch(local), self._convolutions, self._trained)
            return [loss, *gradients]

        return function(tensors) if self._replicas is None else self._replicas.means(function, tensors, shared=[MASK])

    def _global_means(self, means: list[tf.Tensor], counted: tf.Tensor) -> list[tf.Tensor]:
        """Return the number of groups of all processes, and the means over these groups."""
        groups, *sums = self._process_group.sums([counted, *(mean * counted for mean in means)])
        return [groups, *(total / groups for total in sums)]

    def _accumulate(self, gradients: list[tf.Tensor], groups: tf.Tensor, ends_window: tf.Tensor) -> None:
        """Sum gradients weighted by groups: k batches of b groups give the step of one batch of k·b groups."""
        for total, gradient in zip(self._sums, gradients, strict=True):
            total.assign_add(gradient * groups)
        self._groups.assign_add(groups)
        tf.cond(ends_window, self._apply_window, lambda: None)

    def _apply_window(self) -> None:
        self.optimizer.apply([total / self._groups for total in self._sums], self._trained)
        for variable in (*self._sums, self._groups):
            variable.assign(tf.zeros_like(variable))
