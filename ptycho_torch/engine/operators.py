"""Physics operators of this engine on NumPy arrays (spec: backend_contract 8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptycho_backend.engines.operators import Operators, Result, as_float32, check_cotangent, engine_arguments
from ptycho_torch.engine import physics
from ptycho_torch.engine.device import prepare_device, resolve_device
from ptycho_torch.engine.module import to_numpy
from ptycho_torch.engine.optimizer import ADAM, clip_norm


class TorchOperators(Operators):
    """
    Functions of :mod:`ptycho_torch.engine.physics` on a device, float32.

    Parameters
    ----------
    device : str
        Same values as in ExecutionConfig.
    """

    def __init__(self, device: str = "auto") -> None:
        self._device = resolve_device(device)
        prepare_device(self._device)
        self.device = str(self._device)

    @torch.no_grad()
    def evaluate(self, name: str, *arguments: Any) -> Result:
        """Return the result of an operator."""
        result = self._call(name, self._tensors(name, arguments))
        return result.item() if result.ndim == 0 else to_numpy(result)

    def gradient(self, name: str, *arguments: Any, by: int = 0, cotangent: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return the gradient by backpropagation; contract and torch share the complex convention."""
        check_cotangent(name, cotangent)
        tensors = self._tensors(name, arguments)
        tensors[by].requires_grad_()
        loss = self._call(name, tensors)
        if cotangent is not None:
            loss = (self._tensor(as_float32(cotangent)).conj() * loss).real.sum()
        (gradient,) = torch.autograd.grad(loss, [tensors[by]])
        return to_numpy(gradient)

    def optimiser_steps(
        self,
        value: NDArray[Any],
        gradients: Sequence[NDArray[Any]],
        learning_rate: float,
        clip: float | None = None,
    ) -> NDArray[Any]:
        """Return the value after the steps of Adam, with the constants and the clipping of training."""
        rows = [torch.nn.Parameter(self._tensor(row)) for row in as_float32(np.asarray(value))]
        optimizer = torch.optim.Adam(rows, lr=learning_rate, fused=True, **ADAM)
        for gradient in gradients:
            for row, part in zip(rows, as_float32(np.asarray(gradient)), strict=True):
                row.grad = self._tensor(part)
            if clip is not None:
                clip_norm(rows, clip)
            optimizer.step()
        return np.stack([to_numpy(row.detach()) for row in rows])

    def _tensors(self, name: str, arguments: Sequence[Any]) -> list[Any]:
        return [self._tensor(value) for value in engine_arguments(name, arguments)]

    def _tensor(self, value: Any) -> Any:
        return torch.tensor(value, device=self._device) if isinstance(value, np.ndarray | np.generic) else value

    def _call(self, name: str, tensors: Sequence[Any]) -> Tensor:
        with torch.autocast(self._device.type, enabled=False):
            return getattr(physics, name)(*tensors)
