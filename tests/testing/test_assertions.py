"""Assertions of the suite fail when they should, and report the difference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho_backend.testing import (
    Tolerance,
    assert_adjoint,
    assert_close,
    assert_far,
    assert_same_training,
    relative_error,
)
from ptycho_backend.testing import tolerances as module
from ptycho_backend.testing.strategies import positions, probes, waves

TIGHT = Tolerance(1e-3, "an example")


def test_relative_error():
    assert relative_error([1.0, 0.01], [1.0, 0.0]) == pytest.approx(0.01)
    assert relative_error(np.array([2.0j]), np.array([2.0])) == pytest.approx(np.sqrt(2))
    assert relative_error([0.5], [0.0]) == 0.5
    assert relative_error([], []) == 0.0


@pytest.mark.parametrize("actual", [[1.0, 2.01], [1.0, np.nan], [np.inf, 2.0]])
def test_assert_close(actual):
    with pytest.raises(AssertionError, match="an example"):
        assert_close(actual, [1.0, 2.0], TIGHT)
    assert_close([1.0, 2.001], [1.0, 2.0], TIGHT)


def test_shapes_must_be_equal():
    with pytest.raises(AssertionError, match=r"\(1, 2\) instead of \(2,\)"):
        assert_close(np.ones((1, 2)), np.ones(2), TIGHT)


def test_assert_far():
    assert_far([1.1], [1.0], TIGHT)
    with pytest.raises(AssertionError, match="within 3 tolerances"):
        assert_far([1.002], [1.0], TIGHT)


@pytest.mark.parametrize(
    ("history", "weight"),
    [
        ([{"epoch": 1.0, "loss": 1.002}], 1.0),
        ([{"epoch": 1.0, "loss": np.nan}], 1.0),
        ([{"epoch": 1.0}], 1.0),
        ([], 1.0),
        ([{"epoch": 1.0, "loss": 1.0}], 1.003),
        ([{"epoch": 1.0, "loss": 1.0}], np.nan),
    ],
)
def test_assert_same_training(history, weight):
    expected = [{"epoch": 1.0, "loss": 1.0}], {"kernel": np.ones(4)}
    with pytest.raises(AssertionError):
        assert_same_training((history, {"kernel": weight * np.ones(4)}), expected, TIGHT, slack=2.0)
    close = [{"epoch": 1.0, "loss": 1.0009}], {"kernel": 1.0019 * np.ones(4)}
    assert_same_training(close, expected, TIGHT, slack=2.0)


def test_assert_adjoint(rng):
    matrix, x, y = rng.normal(size=(3, 4)) + 1j, rng.normal(size=4), rng.normal(size=3)
    assert_adjoint(lambda v: matrix @ v, lambda v: matrix.conj().T @ v, x, y, TIGHT)
    with pytest.raises(AssertionError, match="A'y"):
        assert_adjoint(lambda v: matrix @ v, lambda v: matrix.T @ v, x, y, TIGHT)


def test_every_tolerance_has_a_reason():
    tolerances = [value for value in vars(module).values() if isinstance(value, Tolerance)]
    assert len(tolerances) >= 8
    for tolerance in tolerances:
        assert 0 < tolerance.relative < 0.01
        assert len(tolerance.reason) > 20


@given(wave=waves(), positions_px=positions(2, 5, whole=True), probe=probes(8), side=st.just(8))
def test_shapes_and_values_of_strategies(wave, positions_px, probe, side):
    assert wave.ndim == 3
    assert np.iscomplexobj(wave)
    assert 2 <= len(positions_px) <= 5
    np.testing.assert_array_equal(positions_px, np.rint(positions_px))
    assert probe.shape[1:] == (side, side)
    assert (np.abs(probe) ** 2).sum() == pytest.approx((side / 2) ** 2)
