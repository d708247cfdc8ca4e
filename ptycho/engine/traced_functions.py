"""
Cache of traced TensorFlow functions (graphs), shared by models with the same description.

Only this engine has such a cache: TensorFlow runs graphs, PyTorch runs operations one by one. Tracing takes as long as
the prediction of hundreds of patterns, and every scan has a model with its own probe and scale. Probe, scale and
weights are therefore inputs of a graph. Models that merge groups share a graph only if their canvas sizes agree.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from ptycho.engine.module import PtychoModule, TensorBatch

MAX_FUNCTIONS = 8  # traced functions in the cache of an engine
Function = Callable[[TensorBatch], Any]
TracedFunction = tf.types.experimental.ConcreteFunction


@dataclass(frozen=True)
class GraphKey:
    """
    Key of a traced function: everything that its graph depends on.

    Parameters
    ----------
    name : str
        Name of the function.
    description : str
        Part of the model's configuration that the function depends on, as text.
    dtype : tf.DType
        Dtype of the convolutions.
    placement : str
        TensorFlow's name of the device.
    canvas_px : int
        Side of the group canvas; 0 without a canvas.
    signature : tuple of tf.TensorSpec
        Values of the model's state, then the arrays of the batch.
    """

    name: str
    description: str
    dtype: tf.DType
    placement: str
    canvas_px: int
    signature: tuple[tf.TensorSpec, ...]


class TracedFunctions:
    """Least-recently-used cache of traced functions. It holds no reference to a model."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._functions: OrderedDict[GraphKey, TracedFunction] = OrderedDict()

    def of(self, key: GraphKey, function: Function, module: PtychoModule) -> TracedFunction:
        """Return the traced function of a key; trace the function of a model if the cache has none."""
        with self._lock:
            if key not in self._functions:
                self._functions[key] = trace(key, function, module)
            self._functions.move_to_end(key)
            while len(self._functions) > MAX_FUNCTIONS:
                self._functions.popitem(last=False)
            return self._functions[key]


def trace(key: GraphKey, function: Function, module: PtychoModule) -> TracedFunction:
    """Trace a function into a graph of the values of a model's state and the arrays of a batch."""
    variables = module.state

    def graph(*tensors: tf.Tensor) -> Any:
        values, arrays = tensors[: len(variables)], tensors[len(variables) :]
        assigned = list(zip(variables, values, strict=True))
        with tf.device(key.placement), keras.StatelessScope(assigned):
            return function(TensorBatch(*arrays, canvas_px=key.canvas_px))

    # A concrete function: TensorFlow's search for a matching signature takes as long as one pattern.
    return tf.function(graph, input_signature=key.signature, autograph=False).get_concrete_function()
