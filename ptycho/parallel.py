"""Processes that train together, as TensorFlow sees them (spec: config 6.4)."""

from __future__ import annotations

import functools
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from ptycho_backend.config import ExecutionConfig
from ptycho_backend.errors import ConfigError, DeviceError
from ptycho_backend.parallel import Place, place_of


class Team:
    """
    What processes add up: TensorFlow's own collectives between the workers of a cluster.

    Keras trains with plain variables of its own in every process. All begin with the same weights and take the same
    steps, so they stay the same.

    Parameters
    ----------
    place : Place
    device : str
        TensorFlow's name of the model's device: what crosses between GPUs starts on one.
    """

    def __init__(self, place: Place, device: str) -> None:
        self.place, self._device = place, device
        self._strategy = workers() if place.world > 1 else None

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


def join(execution: ExecutionConfig) -> None:
    """
    Meet the other processes of a training, before this one has computed anything; later TensorFlow cannot.

    Raises
    ------
    ConfigError, DeviceError
    """
    if place_of(execution).world == 1:
        return
    if execution.compile:
        raise ConfigError(
            "XLA compiles the training step of one process only.",
            expected="compile=False with several devices",
            received=f"compile=True, devices={execution.devices}, num_nodes={execution.num_nodes}",
            fix="leave compile out, or use one device",
        )
    _check_cluster(place_of(execution))
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


@contextmanager
def _quiet_tensorflow() -> Iterator[None]:
    """Keep TensorFlow's notes on its cluster out of the user's log."""
    log = logging.getLogger("tensorflow")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _check_cluster(place: Place) -> None:
    text = os.environ.get("TF_CONFIG", "{}")
    try:
        config = json.loads(text)
        found = len(config["cluster"]["worker"]), int(config["task"]["index"])
    except (ValueError, KeyError, TypeError):
        found = (0, 0)
    if found != (place.world, place.rank):
        raise ConfigError(
            "TensorFlow's processes find each other by TF_CONFIG.",
            expected=f"a cluster of {place.world} workers, this one with index {place.rank}",
            received=f"TF_CONFIG={text}",
            fix="set TF_CONFIG in every process, see docs/how-to/several-devices.md",
        )
