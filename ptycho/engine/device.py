"""Devices, precision and threads in TensorFlow."""

from __future__ import annotations

import logging

import tensorflow as tf

from ptycho_backend.config import ExecutionConfig
from ptycho_backend.errors import DeviceError
from ptycho_backend.runtime.devices import choose_device
from ptycho_backend.runtime.precision import resolve_precision

logger = logging.getLogger(__name__)

AMPERE = (8, 0)  # first compute capability with bfloat16


def devices() -> tuple[str, ...]:
    """Return the devices of TensorFlow: "cpu", "cuda:0", …"""
    return ("cpu", *(f"cuda:{index}" for index in range(len(tf.config.list_physical_devices("GPU")))))


def resolve_device(device: str) -> str:
    """
    Return the device to use, "cpu" or "cuda:<index>"; "auto" is the first GPU, or the CPU without a GPU.

    Raises
    ------
    DeviceError
        If this machine has no such device.
    """
    return choose_device(device, devices(), f"tensorflow {tf.__version__}")


def prepare_device(device: str) -> None:
    """Switch off TF32 and let memory grow on a GPU; a CPU needs no preparation."""
    if not device.startswith("cuda"):
        return
    # TF32 has a mantissa of 10 bits: too few for the physics and for precision "32-true".
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        tf.config.experimental.set_memory_growth(_gpu(device), True)
    except (RuntimeError, ValueError):
        logger.debug("memory growth of %s is already set in this process", device)


def placement(device: str) -> str:
    """Return TensorFlow's name of a device."""
    return "/CPU:0" if device == "cpu" else f"/GPU:{device.partition(':')[2]}"


def convolution_dtype(execution: ExecutionConfig, device: str) -> tf.DType:
    """Return the dtype of the convolutions on a device."""
    resolved = resolve_precision(execution.precision, device, device != "cpu" and _gpu_has_bf16(device))
    if resolved == "16-mixed":
        raise DeviceError(
            "The TensorFlow engine has no float16 convolutions.",
            expected="precision='bf16-mixed' or '32-true'",
            received="precision='16-mixed'",
            fix="use precision='bf16-mixed', or the engine 'pytorch'",
        )
    return tf.bfloat16 if resolved == "bf16-mixed" else tf.float32


def apply_process_settings(execution: ExecutionConfig) -> None:
    """Set determinism and the number of threads, which TensorFlow has once per process."""
    if execution.deterministic:
        tf.config.experimental.enable_op_determinism()  # TensorFlow cannot switch it off again
    if execution.threads is None:
        return
    try:
        tf.config.threading.set_intra_op_parallelism_threads(execution.threads)
        tf.config.threading.set_inter_op_parallelism_threads(execution.threads)
    except RuntimeError:
        logger.warning(
            "threads=%d has no effect: TensorFlow is already running in this process with its own number",
            execution.threads,
        )


def _gpu(device: str) -> tf.config.PhysicalDevice:
    return tf.config.list_physical_devices("GPU")[int(device.partition(":")[2])]


def _gpu_has_bf16(device: str) -> bool:
    details = tf.config.experimental.get_device_details(_gpu(device))
    return tuple(details.get("compute_capability", (0, 0))) >= AMPERE
