"""Adaptive central differences: rounding, curvature and kinks, which limit the step."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho_backend.testing.differences import STEPS, derivative_at_zero

LEVEL = 1.3246  # value of a typical loss; its rounding limits small steps
SIGNS = st.sampled_from([-1.0, 1.0])


@given(SIGNS, st.floats(-7, 1), st.floats(0.5, 3.0))
def test_derivatives_far_below_the_value(sign, exponent, level):
    steepness = sign * 10**exponent
    assert derivative_at_zero(lambda x: level + steepness * x) == pytest.approx(steepness, rel=2e-4)


def test_the_smallest_step_alone_is_inaccurate():
    steepness, step = 4.8e-7, STEPS[0]
    central = ((LEVEL + steepness * step) - (LEVEL - steepness * step)) / (2 * step)
    assert abs(central / steepness - 1) > 2e-4


@given(st.floats(-6.5, -1), SIGNS, st.floats(0.01, 1.0), st.floats(-1.0, 1.0))
def test_kinks_within_a_step(exponent, side, bend, steepness):
    kink = side * 10**exponent

    def function(x):
        beyond = max(0.0, x - kink) if side > 0 else max(0.0, kink - x)
        return LEVEL + steepness * x + bend * beyond

    assert derivative_at_zero(function) == pytest.approx(steepness, rel=2e-4, abs=1e-7)


@given(st.floats(0.1, 3.0), SIGNS)
def test_curvature(rate, sign):
    def function(x):
        return math.exp(sign * rate * x) + 100.0 * x**2

    assert derivative_at_zero(function) == pytest.approx(sign * rate, rel=1e-6)


def test_a_constant_function():
    assert derivative_at_zero(lambda _: LEVEL) == 0.0


def test_an_accurate_first_step_needs_three_values():
    arguments = []

    def function(x):
        arguments.append(x)
        return LEVEL + 2.0 * x

    derivative_at_zero(function)
    assert arguments == [0.0, STEPS[0], -STEPS[0]]
