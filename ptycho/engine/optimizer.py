"""Adam as the PyTorch engine computes it."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf


class Adam(keras.optimizers.Adam):
    """
    Adam whose epsilon is added to the root of the bias-corrected second moment.

    θ ← θ − lr·m̂ / (sqrt(v̂) + ε). Keras adds its epsilon before the correction of v, which makes early steps
    differ. Source: Kingma and Ba (2015), algorithm 1.

    Parameters
    ----------
    learning_rate : float
    clip : float, optional
        Upper bound of the gradient.
    clip_algorithm : {"norm", "value"}
        What is bounded: the global norm, or each element.
    """

    def __init__(self, learning_rate: float, clip: float | None = None, clip_algorithm: str = "norm") -> None:
        bound = {"global_clipnorm" if clip_algorithm == "norm" else "clipvalue": clip}
        super().__init__(learning_rate, epsilon=1e-8, **bound)

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor) -> None:
        """Update one variable in place."""
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations.value + 1, tf.float32)
        decay = tf.pow(self.beta_2, step)
        # The fused kernel divides by sqrt(v) + epsilon and corrects the bias in its learning rate; an epsilon
        # times sqrt(1 − β₂ᵗ) turns that into the formula above.
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
        # One device: no reduction over replicas. Keras's own reduction registers a gradient function for good,
        # and with it the whole graph of every training run.
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            self.update_step(gradient, variable, learning_rate)
