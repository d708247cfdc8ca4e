"""
Graphs that answer questions about a batch, shared by all models of one kind.

Tracing a graph takes as long as hundreds of patterns, and every scan is met by a model of its own, with its own probe
and scale. So these, and the weights, are inputs of a graph, not parts of it. Models that merge groups share a graph
only where their canvases are of one size, which follows the scan.
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

KEPT = 8  # graphs, at most, that an engine remembers
Function = Callable[[TensorBatch], Any]
TracedFunction = tf.types.experimental.ConcreteFunction


@dataclass(frozen=True)
class GraphKey:
    """
    Everything that a graph depends on.

    Parameters
    ----------
    name : str
        Of the function.
    description : str
        The part of the model's configuration that the answer depends on, as text.
    dtype : tf.DType
        Of the convolutions.
    placement : str
        TensorFlow's name of the device.
    canvas_px : int
        Side of the group canvas; 0 where there is none.
    signature : tuple of tf.TensorSpec
        The model's state, then the batch's arrays.
    """

    name: str
    description: str
    dtype: tf.DType
    placement: str
    canvas_px: int
    signature: tuple[tf.TensorSpec, ...]


class TracedFunctions:
    """The graphs that were asked for last. They keep no model alive: that of the first who asks is only traced."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[GraphKey, TracedFunction] = OrderedDict()

    def of(self, key: GraphKey, function: Function, module: PtychoModule) -> TracedFunction:
        """Return the graph of a kind, traced through a model's function where there is none; all models ask alike."""
        with self._lock:
            if key not in self._kept:
                self._kept[key] = traced(key, function, module)
            self._kept.move_to_end(key)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            return self._kept[key]


def traced(key: GraphKey, function: Function, module: PtychoModule) -> TracedFunction:
    """Trace a function; the graph receives the values of a model's state, then the arrays of a batch."""
    variables = module.state

    def answer(*tensors: tf.Tensor) -> Any:
        values, arrays = tensors[: len(variables)], tensors[len(variables) :]
        given = list(zip(variables, values, strict=True))
        with tf.device(key.placement), keras.StatelessScope(given):
            return function(TensorBatch(*arrays, canvas_px=key.canvas_px))

    # Called as it is: to find out first whether it fits takes TensorFlow as long as a pattern.
    return tf.function(answer, input_signature=key.signature, autograph=False).get_concrete_function()
