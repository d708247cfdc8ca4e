"""Nesterov's momentum and its extrapolation (physics 6.5)."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_backend.physics.momentum import extrapolate, momentum
from ptycho_backend.testing.strategies import complex_noise


def test_momentum_grows_from_zero_towards_one():
    assert [momentum(k) for k in (0, 1, 3)] == [0.0, 0.25, 0.5]
    assert 0.99 < momentum(1000) < 1.0


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_extrapolation_is_the_formula_and_keeps_its_inputs(rng, dtype):
    current, previous = (complex_noise(rng, 5, 7).astype(dtype) for _ in range(2))
    copies = current.copy(), previous.copy()
    found = extrapolate(current, previous, 3)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, current + dtype(0.5) * (current - previous))
    np.testing.assert_array_equal(current, copies[0])
    np.testing.assert_array_equal(previous, copies[1])
    np.testing.assert_array_equal(extrapolate(current, previous, 0), current)
