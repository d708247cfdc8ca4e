"""
Graphs that answer questions about a batch, shared by all models of one kind.

Tracing a graph takes as long as hundreds of patterns, and every scan is met by a model of its own, with its own probe
and scale. So these, and the weights, are inputs of a graph, not parts of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from ptycho.module import PtychoModule, TensorBatch

KEPT = 8  # graphs of other kinds, at most, that the process remembers
Question = Callable[[TensorBatch], Any]


@dataclass(frozen=True)
class Kind:
    """
    Everything that a graph depends on.

    Parameters
    ----------
    name : str
        Of the question.
    description : str
        Of the model: its TrainingConfig as text.
    dtype : tf.DType
        Of the convolutions.
    placement : str
        TensorFlow's name of the device.
    canvas_px : int
        Side of the group canvas; 0 where there is none.
    signature : tuple of tf.TensorSpec
        The model's state, then the batch's arrays.
    question, module
        Of the model that asks first. Models of one kind ask alike: these do not tell kinds apart.
    """

    name: str
    description: str
    dtype: tf.DType
    placement: str
    canvas_px: int
    signature: tuple[tf.TensorSpec, ...]
    question: Question = field(compare=False)
    module: PtychoModule = field(compare=False)


@functools.lru_cache(maxsize=KEPT)
def graph_of(kind: Kind) -> tf.types.experimental.ConcreteFunction:
    """Trace the graph of a kind; it receives the values of a model's state, then the arrays of a batch."""
    variables = kind.module.state

    def answer(*tensors: tf.Tensor) -> Any:
        values, arrays = tensors[: len(variables)], tensors[len(variables) :]
        given = list(zip(variables, values, strict=True))
        with tf.device(kind.placement), keras.StatelessScope(given):
            return kind.question(TensorBatch(*arrays, canvas_px=kind.canvas_px))

    # Called as it is: to find out first whether it fits takes TensorFlow as long as a pattern.
    return tf.function(answer, input_signature=kind.signature, autograph=False).get_concrete_function()
