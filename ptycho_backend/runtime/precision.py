"""Precision of the convolutions; everything else is float32 (spec: config 6)."""

from __future__ import annotations

import logging
from pathlib import Path

from ptycho_backend.errors import DeviceError

logger = logging.getLogger(__name__)

CPU_FLAGS_BF16 = {"avx512_bf16", "amx_bf16"}


def check_precision(precision: str, device: str) -> None:
    """
    Check that a device can compute in a precision (parameters of :func:`resolve_precision`).

    Raises
    ------
    DeviceError
        For "16-mixed" without a GPU.
    """
    if precision == "16-mixed" and not device.startswith("cuda"):
        raise DeviceError(
            "float16 convolutions need a GPU.",
            expected="device='cuda', or another precision",
            received=f"precision='16-mixed' on '{device}'",
            fix=f"use precision='{'bf16-mixed' if cpu_has_bf16() else '32-true'}'",
        )


def resolve_precision(precision: str, device: str, gpu_has_bf16: bool = False) -> str:
    """
    Return "32-true" or "bf16-mixed" for "auto", and anything else unchanged.

    Parameters
    ----------
    precision : str
        Configured precision.
    device : str
        Resolved device, "cpu" or "cuda…".
    gpu_has_bf16 : bool
        Whether the GPU multiplies bfloat16 natively.

    Raises
    ------
    DeviceError
        For "16-mixed" without a GPU.
    """
    check_precision(precision, device)
    if precision != "auto":
        return precision
    native = gpu_has_bf16 if device.startswith("cuda") else cpu_has_bf16()
    chosen = "bf16-mixed" if native else "32-true"
    logger.info("precision 'auto' on %s: %s convolutions", device, chosen)
    return chosen


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the processor multiplies bfloat16 natively; False if `cpuinfo` is not readable."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return bool(CPU_FLAGS_BF16 & set(flags.split()))
