"""Model of the engine contract on TensorFlow, with NumPy arguments and results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho.engine.device import apply_process_settings, convolution_dtype, placement, prepare_device, resolve_device
from ptycho.engine.module import PtychoModule, TensorBatch, arrays_of, specification
from ptycho.engine.parallel import join_cluster
from ptycho.engine.traced_functions import Function, GraphKey, TracedFunction, TracedFunctions
from ptycho_backend.config import ExecutionConfig, ModelConfig, TrainingConfig, to_dict
from ptycho_backend.data.batching import Batch
from ptycho_backend.engines.model import Model, Weights, trainable_names
from ptycho_backend.network.architectures import merges_groups
from ptycho_backend.network.weights import check_weights
from ptycho_backend.physics.calibration import Calibration
from ptycho_backend.runtime.devices import processors
from ptycho_backend.runtime.thread_map import ordered_map

Configuration = ModelConfig | TrainingConfig
State = list[tf.Tensor]


class TensorFlowModel(Model):
    """
    Model on a TensorFlow device.

    Parameters
    ----------
    training : TrainingConfig
    calibration : Calibration
    execution : ExecutionConfig
        Device, precision and threads.
    traced_functions : TracedFunctions
        Cache of the engine, shared by its models.
    """

    backend = "tensorflow"

    def __init__(
        self,
        training: TrainingConfig,
        calibration: Calibration,
        execution: ExecutionConfig,
        traced_functions: TracedFunctions,
    ) -> None:
        apply_process_settings(execution)
        self.training, self.config, self.calibration = training, training.model, calibration
        self.execution = execution
        self.device = resolve_device(execution.device)
        prepare_device(self.device)
        self.dtype = convolution_dtype(execution, self.device)
        join_cluster(execution)
        with tf.device(placement(self.device)):
            self.module = PtychoModule(training, calibration)
        self._traced_functions = traced_functions
        self._functions: dict[tuple[str, int, int], TracedFunction] = {}

    def untrained(self, training: TrainingConfig, calibration: Calibration) -> TensorFlowModel:
        """Return an untrained model on the same device with the same traced functions."""
        return TensorFlowModel(training, calibration, self.execution, self._traced_functions)

    def trained(self) -> dict[str, Any]:
        """Return the trained Keras variables by canonical name."""
        return {name: self.module.variables[name] for name in trainable_names(self, self.module.variables)}

    def get_weights(self) -> dict[str, NDArray[np.float32]]:
        """Return all weights as copies."""
        return weights_of(self.module.variables)

    def set_weights(self, weights: Weights) -> None:
        """Set all weights."""
        variables = self.module.variables
        check_weights(weights, {name: tuple(variable.shape) for name, variable in variables.items()})
        for name, variable in variables.items():
            variable.assign(np.asarray(weights[name], dtype=np.float32))

    def predict_patches(self, batch: Batch, amplitude_constraint: bool = False) -> NDArray[np.complex64]:
        """Return object patches (group, channel, y, x)."""
        return self._predict(batch, amplitude_constraint, self._state())

    def predictions(
        self, batches: Iterable[Batch], amplitude_constraint: bool = False
    ) -> Iterator[NDArray[np.complex64]]:
        """Yield the object patches of many batches; the weights are read once, before the first batch."""
        predict = partial(self._predict, amplitude_constraint=amplitude_constraint, state=self._state())
        yield from ordered_map(predict, batches, self.workers)

    @property
    def workers(self) -> int:
        """Number of batches in parallel: one per CPU core, one on a GPU."""
        return (self.execution.threads or processors()) if self.device == "cpu" else 1

    def expected_counts(self, batch: Batch, amplitude_constraint: bool = False) -> NDArray[np.float32]:
        """Return predicted photons per pixel (group, channel, y, x)."""

        def function(tensors: TensorBatch) -> tf.Tensor:
            return self.module.expected_counts(self.module.patches(tensors, self.dtype, amplitude_constraint))

        return self._evaluate(f"counts {amplitude_constraint}", self.config, function, batch, self._state()).numpy()

    def loss_and_gradients(self, batch: Batch) -> tuple[float, dict[str, NDArray[np.float32]]]:
        """Return the loss of a batch and its gradient with respect to every trainable weight."""

        def function(tensors: TensorBatch) -> tuple[tf.Tensor, list[tf.Tensor]]:
            return self.module.loss_and_gradients(tensors, self.dtype, list(self.trained().values()))

        loss, gradients = self._evaluate("gradients", self.training, function, batch, self._state())
        return float(loss), {name: gradient.numpy() for name, gradient in zip(self.trained(), gradients, strict=True)}

    def _predict(self, batch: Batch, amplitude_constraint: bool, state: State) -> NDArray[np.complex64]:
        def function(tensors: TensorBatch) -> tf.Tensor:
            return self.module.patches(tensors, self.dtype, amplitude_constraint)

        return self._evaluate(f"patches {amplitude_constraint}", self.config, function, batch, state).numpy()

    def _state(self) -> State:
        """Return the values that traced functions receive; reading them takes as long as a few patterns."""
        return [tf.convert_to_tensor(variable.value) for variable in self.module.state]

    def _evaluate(self, name: str, config: Configuration, function: Function, batch: Batch, state: State) -> Any:
        """Evaluate a function, which depends on `config`, on a batch by a traced function for any number of groups."""
        arrays = arrays_of(batch)
        canvas_px = batch.canvas_px if merges_groups(self.config) else 0
        key = (name, canvas_px, len(arrays))
        if key not in self._functions:  # computing the graph key for every batch would take as long as a pattern
            graph_key = self._graph_key(name, config, canvas_px, specification(batch))
            self._functions[key] = self._traced_functions.of(graph_key, function, self.module)
        with tf.device(placement(self.device)):
            return self._functions[key](*state, *(tf.constant(array) for array in arrays))

    def _graph_key(
        self, name: str, config: Configuration, canvas_px: int, arrays: tuple[tf.TensorSpec, ...]
    ) -> GraphKey:
        state = tuple(tf.TensorSpec(variable.shape, variable.dtype) for variable in self.module.state)
        return GraphKey(
            name=name,
            description=json.dumps(to_dict(config), sort_keys=True),
            dtype=self.dtype,
            placement=placement(self.device),
            canvas_px=canvas_px,
            signature=(*state, *arrays),
        )


def weights_of(variables: Mapping[str, keras.Variable]) -> dict[str, NDArray[np.float32]]:
    """Return copies of Keras variables as arrays by canonical name."""
    return {name: np.array(variable.value.numpy()) for name, variable in variables.items()}
