"""Runs a network description in PyTorch; parameters keep their canonical names and values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptycho_backend.network.architectures import Network, Op, Parameter

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "swish": F.silu,
    "silu": F.silu,
    "softplus": F.softplus,
}


class Interpreter(nn.Module):
    """
    A network description as a module: (batch, channel, y, x) tensors by input name in, outputs in order out.

    Convolution kernels are kept as (out, in, height, width) in channels-last memory, which is what fast
    convolutions read; :func:`to_canonical` and :func:`from_canonical` translate.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._network = network
        self._last_use = _last_uses(network)
        self._in_place = _in_place(network, self._last_use)
        self.values = nn.ParameterDict({key(p.name): nn.Parameter(_empty(p)) for p in network.parameters})

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run the operations in order."""
        values = {name: value.contiguous(memory_format=torch.channels_last) for name, value in inputs.items()}
        for position, op in enumerate(self._network.ops):
            inputs = [values[name] for name in op.inputs]
            values[op.output] = torch.relu_(inputs[0]) if position in self._in_place else self._run(op, inputs)
            for name in self._last_use.get(position, ()):
                del values[name]  # a value that nothing reads any more need not stay in memory
        return tuple(values[name] for name in self._network.outputs)

    def _run(self, op: Op, inputs: list[Tensor]) -> Tensor:
        if op.kind == "conv":
            name = op.attributes["name"]
            kernel, bias = self.values[key(f"{name}/kernel")], self.values[key(f"{name}/bias")]
            return F.conv2d(inputs[0], kernel, bias, padding=kernel.shape[-1] // 2)
        return OPERATIONS[op.kind](inputs, op.attributes)

    @property
    def by_name(self) -> dict[str, nn.Parameter]:
        """Parameters by canonical name, in torch's layout."""
        return {p.name: self.values[key(p.name)] for p in self._network.parameters}

    @torch.no_grad()
    def load_canonical(self, weights: Mapping[str, Any]) -> None:
        """Copy canonical arrays into the parameters."""
        for name, parameter in self.by_name.items():
            parameter.copy_(from_canonical(torch.as_tensor(weights[name])))


def key(name: str) -> str:
    """Return a canonical name as a module attribute, which may hold no dot."""
    return name.replace("/", "__")


def to_canonical(value: Tensor) -> Tensor:
    """(out, in, height, width) to (height, width, in, out); vectors stay."""
    return value.permute(2, 3, 1, 0) if value.ndim == 4 else value


def from_canonical(value: Tensor) -> Tensor:
    """(height, width, in, out) to (out, in, height, width); vectors stay."""
    return value.permute(3, 2, 0, 1) if value.ndim == 4 else value


def _empty(parameter: Parameter) -> Tensor:
    if len(parameter.shape) != 4:
        return torch.empty(parameter.shape)
    height, width, fan_in, fan_out = parameter.shape
    # Made anew, not permuted: with one output channel a permuted kernel only looks channels-last.
    return torch.empty((fan_out, fan_in, height, width), memory_format=torch.channels_last)


def _last_uses(network: Network) -> dict[int, list[str]]:
    last = {name: position for position, op in enumerate(network.ops) for name in op.inputs}
    uses: dict[int, list[str]] = {}
    for name, position in last.items():
        if name not in network.outputs:
            uses.setdefault(position, []).append(name)
    return uses


def _in_place(network: Network, last_use: Mapping[int, list[str]]) -> frozenset[int]:
    """Return the ReLUs that may write over their input: a convolution's output that nothing else reads."""
    makers = {op.output: op.kind for op in network.ops}
    return frozenset(
        position
        for position, op in enumerate(network.ops)
        if op.kind == "activation"
        and op.attributes["function"] == "relu"
        and makers.get(op.inputs[0]) == "conv"
        and op.inputs[0] in last_use.get(position, ())
        and sum(op.inputs[0] in other.inputs for other in network.ops) == 1
    )


def _border(inputs: list[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    width = attributes["width"]
    frame = torch.ones(inputs[0].shape[-2:], device=inputs[0].device, dtype=inputs[0].dtype)
    frame[width:-width, width:-width] = 0
    return inputs[0] * frame


def _space_to_depth(inputs: list[Tensor], _: Mapping[str, Any]) -> Tensor:
    # Channels are innermost in memory: moved as whole rows, and no copy is made to look at them so.
    blocks = inputs[0].permute(0, 2, 3, 1).unflatten(1, (-1, 2)).unflatten(3, (-1, 2))
    return blocks.transpose(2, 3).flatten(3).permute(0, 3, 1, 2)


def _depth_to_space(inputs: list[Tensor], _: Mapping[str, Any]) -> Tensor:
    blocks = inputs[0].permute(0, 2, 3, 1).unflatten(3, (2, 2, -1))
    return blocks.transpose(2, 3).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def _pad(inputs: list[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    return F.pad(inputs[0], (attributes["width"],) * 4)


OPERATIONS: dict[str, Callable[[list[Tensor], Mapping[str, Any]], Tensor]] = {
    "pool": lambda inputs, _: F.max_pool2d(inputs[0], 2),
    "upsample": lambda inputs, _: F.interpolate(inputs[0], scale_factor=2, mode="nearest"),
    "space_to_depth": _space_to_depth,
    "depth_to_space": _depth_to_space,
    "activation": lambda inputs, attributes: ACTIVATIONS[attributes["function"]](inputs[0]),
    "scale": lambda inputs, attributes: inputs[0] * attributes["factor"],
    "pad": _pad,
    "border": _border,
    "slice": lambda inputs, attributes: inputs[0][:, attributes["start"] : attributes["stop"]],
    "concatenate": lambda inputs, _: torch.cat(inputs, dim=1),
    "add": lambda inputs, _: inputs[0] + inputs[1],
}
