"""Adam in NumPy: first steps by hand, invariance and clipping."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho_backend.engines.optimizer import adam, clipped
from ptycho_backend.testing.strategies import generators


def test_the_first_step_has_the_size_of_the_learning_rate_and_the_sign_of_the_gradient():
    after = adam(np.zeros(3), [np.array([5.0, -0.1, 0.0])], 0.01)
    np.testing.assert_allclose(after, [-0.01, 0.01, 0.0], rtol=1e-6)


def test_epsilon_stands_outside_the_root_of_the_corrected_moment():
    # With a gradient as small as epsilon the first step is halved.
    assert adam(np.zeros(1), [np.array([1e-8])], 1.0)[0] == pytest.approx(-0.5, rel=1e-12)


def test_two_steps_by_hand():
    # m̂ = (0.9·0.1·1 + 0.1·(−3)) / 0.19, v̂ = (0.999·0.001·1 + 0.001·9) / 0.001999
    m, v = (0.09 - 0.3) / 0.19, (0.000999 + 0.009) / 0.001999
    expected = 2.0 - 0.1 / (1 + 1e-8) - 0.1 * m / (np.sqrt(v) + 1e-8)
    assert adam(np.array([2.0]), [np.array([1.0]), np.array([-3.0])], 0.1)[0] == pytest.approx(expected, rel=1e-12)


@given(rng=generators(), size=st.floats(1e-3, 1e6))
def test_steps_do_not_depend_on_the_scale_of_gradients(rng, size):
    gradients = rng.choice([-1, 1], (5, 4)) * rng.uniform(0.5, 2, (5, 4))
    np.testing.assert_allclose(adam(np.ones(4), size * gradients, 0.01), adam(np.ones(4), gradients, 0.01), atol=1e-5)


@given(rng=generators(), clip=st.floats(1e-3, 10.0))
def test_clipping_limits_the_norm_and_keeps_the_direction(rng, clip):
    gradient = rng.normal(size=(3, 4))
    after, norm = clipped(gradient, clip), np.linalg.norm(gradient)
    assert np.linalg.norm(after) == pytest.approx(min(clip, norm), rel=1e-12)
    np.testing.assert_allclose(after * norm, gradient * np.linalg.norm(after), rtol=1e-9)


def test_small_gradients_and_arguments_are_unchanged():
    value, gradient = np.ones(2), np.array([0.3, 0.4])
    np.testing.assert_array_equal(clipped(gradient, 0.5), gradient)
    adam(value, [gradient], 0.1, clip=0.1)
    np.testing.assert_array_equal(value, np.ones(2))


def test_clipping_changes_later_steps():
    gradients = [np.array([30.0]), np.array([0.1])]
    free, bound = (adam(np.zeros(1), gradients, 1.0, clip) for clip in (None, 1.0))
    assert abs(free - bound)[0] > 0.01
