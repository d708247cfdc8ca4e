"""Devices, precision and threads in PyTorch."""

from __future__ import annotations

import contextlib

import torch

from ptycho_backend.config import ExecutionConfig
from ptycho_backend.runtime.devices import choose_device
from ptycho_backend.runtime.precision import resolve_precision


def devices() -> tuple[str, ...]:
    """Return the devices of torch: "cpu", "cuda:0", …"""
    return ("cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count())))


def resolve_device(device: str) -> torch.device:
    """
    Return the device to use; "auto" is the first GPU, or the CPU without a GPU.

    Raises
    ------
    DeviceError
        If this machine has no such device.
    """
    return torch.device(choose_device(device, devices(), f"torch {torch.__version__}"))


def prepare_device(device: torch.device) -> None:
    """Switch off TF32 on a GPU; a CPU needs no preparation."""
    if device.type == "cuda":
        # TF32 has a mantissa of 10 bits: too few for the physics and for precision "32-true".
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


def convolution_dtype(execution: ExecutionConfig, device: torch.device) -> torch.dtype:
    """Return the dtype of the convolutions on a device."""
    on_gpu = device.type == "cuda"
    gpu_bf16 = on_gpu and torch.cuda.is_bf16_supported()
    resolved = resolve_precision(execution.precision, str(device), gpu_bf16)
    return {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(resolved, torch.float32)


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[None]:
    """Return the precision context of the networks; it overrides an outer precision context."""
    reduced = dtype != torch.float32
    return torch.autocast(device.type, dtype=dtype if reduced else torch.bfloat16, enabled=reduced)


def apply_process_settings(execution: ExecutionConfig) -> None:
    """Set the number of threads, which torch has once per process; Lightning sets determinism."""
    if execution.threads is not None:
        torch.set_num_threads(execution.threads)


def unchanged_random_state() -> contextlib.AbstractContextManager[None]:
    """Return a block that restores torch's random numbers, which modules and data loaders draw."""
    return torch.random.fork_rng(range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0))
