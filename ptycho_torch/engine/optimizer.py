"""Adam and its clipping as the TensorFlow engine computes them (spec: config 5.1, config 5.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

# Where training is not in float16, one fused kernel updates all weights in one pass.
ADAM: Mapping[str, Any] = MappingProxyType({"betas": (0.9, 0.999), "eps": 1e-8})


@torch.no_grad()
def clip_norm(parameters: Sequence[nn.Parameter], bound: float) -> None:
    """
    Scale gradients in place so that their norm over all elements is at most a bound.

    The factor is min(1, bound / norm). torch's own function adds 1e-6 to the norm, and takes far too much from
    gradients of that size.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]))
    factor = torch.clamp(bound / norm, max=1.0)
    for gradient in gradients:
        gradient.mul_(factor)
