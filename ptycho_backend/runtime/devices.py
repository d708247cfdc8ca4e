"""Choice of the device: one rule for every engine (spec: config 6)."""

from __future__ import annotations

import os
from pathlib import Path

from ptycho_backend.errors import DeviceError

# Device files of the drivers of GPUs: NVIDIA, NVIDIA under Windows (WSL), AMD.
GPU_FILES = ("nvidia[0-9]*", "dxg", "kfd")


def gpu_driver_present(folder: Path = Path("/dev")) -> bool:
    """Return whether this machine has the driver of a GPU; no framework is imported."""
    return any(any(folder.glob(pattern)) for pattern in GPU_FILES)


def choose_device(device: str, found: tuple[str, ...], engine: str) -> str:
    """
    Return the device to use, "cpu" or "cuda:<index>"; "auto" takes the first GPU, else the processor.

    Parameters
    ----------
    device : str
        Configured device; "cuda" and "gpu" stand for the first GPU.
    found : tuple of str
        Devices of the engine on this machine, "cpu" first.
    engine : str
        Name and version, for the message.

    Raises
    ------
    DeviceError
        If the device does not exist on this machine.
    """
    if device == "auto":
        return found[1] if len(found) > 1 else found[0]
    name = "cuda:0" if device in ("cuda", "gpu") else device
    if name not in found:
        raise DeviceError(
            "The device must exist on this machine.",
            expected=f"one of auto, {', '.join(found)}",
            received=f"device={device!r}; {engine} sees {len(found) - 1} GPU(s)",
            fix="use device='auto', or install a build of the framework that supports this GPU",
        )
    return name


def processors() -> int:
    """Return the number of processors that this process may use; processes of torchrun share those of a machine."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, available // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
