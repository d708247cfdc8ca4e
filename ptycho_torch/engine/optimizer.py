"""Constants and clipping of :mod:`ptycho_backend.engines.optimizer` for torch's Adam (spec: config 5.1, 5.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from ptycho_backend.engines.optimizer import BETA1, BETA2, EPSILON

ADAM: Mapping[str, Any] = MappingProxyType({"betas": (BETA1, BETA2), "eps": EPSILON})


@torch.no_grad()
def clip_norm(parameters: Sequence[nn.Parameter], bound: float) -> None:
    """
    Scale gradients in place by min(1, bound / norm), with the norm over all elements.

    torch's own function adds 1e-6 to the norm, too much for gradients of that size.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]))
    factor = torch.clamp(bound / norm, max=1.0)
    for gradient in gradients:
        gradient.mul_(factor)
