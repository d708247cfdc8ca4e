"""Devices and precision in PyTorch."""

from __future__ import annotations

import contextlib

import torch

from ptycho_backend.config import ExecutionConfig
from ptycho_backend.runtime.devices import choose_device
from ptycho_backend.runtime.precision import resolve_precision


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
    return torch.device(choose_device(device, devices(), f"torch {torch.__version__}"))


def prepare_device(device: torch.device) -> None:
    """Set what a GPU needs for this work; the processor needs nothing."""
    if device.type == "cuda":
        # TF32 keeps 10 bits of mantissa: too few for the physics, and not what "32-true" promises.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


def convolution_dtype(execution: ExecutionConfig, device: torch.device) -> torch.dtype:
    """Return the dtype of the convolutions on a device."""
    on_gpu = device.type == "cuda"
    gpu_bf16 = on_gpu and torch.cuda.is_bf16_supported()
    resolved = resolve_precision(execution.precision, str(device), gpu_bf16)
    return {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(resolved, torch.float32)


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[None]:
    """Return the context in which networks run; it overrides any precision context around it."""
    narrow = dtype != torch.float32
    return torch.autocast(device.type, dtype=dtype if narrow else torch.bfloat16, enabled=narrow)


def apply_threads(execution: ExecutionConfig) -> None:
    """Set torch's processor threads where the configuration names a number."""
    if execution.threads is not None:
        torch.set_num_threads(execution.threads)
