"""Processes that train together, as TensorFlow sees them (spec: config 6.4)."""

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
    What processes add up: TensorFlow's own collectives between the workers of a cluster.

    Keras trains with plain variables of its own in every process. All begin with the same weights and take the same
    steps, so they stay the same.

    Parameters
    ----------
    rank : ProcessRank
    device : str
        TensorFlow's name of the model's device: what crosses between GPUs starts on one.
    """

    def __init__(self, rank: ProcessRank, device: str) -> None:
        self.rank, self._device = rank, device
        self._strategy = workers() if rank.world > 1 else None

    def sums(self, tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        """Return the sums of every process's float32 tensors, in one exchange."""
        if self._strategy is None:
            return tensors
        with tf.device(self._device):
            flat = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0)
        with _quiet_tensorflow():
            total = self._strategy.run(_all_reduced, args=(flat,))
        parts = tf.split(total, [tf.size(tensor) for tensor in tensors], num=len(tensors))
        return [tf.reshape(part, tf.shape(tensor)) for part, tensor in zip(parts, tensors, strict=True)]

    def total(self, value: float) -> float:
        """Return the sum of every process's value, outside of a graph."""
        return value if self._strategy is None else float(self._exchange(tf.constant(value, tf.float32)))

    def any(self, value: bool) -> bool:
        """Return whether one of the processes says yes."""
        return self.total(float(value)) > 0

    @functools.cached_property
    def _exchange(self) -> tf.types.experimental.PolymorphicFunction:
        return tf.function(lambda value: self.sums([value])[0], autograph=False)


class Replicas:
    """
    Devices of one process that share every batch: the variables stay on the first, each device reads them.

    Parameters
    ----------
    n : int
    device : str
        The model's, "cpu" or "cuda:<index>".

    Raises
    ------
    DeviceError
        If there are not so many devices of this kind.
    """

    def __init__(self, n: int, device: str) -> None:
        kind = "CPU" if device == "cpu" else "GPU"
        found = [logical.name for logical in tf.config.list_logical_devices(kind)]
        if len(found) < n:
            raise DeviceError(
                "The strategy 'mirrored' needs as many devices as it mirrors.",
                expected=f"{n} {kind}s in this process",
                received=f"{len(found)}: {', '.join(found)}",
                fix="lower devices, or use strategy='multiworker'",
            )
        self._n = n
        with _quiet_tensorflow():
            self._strategy = tf.distribute.MirroredStrategy(found[:n])

    def means(self, function: Function, tensors: Sequence[tf.Tensor], shared: Sequence[int]) -> list[tf.Tensor]:
        """
        Return what a function answers about a batch, every device about its share of the groups.

        Parameters
        ----------
        function : callable
            Receives tensors and returns a list of means over their groups.
        tensors : sequence of tensors
            Groups first.
        shared : sequence of int
            Which of the tensors have no groups.
        """

        def about_own_share(*whole: tf.Tensor) -> list[tf.Tensor]:
            groups = tf.shape(whole[0])[0]
            rank = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.int32)
            counted = groups // self._n + tf.cast(rank < groups % self._n, tf.int32)
            first = rank * (groups // self._n) + tf.minimum(rank, groups % self._n)
            # A device without a group computes one that counts for nothing.
            rows = tf.minimum(first + tf.range(tf.maximum(counted, 1)), groups - 1)
            own = [tensor if i in shared else tf.gather(tensor, rows) for i, tensor in enumerate(whole)]
            weight = tf.cast(counted, tf.float32) / tf.cast(groups, tf.float32)
            return [weight * mean for mean in function(own)]

        with _quiet_tensorflow():
            answers = self._strategy.run(about_own_share, args=tuple(tensors))
        return [tf.add_n(list(self._strategy.experimental_local_results(answer))) for answer in answers]


def join(execution: ExecutionConfig) -> None:
    """
    Meet the other processes of a training, before this one has computed anything; later TensorFlow cannot.

    Raises
    ------
    ConfigError, DeviceError
    """
    if process_rank(execution).world == 1:
        return
    _check_cluster(process_rank(execution))
    if execution.device == "cpu":
        tf.config.set_visible_devices([], "GPU")  # which the cluster would use otherwise
    elif len(tf.config.list_physical_devices("GPU")) > 1:
        raise DeviceError(
            "Every process of a training sees one GPU, its own.",
            expected="CUDA_VISIBLE_DEVICES with one number",
            received=f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES')}",
            fix="srun --gpus-per-task=1, or set it to SLURM_LOCALID in every process",
        )
    workers()


@functools.cache
def workers() -> tf.distribute.Strategy:
    """Return the cluster that TF_CONFIG describes; a process belongs to one for good."""
    with _quiet_tensorflow():
        return tf.distribute.MultiWorkerMirroredStrategy()


def _all_reduced(flat: tf.Tensor) -> tf.Tensor:
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, flat)


def _quiet_tensorflow() -> AbstractContextManager[None]:
    """Keep TensorFlow's notes on its cluster out of the user's log."""
    return filtered_logs("tensorflow", level=logging.ERROR)


def _check_cluster(rank: ProcessRank) -> None:
    text = os.environ.get("TF_CONFIG", "{}")
    try:
        config = json.loads(text)
        found = len(config["cluster"]["worker"]), int(config["task"]["index"])
    except (ValueError, KeyError, TypeError):
        found = (0, 0)
    if found != (rank.world, rank.rank):
        raise ConfigError(
            "TensorFlow's processes find each other by TF_CONFIG.",
            expected=f"a cluster of {rank.world} workers, this one with index {rank.rank}",
            received=f"TF_CONFIG={text}",
            fix="set TF_CONFIG in every process, see docs/how-to/several-devices.md",
        )
