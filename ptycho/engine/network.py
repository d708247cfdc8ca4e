"""Interpreter of network descriptions in TensorFlow; parameters have their canonical names and layout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from ptycho_backend.network.architectures import Network, Op

Values = Mapping[str, tf.Tensor]


def run_network(network: Network, inputs: Values, weights: Values, dtype: tf.DType) -> tuple[tf.Tensor, ...]:
    """
    Run the operations of a network in order.

    Parameters
    ----------
    network : Network
    inputs : float32, shape (batch, y, x, channel), by input name
    weights : float32, by canonical parameter name
    dtype : tf.DType
        Dtype of all operations, float32 or bfloat16.

    Returns
    -------
    tuple of float32, shape (batch, y, x, channel)
    """
    values = {name: tf.cast(value, dtype) for name, value in inputs.items()}
    for op in network.ops:
        operands = [values[name] for name in op.inputs]
        values[op.output] = _conv(operands[0], op, weights) if op.kind == "conv" else _run(op, operands)
    return tuple(tf.cast(values[name], tf.float32) for name in network.outputs)


def _conv(value: tf.Tensor, op: Op, weights: Values) -> tf.Tensor:
    name = op.attributes["name"]
    kernel, bias = (tf.cast(weights[f"{name}/{part}"], value.dtype) for part in ("kernel", "bias"))
    return tf.nn.bias_add(tf.nn.conv2d(value, kernel, strides=1, padding="SAME"), bias)


def _run(op: Op, operands: list[tf.Tensor]) -> tf.Tensor:
    return OPERATIONS[op.kind](operands, op.attributes)


def _activation(operands: list[tf.Tensor], attributes: Mapping[str, Any]) -> tf.Tensor:
    return ACTIVATIONS[attributes["function"]](operands[0])


def _upsample(operands: list[tf.Tensor], _: Mapping[str, Any]) -> tf.Tensor:
    # tf.repeat needs twenty operations. The gradient of a resize is not deterministic on a GPU.
    value = operands[0]
    _, rows, columns, channels = value.shape
    pairs = tf.tile(tf.reshape(value, (-1, rows, 1, columns, channels)), (1, 1, 2, 1, 2))
    return tf.reshape(pairs, (-1, 2 * rows, 2 * columns, channels))


def _pad(operands: list[tf.Tensor], attributes: Mapping[str, Any]) -> tf.Tensor:
    sides = (attributes["width"],) * 2
    return tf.pad(operands[0], ((0, 0), sides, sides, (0, 0)))


def _slice(operands: list[tf.Tensor], attributes: Mapping[str, Any]) -> tf.Tensor:
    # The gradient of tf.slice is a pad, on a CPU several times faster than the gradient of value[..., a:b].
    start, stop = attributes["start"], attributes["stop"]
    return tf.slice(operands[0], (0, 0, 0, start), (-1, -1, -1, stop - start))


def _border(operands: list[tf.Tensor], attributes: Mapping[str, Any]) -> tf.Tensor:
    value, width = operands[0], attributes["width"]
    frame = np.ones((*value.shape[1:3], 1))
    frame[width:-width, width:-width] = 0.0
    return value * tf.constant(frame, value.dtype)


def _swish(value: tf.Tensor) -> tf.Tensor:
    # TensorFlow never frees the custom gradient of tf.nn.silu, nor its graph.
    return value * tf.sigmoid(value)


ACTIVATIONS: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {
    "relu": tf.nn.relu,
    "sigmoid": tf.sigmoid,
    "tanh": tf.tanh,
    "swish": _swish,
    "silu": _swish,
    "softplus": tf.nn.softplus,
}
OPERATIONS: dict[str, Callable[[list[tf.Tensor], Mapping[str, Any]], tf.Tensor]] = {
    "pool": lambda operands, _: tf.nn.max_pool2d(operands[0], 2, 2, "VALID"),
    "upsample": _upsample,
    "space_to_depth": lambda operands, _: tf.nn.space_to_depth(operands[0], 2),
    "depth_to_space": lambda operands, _: tf.nn.depth_to_space(operands[0], 2),
    "activation": _activation,
    "scale": lambda operands, attributes: operands[0] * attributes["factor"],
    "pad": _pad,
    "border": _border,
    "slice": _slice,
    "concatenate": lambda operands, _: tf.concat(operands, axis=-1),
    "add": lambda operands, _: operands[0] + operands[1],
}
