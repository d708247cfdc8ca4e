"""Devices and precision in PyTorch."""

from __future__ import annotations

import contextlib

import torch

from ptycho_backend.config import ExecutionConfig
from ptycho_backend.core.precision import resolve_precision
from ptycho_backend.errors import DeviceError


def devices() -> tuple[str, ...]:
    """Return the devices torch sees: "cpu", "cuda:0", …"""
    return ("cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count())))


def resolve_device(device: str) -> torch.device:
    """
    Return the device to use; "auto" takes the first GPU, else the processor.

    Raises
    ------
    DeviceError
        If the device does not exist here.
    """
    found = devices()
    if device == "auto":
        return torch.device(found[1] if len(found) > 1 else "cpu")
    wanted = "cuda:0" if device in ("cuda", "gpu") else device
    if wanted not in found:
        raise DeviceError(
            "The device must exist on this machine.",
            expected=f"one of auto, {', '.join(found)}",
            received=f"device={device!r}; torch {torch.__version__} sees {len(found) - 1} GPU(s)",
            fix="use device='auto', or install a torch build that supports this GPU",
        )
    return torch.device(wanted)


def convolution_dtype(execution: ExecutionConfig, device: torch.device) -> torch.dtype:
    """Return the dtype of the convolutions on a device."""
    on_gpu = device.type == "cuda"
    gpu_bf16 = on_gpu and torch.cuda.is_bf16_supported()
    resolved = resolve_precision(execution.precision, str(device), gpu_bf16)
    return torch.bfloat16 if resolved == "bf16-mixed" else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[None]:
    """Return the context in which networks run; it overrides any precision context around it."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16)


def apply_threads(execution: ExecutionConfig) -> None:
    """Set torch's processor threads where the configuration names a number."""
    if execution.threads is not None:
        torch.set_num_threads(execution.threads)
