"""Process group and mirrored devices of TensorFlow (spec: config 6.4)."""

from __future__ import annotations

import functools
import json
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import tensorflow as tf

from ptycho_backend.config import ExecutionConfig
from ptycho_backend.errors import ConfigError, DeviceError
from ptycho_backend.runtime.log_filters import filtered_logs
from ptycho_backend.training.parallel import ProcessRank, process_rank

Function = Callable[[list[tf.Tensor]], list[tf.Tensor]]


class ProcessGroup:
    """
    Sums over the processes of a training, by TensorFlow's collectives between the workers of a cluster.

    Every process has its own Keras variables. Equal initial weights and equal steps keep them equal.

    Parameters
    ----------
    process : ProcessRank
    device : str
        TensorFlow's name of the model's device: NCCL exchanges tensors on GPUs only.
    """

    def __init__(self, process: ProcessRank, device: str) -> None:
        self.process, self._device = process, device
        self._strategy = workers() if process.world > 1 else None

    def sums(self, tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        """Return the sums of float32 tensors over all processes, in one exchange."""
        if self._strategy is None:
            return tensors
        with tf.device(self._device):
            flat = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0)
        with _filtered_tensorflow_logs():
            total = self._strategy.run(_all_reduced, args=(flat,))
        parts = tf.split(total, [tf.size(tensor) for tensor in tensors], num=len(tensors))
        return [tf.reshape(part, tf.shape(tensor)) for part, tensor in zip(parts, tensors, strict=True)]

    def total(self, value: float) -> float:
        """Return the sum of a value over all processes, outside of a graph."""
        return value if self._strategy is None else float(self._exchange(tf.constant(value, tf.float32)))

    def any(self, value: bool) -> bool:
        """Return whether the value is true in any process."""
        return self.total(float(value)) > 0

    @functools.cached_property
    def _exchange(self) -> tf.types.experimental.PolymorphicFunction:
        return tf.function(lambda value: self.sums([value])[0], autograph=False)


class Replicas:
    """
    Devices of one process that share every batch; all read the variables of the first device.

    Parameters
    ----------
    n : int
    device : str
        Device of the model, "cpu" or "cuda:<index>".

    Raises
    ------
    DeviceError
        If this process has fewer devices.
    """

    def __init__(self, n: int, device: str) -> None:
        device_type = "CPU" if device == "cpu" else "GPU"
        found = [logical.name for logical in tf.config.list_logical_devices(device_type)]
        if len(found) < n:
            raise DeviceError(
                "The strategy 'mirrored' needs one device for each replica.",
                expected=f"{n} {device_type}s in this process",
                received=f"{len(found)}: {', '.join(found)}",
                fix="lower devices, or use strategy='multiworker'",
            )
        self._n = n
        with _filtered_tensorflow_logs():
            self._strategy = tf.distribute.MirroredStrategy(found[:n])

    def means(self, function: Function, tensors: Sequence[tf.Tensor], shared: Sequence[int]) -> list[tf.Tensor]:
        """
        Return means over a batch; every device computes the means of its share of the groups.

        Parameters
        ----------
        function : callable
            Function of tensors that returns a list of means over their groups.
        tensors : sequence of tensors
            Batch; the first axis counts groups.
        shared : sequence of int
            Indices of the tensors without an axis of groups.
        """

        def local_means(*batch: tf.Tensor) -> list[tf.Tensor]:
            groups = tf.shape(batch[0])[0]
            replica = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.int32)
            counted = groups // self._n + tf.cast(replica < groups % self._n, tf.int32)
            first = replica * (groups // self._n) + tf.minimum(replica, groups % self._n)
            # A device without groups computes one with weight 0.
            rows = tf.minimum(first + tf.range(tf.maximum(counted, 1)), groups - 1)
            local = [tensor if i in shared else tf.gather(tensor, rows) for i, tensor in enumerate(batch)]
            weight = tf.cast(counted, tf.float32) / tf.cast(groups, tf.float32)
            return [weight * mean for mean in function(local)]

        with _filtered_tensorflow_logs():
            results = self._strategy.run(local_means, args=tuple(tensors))
        return [tf.add_n(list(self._strategy.experimental_local_results(result))) for result in results]


def join_cluster(execution: ExecutionConfig) -> None:
    """
    Join the cluster of a training; TensorFlow requires this before its first computation.

    Raises
    ------
    ConfigError, DeviceError
    """
    if process_rank(execution).world == 1:
        return
    _check_cluster(process_rank(execution))
    if execution.device == "cpu":
        tf.config.set_visible_devices([], "GPU")  # the cluster would use the GPUs
    elif len(tf.config.list_physical_devices("GPU")) > 1:
        raise DeviceError(
            "Every process of a training has one visible GPU.",
            expected="CUDA_VISIBLE_DEVICES with one number",
            received=f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES')}",
            fix="srun --gpus-per-task=1, or set it to SLURM_LOCALID in every process",
        )
    workers()


@functools.cache
def workers() -> tf.distribute.Strategy:
    """Return the cluster of TF_CONFIG; a process cannot leave it."""
    with _filtered_tensorflow_logs():
        return tf.distribute.MultiWorkerMirroredStrategy()


def _all_reduced(flat: tf.Tensor) -> tf.Tensor:
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, flat)


def _filtered_tensorflow_logs() -> AbstractContextManager[None]:
    """Hide TensorFlow's messages about its cluster."""
    return filtered_logs("tensorflow", level=logging.ERROR)


def _check_cluster(process: ProcessRank) -> None:
    text = os.environ.get("TF_CONFIG", "{}")
    try:
        config = json.loads(text)
        found = len(config["cluster"]["worker"]), int(config["task"]["index"])
    except (ValueError, KeyError, TypeError):
        found = (0, 0)
    if found != (process.world, process.rank):
        raise ConfigError(
            "TensorFlow's processes find each other by TF_CONFIG.",
            expected=f"a cluster of {process.world} workers, this one with index {process.rank}",
            received=f"TF_CONFIG={text}",
            fix="set TF_CONFIG in every process, see docs/how-to/several-devices.md",
        )
