"""A model of the contract on TensorFlow: NumPy in, NumPy out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho.engine.device import apply_process_settings, convolution_dtype, placement, prepare_device, resolve_device
from ptycho.engine.module import PtychoModule, TensorBatch, arrays_of, specification
from ptycho.engine.parallel import join
from ptycho.engine.traced_functions import Function, GraphKey, TracedFunction, TracedFunctions
from ptycho_backend.config import ExecutionConfig, ModelConfig, TrainingConfig, to_dict
from ptycho_backend.data.batching import Batch
from ptycho_backend.engines.model import Model, Weights, trainable_names
from ptycho_backend.network.weights import check_weights
from ptycho_backend.physics.calibration import Calibration
from ptycho_backend.runtime.devices import processors
from ptycho_backend.runtime.thread_map import ordered_map

Configuration = ModelConfig | TrainingConfig
State = list[tf.Tensor]


class TensorFlowModel(Model):
    """
    A model on a TensorFlow device.

    Parameters
    ----------
    training : TrainingConfig
    calibration : Calibration
    execution : ExecutionConfig
        Device, precision and threads.
    graphs : TracedFunctions
        Of the engine; models of one kind share them.
    """

    backend = "tensorflow"

    def __init__(
        self, training: TrainingConfig, calibration: Calibration, execution: ExecutionConfig, graphs: TracedFunctions
    ) -> None:
        apply_process_settings(execution)
        self.training, self.config, self.calibration = training, training.model, calibration
        self.execution = execution
        self.device = resolve_device(execution.device)
        prepare_device(self.device)
        self.dtype = convolution_dtype(execution, self.device)
        join(execution)
        with tf.device(placement(self.device)):
            self.module = PtychoModule(training, calibration)
        self._shared = graphs
        self._graphs: dict[tuple[str, int, int], TracedFunction] = {}

    def untrained(self, training: TrainingConfig, calibration: Calibration) -> TensorFlowModel:
        """Return an untrained model on the same device, which shares the traced functions."""
        return TensorFlowModel(training, calibration, self.execution, self._shared)

    def trained(self) -> dict[str, Any]:
        """Return the Keras variables that training changes, by canonical weight name."""
        return {name: self.module.variables[name] for name in trainable_names(self, self.module.variables)}

    def get_weights(self) -> dict[str, NDArray[np.float32]]:
        """Return all weights as copies."""
        return {name: np.array(variable.value.numpy()) for name, variable in self.module.variables.items()}

    def set_weights(self, weights: Weights) -> None:
        """Set all weights."""
        variables = self.module.variables
        check_weights(weights, {name: tuple(variable.shape) for name, variable in variables.items()})
        for name, variable in variables.items():
            variable.assign(np.asarray(weights[name], dtype=np.float32))

    def predict_patches(self, batch: Batch, amplitude_constraint: bool = False) -> NDArray[np.complex64]:
        """Return object patches (group, channel, y, x)."""
        return self._predicted(batch, amplitude_constraint, self._state())

    def predictions(
        self, batches: Iterable[Batch], amplitude_constraint: bool = False
    ) -> Iterator[NDArray[np.complex64]]:
        """Yield the object patches of many batches, by weights that are read once, before the first."""
        predict = partial(self._predicted, amplitude_constraint=amplitude_constraint, state=self._state())
        yield from ordered_map(predict, batches, self.workers)

    @property
    def workers(self) -> int:
        """One for every processor; a GPU is busy with one batch."""
        return (self.execution.threads or processors()) if self.device == "cpu" else 1

    def expected_counts(self, batch: Batch, amplitude_constraint: bool = False) -> NDArray[np.float32]:
        """Return predicted photons per pixel (group, channel, y, x)."""

        def function(tensors: TensorBatch) -> tf.Tensor:
            return self.module.expected_counts(self.module.patches(tensors, self.dtype, amplitude_constraint))

        counts: NDArray[np.float32] = self._ask(
            f"counts {amplitude_constraint}", self.config, function, batch, self._state()
        ).numpy()
        return counts

    def loss_and_gradients(self, batch: Batch) -> tuple[float, dict[str, NDArray[np.float32]]]:
        """Return the loss of a batch and its gradient by every trainable weight."""

        def function(tensors: TensorBatch) -> tuple[tf.Tensor, list[tf.Tensor]]:
            return self.module.loss_and_gradients(tensors, self.dtype, list(self.trained().values()))

        loss, gradients = self._ask("gradients", self.training, function, batch, self._state())
        return float(loss), {name: gradient.numpy() for name, gradient in zip(self.trained(), gradients, strict=True)}

    def _predicted(self, batch: Batch, amplitude_constraint: bool, state: State) -> NDArray[np.complex64]:
        def function(tensors: TensorBatch) -> tf.Tensor:
            return self.module.patches(tensors, self.dtype, amplitude_constraint)

        patches: NDArray[np.complex64] = self._ask(
            f"patches {amplitude_constraint}", self.config, function, batch, state
        ).numpy()
        return patches

    def _state(self) -> State:
        """Return the values that graphs receive; reading them takes as long as a few patterns."""
        return [tf.convert_to_tensor(variable.value) for variable in self.module.state]

    def _ask(self, name: str, about: Configuration, function: Function, batch: Batch, state: State) -> Any:
        """Answer a function about a batch, and what its answer depends on, by a graph for any number of groups."""
        arrays = arrays_of(batch)
        canvas_px = batch.canvas_px if self.module.merges else 0
        key = (name, canvas_px, len(arrays))
        if key not in self._graphs:  # describing the kind of every batch would take as long as a pattern
            kind = self._kind(name, about, canvas_px, specification(batch))
            self._graphs[key] = self._shared.of(kind, function, self.module)
        with tf.device(placement(self.device)):
            return self._graphs[key](*state, *(tf.constant(array) for array in arrays))

    def _kind(self, name: str, about: Configuration, canvas_px: int, arrays: tuple[tf.TensorSpec, ...]) -> GraphKey:
        state = tuple(tf.TensorSpec(variable.shape, variable.dtype) for variable in self.module.state)
        return GraphKey(
            name=name,
            description=json.dumps(to_dict(about), sort_keys=True),
            dtype=self.dtype,
            placement=placement(self.device),
            canvas_px=canvas_px,
            signature=(*state, *arrays),
        )
