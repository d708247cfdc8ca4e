"""Every operation of a network description against NumPy, and the interpreter as a whole."""

import numpy as np
import pytest
import tensorflow as tf

from ptycho.engine.network import ACTIVATIONS, OPERATIONS, run_network
from ptycho_backend.config import ModelConfig
from ptycho_backend.network.architectures import KINDS, Builder, Op, describe, initial_weights


def values(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def run(kind, *operands, **attributes):
    return OPERATIONS[kind]([tf.constant(value) for value in operands], attributes).numpy()


def test_every_kind_of_operation_exists():
    assert set(OPERATIONS) | {"conv"} == set(KINDS)


@pytest.mark.parametrize("side", [1, 3])
def test_convolution(side):
    value, kernel, bias = values(2, 6, 5, 3), values(side, side, 3, 4, seed=1), values(4, seed=2)
    net = Builder("net", {"v": 3})
    op = Op("conv", ("v",), "out", {"name": "net/c"})
    weights = {"net/c/kernel": tf.constant(kernel), "net/c/bias": tf.constant(bias)}
    network = type(net.build("v"))({"v": 3}, (op,), (), ("out",))
    (actual,) = run_network(network, {"v": tf.constant(value)}, weights, tf.float32)
    pad = side // 2
    padded = np.pad(value, ((0, 0), (pad, pad), (pad, pad), (0, 0))).astype(float)
    expected = sum(
        padded[:, i : i + 6, j : j + 5] @ kernel[i, j].astype(float) for i in range(side) for j in range(side)
    )
    np.testing.assert_allclose(actual.numpy(), expected + bias, rtol=1e-5, atol=1e-5)


def test_pool_is_the_maximum_of_2x2_blocks():
    value = values(2, 4, 6, 3)
    expected = value.reshape(2, 2, 2, 3, 2, 3).max(axis=(2, 4))
    np.testing.assert_array_equal(run("pool", value), expected)


def test_upsampling_repeats_pixels():
    value = values(2, 3, 4, 3)
    np.testing.assert_array_equal(run("upsample", value), value.repeat(2, axis=1).repeat(2, axis=2))


def test_space_to_depth_is_row_by_row_and_depth_to_space_its_inverse():
    value = values(2, 4, 6, 3)
    blocks = np.concatenate([value[:, a::2, b::2] for a in (0, 1) for b in (0, 1)], axis=-1)
    np.testing.assert_array_equal(run("space_to_depth", value), blocks)
    np.testing.assert_array_equal(run("depth_to_space", blocks), value)


FORMULAS = {
    "relu": lambda v: np.maximum(v, 0),
    "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
    "tanh": np.tanh,
    "swish": lambda v: v / (1 + np.exp(-v)),
    "silu": lambda v: v / (1 + np.exp(-v)),
    "softplus": lambda v: np.log1p(np.exp(v)),
}


@pytest.mark.parametrize("function", ACTIVATIONS)
def test_activations(function):
    value = 3 * values(1, 4, 4, 2)
    np.testing.assert_allclose(
        run("activation", value, function=function), FORMULAS[function](value.astype(float)), rtol=1e-5, atol=1e-6
    )


def test_scale_pad_slice_concatenate_and_add():
    a, b = values(2, 4, 4, 3), values(2, 4, 4, 3, seed=1)
    np.testing.assert_allclose(run("scale", a, factor=np.pi), a * np.float32(np.pi))
    np.testing.assert_array_equal(run("pad", a, width=2), np.pad(a, ((0, 0), (2, 2), (2, 2), (0, 0))))
    np.testing.assert_array_equal(run("slice", a, start=1, stop=3), a[..., 1:3])
    np.testing.assert_array_equal(run("concatenate", a, b), np.concatenate([a, b], axis=-1))
    np.testing.assert_array_equal(run("add", a, b), a + b)


def test_border_is_zero_except_for_a_frame():
    frame = run("border", np.ones((1, 8, 8, 2), np.float32), width=2)
    assert frame[0, 2:6, 2:6].sum() == 0
    assert frame.sum() == 2 * (64 - 16)


def constants(weights):
    return {name: tf.constant(value) for name, value in weights.items()}


@pytest.mark.parametrize("config", [{"architecture": "unet"}, {"architecture": "cnn", "gridsize": 2}])
def test_networks_run_and_bfloat16_stays_close_to_float32(config):
    model = ModelConfig(N=32, n_filters_scale=1, **config)
    weights = constants(initial_weights(model, seed=0))
    for network in describe(model).values():
        inputs = {name: tf.constant(values(2, 32, 32, width)) for name, width in network.inputs.items()}
        exact = run_network(network, inputs, weights, tf.float32)
        coarse = run_network(network, inputs, weights, tf.bfloat16)
        for a, b in zip(exact, coarse, strict=True):
            assert a.dtype == b.dtype == tf.float32
            assert a.shape[:3] == (2, 32, 32)
            difference = np.abs(a.numpy() - b.numpy()).max()
            # bfloat16 has 8 bits: the results differ, but by at most a few per cent of the largest value.
            assert 0 < difference < 0.05 * np.abs(a.numpy()).max()


def test_published_amplitude_and_phase_stay_in_range():
    model = ModelConfig(N=32, n_filters_scale=1, architecture="cnn", probe_big=False)
    weights = constants(initial_weights(model, seed=0))
    (network,) = describe(model).values()
    amplitude, phase = run_network(network, {"x": tf.constant(100 * values(3, 32, 32, 1))}, weights, tf.float32)
    assert amplitude.numpy().min() >= 0
    assert amplitude.numpy().max() <= 2
    assert np.abs(phase.numpy()).max() <= np.pi * (1 + 1e-6)
    assert not amplitude.numpy()[:, :8].any()  # only the central half is predicted
