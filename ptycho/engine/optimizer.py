"""Adam of :mod:`ptycho_backend.engines.optimizer` in Keras (spec: config 5.1, config 5.4)."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from ptycho_backend.engines.optimizer import BETA1, BETA2, EPSILON


class Adam(keras.optimizers.Adam):
    """
    Adam with epsilon outside the root of the bias-corrected second moment.

    θ ← θ − lr·m̂ / (sqrt(v̂) + ε). Keras adds epsilon before it corrects v, and so takes other first steps.

    Parameters
    ----------
    learning_rate : float
    clip : float, optional
        Upper bound of the gradient.
    clip_algorithm : {"norm", "value"}
        Bound of the global norm or of each element.

    References
    ----------
    Kingma and Ba, *Adam: a method for stochastic optimization* (2015), algorithm 1.
    """

    def __init__(self, learning_rate: float, clip: float | None = None, clip_algorithm: str = "norm") -> None:
        bound = {"global_clipnorm" if clip_algorithm == "norm" else "clipvalue": clip}
        super().__init__(learning_rate, beta_1=BETA1, beta_2=BETA2, epsilon=EPSILON, **bound)

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        """Update one variable in place."""
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations.value + 1, tf.float32)
        decay = tf.pow(self.beta_2, step)
        # The fused kernel divides by sqrt(v) + epsilon and corrects the bias in its learning rate.
        # The factor sqrt(1 − β₂ᵗ) on epsilon gives the formula of the class.
        tf.raw_ops.ResourceApplyAdam(
            var=variable.value.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(self.beta_1, step),
            beta2_power=decay,
            lr=learning_rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon * tf.sqrt(1.0 - decay),
            grad=gradient,
        )

    def _backend_update_step(
        self, grads: Sequence[tf.Tensor], trainable_variables: Sequence[keras.Variable], learning_rate: tf.Tensor
    ) -> None:
        # One device needs no reduction over replicas. TensorFlow would never free the gradient function that
        # Keras registers for it, nor the graph of the training run.
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            self.update_step(gradient, variable, learning_rate)
