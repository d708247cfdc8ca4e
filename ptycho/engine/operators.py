"""Physics operators of this engine on NumPy arrays (spec: backend_contract 8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho.engine import physics
from ptycho.engine.device import placement, prepare_device, resolve_device
from ptycho.engine.optimizer import Adam
from ptycho_backend.engines.operators import Operators, Result, as_float32, check_cotangent, engine_arguments


class TensorFlowOperators(Operators):
    """
    Functions of :mod:`ptycho.engine.physics` on a device, float32.

    Parameters
    ----------
    device : str
        Same values as in ExecutionConfig.
    """

    def __init__(self, device: str = "auto") -> None:
        self.device = resolve_device(device)
        prepare_device(self.device)

    def evaluate(self, name: str, *arguments: Any) -> Result:
        """Return the result of an operator."""
        with tf.device(placement(self.device)):
            result = _call(name, _tensors(name, arguments)).numpy()
        return float(result) if result.ndim == 0 else result

    def gradient(self, name: str, *arguments: Any, by: int = 0, cotangent: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return the gradient by backpropagation; contract and TensorFlow share the complex convention."""
        check_cotangent(name, cotangent)
        with tf.device(placement(self.device)), tf.GradientTape() as tape:
            tensors = _tensors(name, arguments)
            tape.watch(tensors[by])
            loss = _call(name, tensors)
            if cotangent is not None:
                products = tf.math.conj(tf.constant(as_float32(cotangent))) * loss
                loss = tf.reduce_sum(tf.math.real(products))
            gradient = tape.gradient(loss, tensors[by], unconnected_gradients=tf.UnconnectedGradients.ZERO)
        result: NDArray[Any] = gradient.numpy()
        return result

    def optimiser_steps(
        self,
        value: NDArray[Any],
        gradients: Sequence[NDArray[Any]],
        learning_rate: float,
        clip: float | None = None,
    ) -> NDArray[Any]:
        """Return the value after the steps of Adam, with the constants and the clipping of training."""
        with tf.device(placement(self.device)):
            rows = [keras.Variable(row) for row in as_float32(np.asarray(value))]
            optimizer = Adam(learning_rate, clip)
            optimizer.build(rows)
            for gradient in gradients:
                optimizer.apply([tf.constant(part) for part in as_float32(np.asarray(gradient))], rows)
            return np.stack([row.value.numpy() for row in rows])


def _call(name: str, tensors: Sequence[Any]) -> tf.Tensor:
    return getattr(physics, name)(*tensors)


def _tensors(name: str, arguments: Sequence[Any]) -> list[Any]:
    values = engine_arguments(name, arguments)
    return [tf.constant(value) if isinstance(value, np.ndarray) else value for value in values]
