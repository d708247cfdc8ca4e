"""Adam compared with its formula in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from ptycho.engine.optimizer import Adam


def reference(value, gradients, lr, clip=None):
    """Return the result of Adam with epsilon outside the bias correction, float64."""
    value, m, v = value.astype(float), 0.0, 0.0
    for t, gradient in enumerate(gradients, start=1):
        g = gradient.astype(float)
        if clip is not None:
            g = g * min(1.0, clip / np.sqrt((g**2).sum()))
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        value = value - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return value


def run(value, gradients, lr, clip=None):
    optimizer, variable = Adam(lr, clip), keras.Variable(value)
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient)], [variable])
    return variable.numpy()


# Gradients of about 1e-8 depend on the place of epsilon.
@pytest.mark.parametrize("size", [1.0, 1e-4, 1e-8, 1e-10])
@pytest.mark.parametrize("clip", [None, 1e-3])
def test_adam_follows_its_formula(size, clip):
    rng = np.random.default_rng(0)
    value = rng.normal(size=(4, 3)).astype(np.float32)
    gradients = [(size * rng.normal(size=(4, 3))).astype(np.float32) for _ in range(25)]
    expected = reference(value, gradients, 0.01, clip)
    moved = np.abs(expected - value).max()
    assert np.abs(run(value, gradients, 0.01, clip) - expected).max() <= 2e-5 * moved + 2e-7


def test_the_first_step_has_the_size_of_the_learning_rate():
    step = run(np.zeros(3, np.float32), [np.array([5.0, -0.1, 0.0], np.float32)], 0.01)
    np.testing.assert_allclose(step, [-0.01, 0.01, 0.0], rtol=1e-5)


def test_clipping_bounds_the_norm_over_all_variables():
    optimizer = Adam(1.0, clip=1.0)
    variables = [keras.Variable(np.zeros(1, np.float32)) for _ in range(2)]
    optimizer.apply([tf.constant([30.0]), tf.constant([40.0])], variables)
    momenta = [float(m.numpy()[0]) for m in optimizer._momentums]
    np.testing.assert_allclose(momenta, [0.1 * 0.6, 0.1 * 0.8], rtol=1e-6)
