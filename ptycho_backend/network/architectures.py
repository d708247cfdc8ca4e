"""
Network architectures as lists of named operations (spec: network).

Each engine has one interpreter for the operation kinds in :data:`KINDS`. A new entry of :data:`ARCHITECTURES` works in
every engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.config import ModelConfig
from ptycho_backend.errors import ConfigError

AMPLITUDE_GAUGE = 2.0  # an untrained sigmoid head gives 1/2, an untrained object has amplitude 1
FRAME_CHANNELS = 4  # channels of the last decoder level for the frame around the centre
FRAME_WIDTH = 2048  # the last block has FRAME_WIDTH / N filters per unit of `n_filters_scale`
KINDS = (
    *("conv", "pool", "upsample", "space_to_depth", "depth_to_space", "activation"),
    *("scale", "pad", "border", "slice", "concatenate", "add"),
)


@dataclass(frozen=True)
class Op:
    """
    One operation on (batch, y, x, channel) values.

    Kinds with their attributes:
    "conv" (`name`; same padding, stride 1, bias), "pool" (2×2 maximum), "upsample" (nearest, ×2),
    "space_to_depth" (pixels of 2×2 blocks to channels, row by row), "depth_to_space" (its inverse),
    "activation" (`function`), "scale" (`factor`), "pad" (`width` zeros on each side),
    "border" (zero except for a frame of `width` pixels), "slice" (`start`, `stop` channels),
    "concatenate" (channels), "add".
    """

    kind: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Parameter:
    """Convolution kernel (height, width, in, out) or bias (out,); `gain` scales its Glorot range."""

    name: str
    shape: tuple[int, ...]
    gain: float = 1.0

    def draw(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """Draw initial values: Glorot-uniform kernels, zero biases."""
        if len(self.shape) == 1:
            return np.zeros(self.shape, dtype=np.float32)
        height, width, fan_in, fan_out = self.shape
        limit = self.gain * math.sqrt(6.0 / (height * width * (fan_in + fan_out)))
        return rng.uniform(-limit, limit, self.shape).astype(np.float32)


@dataclass(frozen=True)
class Network:
    """Network: input channels by name, operations in order, parameters, and the names of its outputs."""

    inputs: Mapping[str, int]
    ops: tuple[Op, ...]
    parameters: tuple[Parameter, ...]
    outputs: tuple[str, ...]


class Builder:
    """Builder of a network: appends operations and counts channels."""

    def __init__(self, prefix: str, inputs: Mapping[str, int]) -> None:
        self._prefix = prefix
        self._inputs = dict(inputs)
        self._channels = dict(inputs)
        self._ops: list[Op] = []
        self._parameters: list[Parameter] = []

    def channels(self, value: str) -> int:
        """Return the number of channels of a value."""
        return self._channels[value]

    def add(self, kind: str, *inputs: str, channels: int | None = None, **attributes: Any) -> str:
        """Append an operation and return the name of its output."""
        output = f"{kind}{len(self._ops)}"
        self._ops.append(Op(kind, inputs, output, attributes))
        self._channels[output] = self._channels[inputs[0]] if channels is None else channels
        return output

    def conv(self, value: str, name: str, width: int, gain: float = 1.0, activation: str | None = "relu") -> str:
        """Append a 3×3 convolution with bias and an activation."""
        full = f"{self._prefix}/{name}"
        shape = (3, 3, self.channels(value), width)
        self._parameters += [Parameter(f"{full}/kernel", shape, gain), Parameter(f"{full}/bias", (width,))]
        output = self.add("conv", value, channels=width, name=full)
        return self.add("activation", output, function=activation) if activation else output

    def double_conv(self, value: str, name: str, width: int) -> str:
        """Append two 3×3 ReLU convolutions."""
        return self.conv(self.conv(value, f"{name}/conv0", width), f"{name}/conv1", width)

    def concatenate(self, *values: str) -> str:
        """Join values along channels."""
        return self.add("concatenate", *values, channels=sum(map(self.channels, values)))

    def build(self, *outputs: str) -> Network:
        """Return the network."""
        return Network(self._inputs, tuple(self._ops), tuple(self._parameters), outputs)


def describe(config: ModelConfig) -> dict[str, Network]:
    """
    Return the networks of a model by name, in order of execution.

    Raises
    ------
    ConfigError
        If the architecture is not registered.
    """
    if config.architecture not in ARCHITECTURES:
        raise ConfigError(
            f"Unknown architecture '{config.architecture}'.",
            expected=f"one of {', '.join(ARCHITECTURES)}",
            received=f"architecture={config.architecture!r}",
            fix="choose a registered architecture",
        )
    return ARCHITECTURES[config.architecture](config)


def parameters(config: ModelConfig) -> tuple[Parameter, ...]:
    """Return all parameters of a model in canonical order."""
    return tuple(p for network in describe(config).values() for p in network.parameters)


def parameter_count(config: ModelConfig) -> int:
    """Return the number of trainable values of the networks."""
    return sum(math.prod(p.shape) for p in parameters(config))


def initial_weights(config: ModelConfig, seed: int) -> dict[str, NDArray[np.float32]]:
    """Draw the initial weights, the same for every engine."""
    rng = np.random.default_rng([seed, 0])
    return {parameter.name: parameter.draw(rng) for parameter in parameters(config)}


def merges_groups(config: ModelConfig) -> bool:
    """Return whether the patches of a group are merged on a canvas."""
    return config.channels > 1 and config.object_big


def predicts_whole_window(config: ModelConfig) -> bool:
    """Return whether patches cover the whole window, not only its central half."""
    return config.architecture != "cnn" or config.probe_big or not config.pad_object


def _unet(prefix: str, inputs: Mapping[str, int], width: int) -> Network:
    """
    Return a U-Net of depth 3 whose two output channels are the real and imaginary part of an object update.

    The network works at half the sampling, with 2×2 pixels as channels. This doubles the receptive field and needs a
    quarter of the time (ADR-013).
    """
    net = Builder(prefix, inputs)
    value = net.concatenate(*inputs) if len(inputs) > 1 else next(iter(inputs))
    value = net.add("space_to_depth", value, channels=4 * net.channels(value))
    widths = [width, 2 * width, 4 * width, 8 * width]
    skips = []
    for level, channels in enumerate(widths[:-1]):
        skips.append(net.double_conv(value, f"encoder{level}", channels))
        value = net.add("pool", skips[-1])
    value = net.double_conv(value, "bottom", widths[-1])
    for level in (2, 1, 0):
        value = net.concatenate(net.add("upsample", value), skips[level])
        value = net.double_conv(value, f"decoder{level}", widths[level])
    # A small gain: the untrained network nearly returns the physics estimate.
    blocks = net.conv(value, "head", 4 * 2, gain=0.01, activation=None)
    return net.build(net.add("depth_to_space", blocks, channels=2))


def _unrolled_unet(config: ModelConfig) -> dict[str, Network]:
    width = 8 * config.n_filters_scale
    networks = {"step1": _unet("step1", {"estimate": 2}, width)}
    for step in range(2, config.unrolled_steps + 1):
        networks[f"step{step}"] = _unet(f"step{step}", {"constrained": 2, "estimate": 2}, width)
    return networks


def _cnn(config: ModelConfig) -> dict[str, Network]:
    """Return the published network: one encoder of normalised amplitude, decoders of amplitude and phase."""
    net = Builder("cnn", {"x": config.channels})
    encoder, decoder = _cnn_widths(config)
    value = "x"
    for level, width in enumerate(encoder):
        value = net.add("pool", net.double_conv(value, f"encoder{level}", width))
    amplitude = _cnn_decoder(net, value, "amplitude", decoder, config)
    phase = _cnn_decoder(net, value, "phase", decoder, config)
    return {"cnn": net.build(amplitude, phase)}


def _cnn_widths(config: ModelConfig) -> tuple[list[int], list[int]]:
    if config.N == 0:
        raise ConfigError(
            "The network 'cnn' needs the size of its patterns.",
            expected="model.N from 32 to 512",
            received="model.N=0, which stands for the size of a scan",
            fix="set model.N to the side of the patterns; train() does so",
        )
    scale = config.n_filters_scale
    # Larger windows have more levels in front; the deepest level stays at 8×8 pixels.
    levels = {64: (32, 64, 128), 128: (16, 32, 64, 128), 256: (8, 16, 32, 64, 128)}
    depth = 3 + max(0, round(math.log2(config.N / 64)))
    while config.N % 2**depth:
        depth -= 1
    encoder = levels.get(config.N, levels[64 if depth == 3 else 128 if depth == 4 else 256])
    decoder = {3: (64, 32), 4: (128, 64, 32)}.get(len(encoder), (256, 128, 64, 32))
    return [scale * width for width in encoder], [scale * width for width in decoder]


def _cnn_decoder(net: Builder, value: str, name: str, widths: list[int], config: ModelConfig) -> str:
    """Append a decoder of the whole window, or of its centre and its frame from separate channels."""
    for level, width in enumerate(widths):
        value = net.add("upsample", net.double_conv(value, f"{name}/up{level}", width))
    width = config.n_filters_scale * max(1, FRAME_WIDTH // config.N)
    if not config.pad_object:
        whole = net.add("upsample", net.double_conv(value, f"{name}/whole", width))
        return _cnn_head(net, whole, f"{name}/main", config)
    last, quarter = net.channels(value), config.N // 4
    inner = net.add("slice", value, channels=last - FRAME_CHANNELS, start=0, stop=last - FRAME_CHANNELS)
    centre = net.add("pad", _cnn_head(net, inner, f"{name}/main", config), width=quarter)
    if not config.probe_big:
        return centre
    outer = net.add("slice", value, channels=FRAME_CHANNELS, start=last - FRAME_CHANNELS, stop=last)
    frame = net.add("upsample", net.double_conv(outer, f"{name}/border", width))
    return net.add("add", centre, net.add("border", _cnn_head(net, frame, f"{name}/border", config), width=quarter))


def _cnn_head(net: Builder, value: str, name: str, config: ModelConfig) -> str:
    """Append the last convolution of a branch, its activation and its scale (mean amplitude 1)."""
    is_amplitude, inside = name.startswith("amplitude"), not name.endswith("border")
    cartesian = config.decoder_outputs == "real_imaginary"
    function = "swish" if not inside else config.amp_activation if is_amplitude else "tanh"
    factor = AMPLITUDE_GAUGE if is_amplitude or cartesian else 1.0
    factor *= math.pi if inside and not is_amplitude else 1.0
    activated = net.conv(value, name, config.channels, activation=function)
    return net.add("scale", activated, factor=factor) if factor != 1.0 else activated


ARCHITECTURES: dict[str, Callable[[ModelConfig], dict[str, Network]]] = {
    "unet": _unrolled_unet,
    "cnn": _cnn,
}
