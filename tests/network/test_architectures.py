"""Architectures as data: channels, sizes, parameters, initial weights and operations (network)."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.signal import correlate2d

from ptycho_backend.config import ModelConfig
from ptycho_backend.errors import ConfigError
from ptycho_backend.network.architectures import (
    KINDS,
    Network,
    Op,
    Parameter,
    describe,
    initial_weights,
    parameter_count,
    parameters,
    predicts_whole_window,
)
from ptycho_backend.network.reference import run_network
from ptycho_backend.testing import assert_close
from ptycho_backend.testing.tolerances import EXACT64

SIDES = range(32, 513, 16)
LAYOUTS = [
    {"gridsize": gridsize, "pad_object": pad, "probe_big": big}
    for gridsize, pad, big in itertools.product((1, 2), (True, False), (True, False))
]


def value_shapes(network: Network, side: int) -> dict[str, tuple[int, int]]:
    """Return (side, channels) of every value; fail if the inputs of an operation do not match."""
    kernels = {p.name: p.shape for p in network.parameters}
    sizes = {name: (side, channels) for name, channels in network.inputs.items()}
    for op in network.ops:
        assert op.kind in KINDS
        assert op.output not in sizes, "a value is written twice"
        sizes[op.output] = output_shape(op, [sizes[name] for name in op.inputs], kernels)
    return sizes


def output_shape(op: Op, inputs: list[tuple[int, int]], kernels) -> tuple[int, int]:
    side, channels = inputs[0]
    if op.kind == "conv":
        height, width, fan_in, fan_out = kernels[f"{op.attributes['name']}/kernel"]
        assert (height, width, fan_in) == (3, 3, channels)
        assert kernels[f"{op.attributes['name']}/bias"] == (fan_out,)
        return side, fan_out
    if op.kind == "pool":
        assert side % 2 == 0
        return side // 2, channels
    if op.kind == "upsample":
        return side * 2, channels
    if op.kind == "space_to_depth":
        assert side % 2 == 0
        return side // 2, channels * 4
    if op.kind == "depth_to_space":
        assert channels % 4 == 0
        return side * 2, channels // 4
    if op.kind == "pad":
        return side + 2 * op.attributes["width"], channels
    if op.kind == "slice":
        start, stop = op.attributes["start"], op.attributes["stop"]
        assert 0 <= start < stop <= channels
        return side, stop - start
    if op.kind == "concatenate":
        assert len({s for s, _ in inputs}) == 1
        return side, sum(c for _, c in inputs)
    if op.kind == "add":
        assert inputs[0] == inputs[1]
    return side, channels


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("architecture", ["unet", "cnn"])
def test_outputs_have_the_size_of_the_window(architecture, layout):
    for side in SIDES:
        config = ModelConfig(N=side, architecture=architecture, n_filters_scale=1, **layout)
        for network in describe(config).values():
            sizes = value_shapes(network, side)
            channels = 2 if architecture == "unet" else config.channels
            assert [sizes[name] for name in network.outputs] == [(side, channels)] * len(network.outputs)


@pytest.mark.parametrize("architecture", ["unet", "cnn"])
def test_every_parameter_has_one_name_and_one_use(architecture):
    config = ModelConfig(N=64, architecture=architecture, unrolled_steps=3)
    names = [p.name for p in parameters(config)]
    assert len(set(names)) == len(names)
    used = [op.attributes["name"] for net in describe(config).values() for op in net.ops if op.kind == "conv"]
    assert len(set(used)) == len(used)
    assert {f"{name}/{part}" for name in used for part in ("kernel", "bias")} == set(names)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, 979_472),
        ({"unrolled_steps": 1}, 489_160),
        ({"architecture": "cnn", "N": 64}, 2_331_772),
        ({"architecture": "cnn", "N": 128}, 4_661_212),
        ({"architecture": "cnn", "N": 256}, 12_912_268),
        ({"architecture": "cnn", "N": 64, "gridsize": 2}, 2_340_208),
    ],
)
def test_parameter_counts(fields, expected):
    assert parameter_count(ModelConfig(n_filters_scale=2, **fields)) == expected


def test_cnn_needs_the_size_of_its_patterns():
    with pytest.raises(ConfigError, match=r"model\.N=0"):
        parameters(ModelConfig(architecture="cnn"))


def test_unet_has_the_same_weights_for_every_size_and_gridsize():
    first = [(p.name, p.shape) for p in parameters(ModelConfig(N=64))]
    for fields in ({"N": 32}, {"N": 128}, {"gridsize": 3}, {"object_big": False}, {"pad_object": False}):
        assert [(p.name, p.shape) for p in parameters(ModelConfig(**{"N": 64, **fields}))] == first


def test_the_parameter_count_of_unet_by_hand():
    # Two 3×3 convolutions per level with widths 8, 16, 32, 64; the decoder also reads the skips.
    def double(fan_in, width):
        return (9 * fan_in + 1) * width + (9 * width + 1) * width

    def unet(inputs):
        down = double(inputs, 8) + double(8, 16) + double(16, 32) + double(32, 64)
        up = double(64 + 32, 32) + double(32 + 16, 16) + double(16 + 8, 8)
        return down + up + (9 * 8 + 1) * 4 * 2

    # Blocks of 2×2 pixels are channels.
    assert parameter_count(ModelConfig()) == unet(4 * 2) + unet(4 * 4)


def test_unet_works_at_half_the_sampling():
    (network,) = describe(ModelConfig(unrolled_steps=1)).values()
    found = [word for word in steps(network, network.outputs[0]) if not word.startswith("step1/")]
    assert found == ["space_to_depth", *["relu", "relu", "pool"] * 3, "relu", "relu", *UP_UNET * 3, "depth_to_space"]


@pytest.mark.parametrize(
    ("side", "encoder"),
    [(64, [32, 64, 128]), (128, [16, 32, 64, 128]), (256, [8, 16, 32, 64, 128]), (32, [32, 64, 128])],
)
def test_published_widths(side, encoder):
    (network,) = describe(ModelConfig(N=side, architecture="cnn", n_filters_scale=1)).values()
    shapes = {p.name: p.shape for p in network.parameters}
    found = [shapes[f"cnn/encoder{level}/conv1/kernel"][3] for level in range(len(encoder))]
    assert found == encoder
    assert f"cnn/encoder{len(encoder)}/conv0/kernel" not in shapes
    up = [shapes[f"cnn/phase/up{level}/conv1/kernel"][3] for level in range(len(encoder) - 1)]
    assert up == [256, 128, 64, 32][-len(up) :]
    assert shapes["cnn/phase/border/conv0/kernel"] == (3, 3, 4, 2048 // side)
    assert shapes["cnn/phase/border/kernel"] == (3, 3, 2048 // side, 1)
    assert shapes["cnn/amplitude/main/kernel"] == (3, 3, 28, 1)


def published_shapes(side, scale, pad, big, channels):
    """Return the kernels (in, out) of the published network in order, by hand from its description."""
    encoder = {64: [32, 64, 128], 128: [16, 32, 64, 128], 256: [8, 16, 32, 64, 128]}[side]
    decoder = {64: [64, 32], 128: [128, 64, 32], 256: [256, 128, 64, 32]}[side]
    kernels, fan_in = [], channels
    for width in encoder:
        kernels += [(fan_in, scale * width), (scale * width, scale * width)]
        fan_in = scale * width
    code, last = fan_in, scale * {64: 32, 128: 16, 256: 8}[side]
    for _ in ("amplitude", "phase"):
        fan_in = code
        for width in decoder:
            kernels += [(fan_in, scale * width), (scale * width, scale * width)]
            fan_in = scale * width
        if not pad:
            kernels += [(fan_in, last), (last, last), (last, channels)]
        else:
            kernels += [(fan_in - 4, channels)]
            kernels += [(4, last), (last, last), (last, channels)] if big else []
    return kernels


@pytest.mark.parametrize(("pad", "big"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("side", [64, 128, 256])
def test_the_published_networks_parameters(side, pad, big):
    for gridsize, scale in ((1, 2), (2, 1)):
        config = ModelConfig(
            N=side, architecture="cnn", gridsize=gridsize, n_filters_scale=scale, pad_object=pad, probe_big=big
        )
        found = [p.shape for p in parameters(config) if p.name.endswith("kernel")]
        assert found == [(3, 3, *pair) for pair in published_shapes(side, scale, pad, big, gridsize**2)]


def steps(network: Network, ending: str) -> list[str]:
    """Return the operations from the input to a value, one word each, along the first inputs."""
    ops = {op.output: op for op in network.ops}
    words = []
    while ending in ops:
        op = ops[ending]
        words.append(str(op.attributes.get("function", op.attributes.get("name", op.kind))))
        ending = op.inputs[0]
    return words[::-1]


UP = ["relu", "relu", "upsample"]
UP_UNET = ["upsample", "concatenate", "relu", "relu"]


def without_names(words):
    return [word for word in words if not word.startswith("cnn/")]


def test_the_published_order_of_operations():
    network = describe(ModelConfig(N=64, architecture="cnn", n_filters_scale=2))["cnn"]
    encoder = ["relu", "relu", "pool"] * 3
    for output, head, factor in zip(network.outputs, ("sigmoid", "tanh"), (2.0, math.pi), strict=True):
        (adds,) = [op for op in network.ops if op.output == output]
        centre, frame = (without_names(steps(network, name)) for name in adds.inputs)
        assert centre == [*encoder, *UP * 2, "slice", head, "scale", "pad"]
        after_the_decoder = ["slice", *UP, "swish", *(["scale"] if head == "sigmoid" else []), "border"]
        assert frame == [*encoder, *UP * 2, *after_the_decoder]
        factors = [op.attributes["factor"] for op in network.ops if op.kind == "scale"]
        assert factor in factors
    assert factors == [2.0, 2.0, math.pi]
    widths = [op.attributes["width"] for op in network.ops if op.kind in ("pad", "border")]
    assert widths == [16] * 4
    slices = [(op.attributes["start"], op.attributes["stop"]) for op in network.ops if op.kind == "slice"]
    assert slices == [(0, 60), (60, 64)] * 2


def test_the_decoder_of_the_whole_window_has_one_branch():
    network = describe(ModelConfig(N=64, architecture="cnn", pad_object=False))["cnn"]
    for output, head in zip(network.outputs, ("sigmoid", "tanh"), strict=True):
        assert without_names(steps(network, output)) == [*["relu", "relu", "pool"] * 3, *UP * 3, head, "scale"]


def test_real_and_imaginary_outputs_share_the_gauge():
    network = describe(ModelConfig(N=64, architecture="cnn", decoder_outputs="real_imaginary"))["cnn"]
    assert [op.attributes["factor"] for op in network.ops if op.kind == "scale"] == [2.0, 2.0, 2 * math.pi, 2.0]


def test_initial_weights_depend_on_the_seed_alone():
    config = ModelConfig(N=32)
    one, again, other = (initial_weights(config, seed) for seed in (4, 4, 5))
    assert list(one) == [p.name for p in parameters(config)]
    for name, value in one.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, again[name])
        assert name.endswith("bias") or (value != other[name]).any()
    np.random.seed(1)  # noqa: NPY002 - the global generator has no effect
    np.testing.assert_array_equal(initial_weights(config, 4)["step1/head/kernel"], one["step1/head/kernel"])
    larger = initial_weights(ModelConfig(N=128, gridsize=2), 4)
    assert all((larger[name] == one[name]).all() for name in one)


def test_kernels_are_glorot_uniform_and_biases_zero(rng):
    parameter = Parameter("k", (3, 3, 40, 24))
    drawn = parameter.draw(rng)
    limit = math.sqrt(6 / (9 * 64))
    assert 0.99 * limit < np.abs(drawn).max() <= limit
    assert drawn.std() == pytest.approx(limit / math.sqrt(3), rel=0.02)
    assert abs(drawn.mean()) < 0.01 * limit
    assert np.abs(Parameter("k", (3, 3, 40, 24), gain=0.01).draw(rng)).max() <= 0.01 * limit
    np.testing.assert_array_equal(Parameter("b", (7,)).draw(rng), np.zeros(7, np.float32))


def test_an_untrained_unet_gives_a_small_update(rng):
    (network,) = describe(ModelConfig(N=32, unrolled_steps=1)).values()
    estimate = rng.normal(1, 0.3, size=(2, 32, 32, 2))
    (output,) = run_network(network, {"estimate": estimate}, initial_weights(ModelConfig(N=32, unrolled_steps=1), 0))
    assert 0 < np.abs(output).max() < 0.02


def test_an_untrained_sigmoid_head_starts_at_amplitude_one_and_phase_zero(rng):
    config = ModelConfig(N=32, architecture="cnn", n_filters_scale=1)
    weights = initial_weights(config, 0)
    centre = (slice(None), slice(8, 24), slice(8, 24))
    amplitude, phase = run_network(describe(config)["cnn"], {"x": np.zeros((1, 32, 32, 1))}, weights)
    np.testing.assert_allclose(amplitude[centre], 1.0)
    np.testing.assert_allclose(phase, 0.0)
    amplitude, phase = run_network(describe(config)["cnn"], {"x": rng.random((1, 32, 32, 1)) * 50}, weights)
    assert 0 <= amplitude[centre].min() <= amplitude[centre].max() <= 2
    assert np.abs(phase[centre]).max() <= np.pi


def test_the_head_of_the_frame_is_swish_for_amplitude_and_phase():
    config = ModelConfig(N=32, architecture="cnn", n_filters_scale=1)
    weights = {name: np.zeros_like(value) for name, value in initial_weights(config, 0).items()}
    weights |= {f"cnn/{name}/border/bias": np.array([-1.0]) for name in ("amplitude", "phase")}
    amplitude, phase = run_network(describe(config)["cnn"], {"x": np.zeros((1, 32, 32, 1))}, weights)
    swish = -1 / (1 + math.e)
    np.testing.assert_allclose(amplitude[0, 0, :, 0], 2 * swish)
    np.testing.assert_allclose(phase[0, 0, :, 0], swish)


def test_without_the_border_branch_the_frame_is_zero(rng):
    config = ModelConfig(N=32, architecture="cnn", n_filters_scale=1, probe_big=False)
    (network,) = describe(config).values()
    amplitude, _ = run_network(network, {"x": rng.random((1, 32, 32, 1))}, initial_weights(config, 0))
    assert (amplitude[:, 8:24, 8:24] > 0).all()
    amplitude[:, 8:24, 8:24] = 0
    np.testing.assert_array_equal(amplitude, 0)
    assert not predicts_whole_window(config)


def test_the_border_branch_changes_only_the_frame(rng):
    config = ModelConfig(N=32, architecture="cnn", n_filters_scale=1)
    weights, x = initial_weights(config, 0), {"x": rng.random((1, 32, 32, 1))}
    (network,) = describe(config).values()
    changed = dict(weights)
    changed["cnn/amplitude/border/bias"] = weights["cnn/amplitude/border/bias"] + 1
    difference = run_network(network, x, changed)[0] - run_network(network, x, weights)[0]
    frame = np.ones((32, 32), bool)
    frame[8:24, 8:24] = False
    np.testing.assert_array_equal(difference[0, ..., 0] != 0, frame)
    assert predicts_whole_window(config)


def test_the_convolution_of_the_oracle_equals_scipys_correlation(rng):
    network = Network(
        {"a": 2},
        (Op("conv", ("a",), "b", {"name": "c"}),),
        (Parameter("c/kernel", (3, 3, 2, 3)), Parameter("c/bias", (3,))),
        ("b",),
    )
    a, kernel, bias = rng.normal(size=(2, 7, 9, 2)), rng.normal(size=(3, 3, 2, 3)), rng.normal(size=3)
    (b,) = run_network(network, {"a": a}, {"c/kernel": kernel, "c/bias": bias})
    for image, out in itertools.product(range(2), range(3)):
        parts = [correlate2d(a[image, :, :, i], kernel[:, :, i, out], mode="same") for i in range(2)]
        assert_close(b[image, :, :, out], sum(parts) + bias[out], EXACT64)


OPERATIONS = {
    "pool": ({}, [[4.0]]),
    "upsample": ({}, [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]),
    "scale": ({"factor": -2.0}, [[-2, -4], [-6, -8]]),
    "pad": ({"width": 1}, [[0, 0, 0, 0], [0, 1, 2, 0], [0, 3, 4, 0], [0, 0, 0, 0]]),
}


@pytest.mark.parametrize("kind", OPERATIONS)
def test_operations_equal_values_by_hand(kind):
    attributes, expected = OPERATIONS[kind]
    network = Network({"a": 1}, (Op(kind, ("a",), "b", attributes),), (), ("b",))
    (b,) = run_network(network, {"a": np.array([[1.0, 2.0], [3.0, 4.0]])[None, ..., None]}, {})
    np.testing.assert_array_equal(b[0, ..., 0], expected)


def test_space_to_depth_is_row_by_row_and_depth_to_space_its_inverse():
    # The value 100·channel + 10·row + column gives the origin of a number.
    y, x, channel = np.meshgrid(np.arange(4), np.arange(6), np.arange(3), indexing="ij")
    a = (100 * channel + 10 * y + x).astype(float)[None]
    ops = (Op("space_to_depth", ("a",), "b"), Op("depth_to_space", ("b",), "c"))
    b, c = run_network(Network({"a": 3}, ops, (), ("b", "c")), {"a": a}, {})
    assert b.shape == (1, 2, 3, 12)
    assert b[0, 1, 2].tolist() == [24, 124, 224, 25, 125, 225, 34, 134, 234, 35, 135, 235]
    np.testing.assert_array_equal(c, a)


def test_channel_operations(rng):
    a = rng.normal(size=(1, 6, 6, 5))
    ops = (
        Op("slice", ("a",), "b", {"start": 1, "stop": 3}),
        Op("concatenate", ("b", "a"), "c"),
        Op("border", ("a",), "d", {"width": 2}),
        Op("add", ("d", "a"), "e"),
    )
    b, c, d, e = run_network(Network({"a": 5}, ops, (), ("b", "c", "d", "e")), {"a": a}, {})
    np.testing.assert_array_equal(b, a[..., [1, 2]])
    np.testing.assert_array_equal(c, a[..., [1, 2, 0, 1, 2, 3, 4]])
    np.testing.assert_array_equal(d[:, 2:4, 2:4], 0)
    d[:, 2:4, 2:4] = a[:, 2:4, 2:4]
    np.testing.assert_array_equal(d, a)
    np.testing.assert_array_equal(e[:, 2:4, 2:4], a[:, 2:4, 2:4])


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("relu", [0, 0, 2]),
        ("sigmoid", [1 / (1 + math.e), 0.5, 1 / (1 + math.exp(-2))]),
        ("tanh", [-math.tanh(1), 0, math.tanh(2)]),
        ("swish", [-1 / (1 + math.e), 0, 2 / (1 + math.exp(-2))]),
        ("silu", [-1 / (1 + math.e), 0, 2 / (1 + math.exp(-2))]),
        ("softplus", [math.log(1 + math.exp(-1)), math.log(2), math.log(1 + math.exp(2))]),
    ],
)
def test_activations(function, expected):
    network = Network({"a": 1}, (Op("activation", ("a",), "b", {"function": function}),), (), ("b",))
    (b,) = run_network(network, {"a": np.array([-1.0, 0.0, 2.0]).reshape(1, 1, 3, 1)}, {})
    np.testing.assert_allclose(b.ravel(), expected, atol=1e-15)


def test_an_unknown_architecture_is_an_error():
    with pytest.raises(ConfigError, match="unet, cnn"):
        describe(ModelConfig(architecture="resnet"))
