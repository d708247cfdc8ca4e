"""Batches for Lightning: lazily made, in the order that both engines share."""

from __future__ import annotations

import lightning.pytorch as pl
from torch.utils.data import DataLoader, Dataset

from ptycho_backend.data.batching import Samples, batches_per_epoch, epoch_order
from ptycho_backend.training.loop import TrainingLoop
from ptycho_backend.training.parallel import ProcessRank
from ptycho_torch.engine.module import TensorBatch, to_tensors


class BatchDataset(Dataset):
    """
    Whole batches by number, so that nothing is done per sample.

    Parameters
    ----------
    samples : Samples
    batch_size : int
        Groups per batch.
    order : array of int, optional
        Order of the groups; None leaves them as they stand.
    skip : int
        Batches to leave out at the beginning.
    rank : ProcessRank
        Of which every batch holds the share; one process alone takes whole batches.
    """

    def __init__(
        self, samples: Samples, batch_size: int, order=None, skip: int = 0, rank: ProcessRank | None = None
    ) -> None:
        self._samples, self._batch_size, self._rank = samples, batch_size, rank or ProcessRank()
        rows = range(len(samples)) if order is None else order
        self._rows = rows[skip * batch_size :]

    def __len__(self) -> int:
        return batches_per_epoch(len(self._rows), self._batch_size)

    def __getitem__(self, number: int) -> TensorBatch:
        start = number * self._batch_size
        rows = self._rows[start : start + self._batch_size]
        rows = slice(rows.start, rows.stop) if isinstance(rows, range) else self._rank.share(rows)
        return to_tensors(self._samples.batch(rows))


class PtychoDataModule(pl.LightningDataModule):
    """
    Training and validation samples; the training order depends on seed and epoch alone.

    Parameters
    ----------
    loop : TrainingLoop
        Batches that it has taken in are not given again.
    train, validation : Samples
    rank : ProcessRank
        This process takes its share of every training batch, and all that is held out.
    """

    def __init__(
        self,
        loop: TrainingLoop,
        train: Samples,
        validation: Samples | None,
        rank: ProcessRank | None = None,
    ) -> None:
        super().__init__()
        self._loop, self._rank = loop, rank
        self._train, self._validation = train, validation
        self._batch_size, self._seed = loop.model.training.batch_size, loop.model.training.seed

    def train_dataloader(self) -> DataLoader:
        """Return the batches of the epoch that begins."""
        epoch = self._loop.epoch
        order = epoch_order(len(self._train), self._seed, epoch)
        return _loader(BatchDataset(self._train, self._batch_size, order, self._loop.batch, self._rank))

    def val_dataloader(self) -> DataLoader | list:
        """Return the validation batches, or none."""
        return [] if self._validation is None else _loader(BatchDataset(self._validation, self._batch_size))


def _loader(dataset: BatchDataset) -> DataLoader:
    # The dataset already yields batches in order; the loader must neither collate nor shuffle.
    return DataLoader(dataset, batch_size=None, shuffle=False, num_workers=0)
