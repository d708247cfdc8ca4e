"""Initial weights, and checks of names, shapes and values."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_backend.config import ModelConfig, TrainingConfig
from ptycho_backend.engines.model import complex_of, parts_of
from ptycho_backend.errors import ModelFileError
from ptycho_backend.network.architectures import initial_weights
from ptycho_backend.network.weights import check_weights, starting_weights
from ptycho_backend.physics.calibration import Calibration

SHAPES = {"step1/head/kernel": (3, 3, 8, 2), "step1/head/bias": (2,), "log_scale": ()}


def weights(**changes):
    return {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()} | changes


def test_matching_weights_are_accepted():
    check_weights(weights(), SHAPES)


def test_a_missing_weight_is_named():
    incomplete = weights()
    del incomplete["step1/head/bias"]
    with pytest.raises(ModelFileError, match="missing: step1/head/bias"):
        check_weights(incomplete, SHAPES)


def test_an_unknown_weight_is_named():
    with pytest.raises(ModelFileError, match="unknown: decoder"):
        check_weights(weights(decoder=np.zeros(3)), SHAPES)


def test_a_misspelt_weight_is_matched():
    renamed = weights()
    renamed["step1/heads/bias"] = renamed.pop("step1/head/bias")
    with pytest.raises(ModelFileError, match="rename 'step1/heads/bias' to 'step1/head/bias'"):
        check_weights(renamed, SHAPES)


def test_a_weight_of_another_shape_is_named():
    with pytest.raises(ModelFileError, match=r"'step1/head/bias' of shape \(2,\)"):
        check_weights(weights(**{"step1/head/bias": np.zeros((2, 1))}), SHAPES)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_values_are_an_error(value):
    with pytest.raises(ModelFileError, match="non-finite"):
        check_weights(weights(log_scale=np.float32(value)), SHAPES)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_complex_of_is_the_inverse_of_parts_of(dtype):
    values = np.array([[1 + 2j, -3j, np.inf], [-0.0, 4, 5 - 1j]], dtype=dtype)
    parts = parts_of(values)
    np.testing.assert_array_equal(parts[0, 0], [1, 2])
    np.testing.assert_array_equal(parts[0, 1], [0, -3])
    back = complex_of(parts)
    assert (parts.dtype, back.dtype) == (values.real.dtype, dtype)
    np.testing.assert_array_equal(back, values)
    np.testing.assert_array_equal(complex_of(np.moveaxis(parts, 0, 1)), values.T, err_msg="for any strides")


def test_starting_weights_are_network_of_the_seed_unit_scale_and_given_probe():
    probe = np.full((2, 32, 32), 1 - 2j, np.complex64)
    training = TrainingConfig(model=ModelConfig(N=32, unrolled_steps=1), seed=23)
    found = starting_weights(training, Calibration(1.0, probe))
    network = initial_weights(training.model, 23)
    assert set(found) == {*network, "log_scale", "probe"}
    for name, value in network.items():
        np.testing.assert_array_equal(found[name], value)
    assert found["log_scale"].shape == ()
    assert float(np.exp(found["log_scale"])) == 1.0
    np.testing.assert_array_equal(found["probe"], np.broadcast_to([1.0, -2.0], (2, 32, 32, 2)))
    assert {value.dtype for value in found.values()} == {np.dtype(np.float32)}
