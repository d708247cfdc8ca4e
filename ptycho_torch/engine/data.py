"""Batches as a Lightning data module, in the epoch order of the core."""

from __future__ import annotations

import lightning.pytorch as pl
from torch.utils.data import DataLoader, Dataset

from ptycho_backend.data.batching import Samples, batches_per_epoch, epoch_order
from ptycho_backend.training.loop import TrainingLoop
from ptycho_backend.training.parallel import ProcessRank
from ptycho_torch.engine.module import TensorBatch, to_tensors


class BatchDataset(Dataset):
    """
    Data set of whole batches, indexed by batch number.

    Parameters
    ----------
    samples : Samples
    batch_size : int
        Groups per batch.
    order : array of int, optional
        Order of the groups; None is the order of `samples`.
    skip : int
        Number of first batches to skip.
    process : ProcessRank
        Process of the training; each batch holds its share. A single process has whole batches.
    """

    def __init__(
        self, samples: Samples, batch_size: int, order=None, skip: int = 0, process: ProcessRank | None = None
    ) -> None:
        self._samples, self._batch_size, self._process = samples, batch_size, process or ProcessRank()
        rows = range(len(samples)) if order is None else order
        self._rows = rows[skip * batch_size :]

    def __len__(self) -> int:
        return batches_per_epoch(len(self._rows), self._batch_size)

    def __getitem__(self, number: int) -> TensorBatch:
        start = number * self._batch_size
        rows = self._rows[start : start + self._batch_size]
        rows = slice(rows.start, rows.stop) if isinstance(rows, range) else self._process.share(rows)
        return to_tensors(self._samples.batch(rows))


class PtychoDataModule(pl.LightningDataModule):
    """
    Training and validation batches; the training order depends on seed and epoch only.

    Parameters
    ----------
    loop : TrainingLoop
        Training continues after its last batch.
    train, validation : Samples
    process : ProcessRank
        Process of the training. Each process has its share of the training and the whole validation data.
    """

    def __init__(
        self,
        loop: TrainingLoop,
        train: Samples,
        validation: Samples | None,
        process: ProcessRank | None = None,
    ) -> None:
        super().__init__()
        self._loop, self._process = loop, process
        self._train, self._validation = train, validation
        self._batch_size, self._seed = loop.model.training.batch_size, loop.model.training.seed

    def train_dataloader(self) -> DataLoader:
        """Return the training batches of the next epoch."""
        epoch = self._loop.epoch
        order = epoch_order(len(self._train), self._seed, epoch)
        return _loader(BatchDataset(self._train, self._batch_size, order, self._loop.batch, self._process))

    def val_dataloader(self) -> DataLoader | list:
        """Return the validation batches, or none."""
        return [] if self._validation is None else _loader(BatchDataset(self._validation, self._batch_size))


def _loader(dataset: BatchDataset) -> DataLoader:
    # The data set yields ordered batches; the loader does not collate or shuffle.
    return DataLoader(dataset, batch_size=None, shuffle=False, num_workers=0)
