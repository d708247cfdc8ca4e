"""Interpreter of network descriptions in PyTorch; kernels have torch's layout."""

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
    Network description as a module, from (batch, channel, y, x) tensors by input name to a tuple of outputs.

    A module, not a function, because torch trains the parameters of modules. Kernels are (out, in, height, width) in
    channels-last memory, the layout of fast convolutions; :func:`to_canonical` and :func:`from_canonical` convert.
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
            operands = [values[name] for name in op.inputs]
            values[op.output] = torch.relu_(operands[0]) if position in self._in_place else self._run(op, operands)
            for name in self._last_use.get(position, ()):
                del values[name]  # frees memory: no later operation reads this value
        return tuple(values[name] for name in self._network.outputs)

    def _run(self, op: Op, operands: list[Tensor]) -> Tensor:
        if op.kind == "conv":
            name = op.attributes["name"]
            kernel, bias = (self.values[key(f"{name}/{part}")] for part in ("kernel", "bias"))
            return F.conv2d(operands[0], kernel, bias, padding=kernel.shape[-1] // 2)
        return OPERATIONS[op.kind](operands, op.attributes)

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
    """Return a canonical name as a valid name of a module attribute."""
    return name.replace("/", "__")


def to_canonical(value: Tensor) -> Tensor:
    """Return a kernel (out, in, height, width) as (height, width, in, out); vectors are unchanged."""
    return value.permute(2, 3, 1, 0) if value.ndim == 4 else value


def from_canonical(value: Tensor) -> Tensor:
    """Return a kernel (height, width, in, out) as (out, in, height, width); vectors are unchanged."""
    return value.permute(3, 2, 0, 1) if value.ndim == 4 else value


def _empty(parameter: Parameter) -> Tensor:
    if len(parameter.shape) != 4:
        return torch.empty(parameter.shape)
    height, width, fan_in, fan_out = parameter.shape
    # Not a permuted array: with one output channel its strides are ambiguous.
    return torch.empty((fan_out, fan_in, height, width), memory_format=torch.channels_last)


def _last_uses(network: Network) -> dict[int, list[str]]:
    last = {name: position for position, op in enumerate(network.ops) for name in op.inputs}
    uses: dict[int, list[str]] = {}
    for name, position in last.items():
        if name not in network.outputs:
            uses.setdefault(position, []).append(name)
    return uses


def _in_place(network: Network, last_use: Mapping[int, list[str]]) -> frozenset[int]:
    """Return the ReLUs that may overwrite their input: the output of a convolution without other readers."""
    kinds = {op.output: op.kind for op in network.ops}
    return frozenset(
        position
        for position, op in enumerate(network.ops)
        if op.kind == "activation"
        and op.attributes["function"] == "relu"
        and kinds.get(op.inputs[0]) == "conv"
        and op.inputs[0] in last_use.get(position, ())
        and sum(op.inputs[0] in other.inputs for other in network.ops) == 1
    )


def _border(operands: list[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    width = attributes["width"]
    frame = torch.ones(operands[0].shape[-2:], device=operands[0].device, dtype=operands[0].dtype)
    frame[width:-width, width:-width] = 0
    return operands[0] * frame


def _space_to_depth(operands: list[Tensor], _: Mapping[str, Any]) -> Tensor:
    # Channels are innermost in memory: these views need no copy, and the copy at the end moves whole rows.
    blocks = operands[0].permute(0, 2, 3, 1).unflatten(1, (-1, 2)).unflatten(3, (-1, 2))
    return blocks.transpose(2, 3).flatten(3).permute(0, 3, 1, 2)


def _depth_to_space(operands: list[Tensor], _: Mapping[str, Any]) -> Tensor:
    blocks = operands[0].permute(0, 2, 3, 1).unflatten(3, (2, 2, -1))
    return blocks.transpose(2, 3).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def _pad(operands: list[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    return F.pad(operands[0], (attributes["width"],) * 4)


OPERATIONS: dict[str, Callable[[list[Tensor], Mapping[str, Any]], Tensor]] = {
    "pool": lambda operands, _: F.max_pool2d(operands[0], 2),
    "upsample": lambda operands, _: F.interpolate(operands[0], scale_factor=2, mode="nearest"),
    "space_to_depth": _space_to_depth,
    "depth_to_space": _depth_to_space,
    "activation": lambda operands, attributes: ACTIVATIONS[attributes["function"]](operands[0]),
    "scale": lambda operands, attributes: operands[0] * attributes["factor"],
    "pad": _pad,
    "border": _border,
    "slice": lambda operands, attributes: operands[0][:, attributes["start"] : attributes["stop"]],
    "concatenate": lambda operands, _: torch.cat(operands, dim=1),
    "add": lambda operands, _: operands[0] + operands[1],
}
