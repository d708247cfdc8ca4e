"""Batches for Keras: made from NumPy arrays by another thread, in the order that every engine uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ptycho.engine.module import arrays_of, specification
from ptycho_backend.config import TrainingConfig
from ptycho_backend.data.batching import Samples, batches_per_epoch, epoch_order
from ptycho_backend.training.parallel import ProcessRank

PREFETCH = 2  # batches made ready while one is being trained on

Arrays = tuple[Any, ...]


@dataclass(frozen=True)
class EpochRange:
    """
    Epochs (counted from 0) in a row, each without its first `skipped` batches.

    Only the first epoch of a resumed training lacks any.
    """

    epochs: range
    skipped: int = 0


@contextmanager
def training_batches(
    samples: Samples, training: TrainingConfig, window: int, epoch_range: EpochRange, rank: ProcessRank | None = None
) -> Iterator[tf.data.Dataset]:
    """
    Provide the batches of a epoch_range in one row, so that an epoch's first batches are ready when it begins.

    Each element holds this process's share of a batch. It ends with the number of groups in it that count, and a
    flag: whether a window of `window` batches, or the epoch, ends with it.
    """
    own = rank or ProcessRank()
    n_batches = batches_per_epoch(len(samples), training.batch_size)

    def make() -> Iterator[Arrays]:
        for epoch in epoch_range.epochs:
            order = epoch_order(len(samples), training.seed, epoch)
            for number in range(epoch_range.skipped, n_batches):
                rows = order[number * training.batch_size :][: training.batch_size]
                ends_window = (number + 1) % window == 0 or number + 1 == n_batches
                for batch in samples.batches(training.batch_size, own.share(rows)):  # one
                    yield (*arrays_of(batch), own.counted(len(rows)), ends_window)

    scalars = tf.TensorSpec((), tf.float32), tf.TensorSpec((), tf.bool)
    signature = (*specification(samples.batch(slice(0, 1))), *scalars)
    with _fed_by(make, signature) as dataset:
        yield dataset


@contextmanager
def validation_batches(samples: Samples | None, training: TrainingConfig) -> Iterator[tf.data.Dataset | None]:
    """Provide the held-out batches, again and again; None without any."""
    if samples is None:
        yield None
        return

    def make() -> Iterator[Arrays]:
        return map(arrays_of, samples.batches(training.batch_size))

    n_batches = batches_per_epoch(len(samples), training.batch_size)
    with _fed_by(make, specification(samples.batch(slice(0, 1)))) as dataset:
        yield dataset.apply(tf.data.experimental.assert_cardinality(n_batches))


@contextmanager
def _fed_by(make: Callable[[], Iterator[Arrays]], signature: Arrays) -> Iterator[tf.data.Dataset]:
    """Turn a maker of arrays into a data set; its errors come out as they were raised."""
    # TensorFlow keeps the generator function for the life of the process: what it reaches is let go at the end.
    makers, errors = [make], []

    def generate() -> Iterator[Arrays]:
        try:
            for current in makers:
                yield from current()
        except Exception as error:
            errors.append(error)
            raise

    try:
        yield tf.data.Dataset.from_generator(generate, output_signature=signature).prefetch(PREFETCH)
    except tf.errors.OpError:
        if errors:  # TensorFlow itself reports what failed in its thread as text only
            raise errors[0] from None
        raise
    finally:
        makers.clear()
        errors.clear()
