"""Batches as tf.data sets, in the epoch order of the core; a second thread makes them from NumPy arrays."""

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

PREFETCH = 2  # batches in preparation during a training step

Arrays = tuple[Any, ...]


@dataclass(frozen=True)
class EpochRange:
    """
    Consecutive epochs (counted from 0), each without its first `skipped` batches.

    Only the first epoch of a resumed training skips batches.
    """

    epochs: range
    skipped: int = 0


@contextmanager
def training_batches(
    samples: Samples, training: TrainingConfig, window: int, epoch_range: EpochRange, process: ProcessRank | None = None
) -> Iterator[tf.data.Dataset]:
    """
    Provide the batches of all epochs of a range as one data set, which prefetches across epochs.

    Each element holds this process's share of a batch and, last, two scalars. The first is the number of groups that
    count. The second is a flag: an accumulation window (`window` batches) or the epoch ends with this batch.
    """
    process = process or ProcessRank()
    n_batches = batches_per_epoch(len(samples), training.batch_size)

    def make() -> Iterator[Arrays]:
        for epoch in epoch_range.epochs:
            order = epoch_order(len(samples), training.seed, epoch)
            for number in range(epoch_range.skipped, n_batches):
                rows = order[number * training.batch_size :][: training.batch_size]
                ends_window = (number + 1) % window == 0 or number + 1 == n_batches
                for batch in samples.batches(training.batch_size, process.share(rows)):  # one batch
                    yield (*arrays_of(batch), process.counted(len(rows)), ends_window)

    scalars = tf.TensorSpec((), tf.float32), tf.TensorSpec((), tf.bool)
    signature = (*specification(samples.batch(slice(0, 1))), *scalars)
    with _dataset(make, signature) as dataset:
        yield dataset


@contextmanager
def validation_batches(samples: Samples | None, training: TrainingConfig) -> Iterator[tf.data.Dataset | None]:
    """Provide the validation batches as a repeatable data set, or None without validation samples."""
    if samples is None:
        yield None
        return

    def make() -> Iterator[Arrays]:
        return map(arrays_of, samples.batches(training.batch_size))

    n_batches = batches_per_epoch(len(samples), training.batch_size)
    with _dataset(make, specification(samples.batch(slice(0, 1)))) as dataset:
        yield dataset.apply(tf.data.experimental.assert_cardinality(n_batches))


@contextmanager
def _dataset(make: Callable[[], Iterator[Arrays]], signature: Arrays) -> Iterator[tf.data.Dataset]:
    """Provide a data set of generated arrays; errors of the generator keep their type."""
    # TensorFlow never frees the generator function. It reaches the samples through this list, which is emptied.
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
        if errors:  # TensorFlow reports an error of its thread only as text
            raise errors[0] from None
        raise
    finally:
        makers.clear()
        errors.clear()
