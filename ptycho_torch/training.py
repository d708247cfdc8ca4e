"""Training with Lightning: automatic optimisation, so accumulation and clipping are Lightning's own."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor

from ptycho_backend.config import ExecutionConfig
from ptycho_backend.contract import History
from ptycho_backend.core.allocation import freed_memory_kept
from ptycho_backend.core.batching import Samples
from ptycho_backend.core.control import Control
from ptycho_backend.core.monitoring import BestEpoch, refuse_non_finite, resolve_monitor
from ptycho_backend.core.schedules import RateSchedule
from ptycho_backend.events import OnEvent
from ptycho_torch.callbacks import Reporter
from ptycho_torch.checkpoint import PortableCheckpointIO, checkpoint_callbacks, restore_moments
from ptycho_torch.data import PtychoDataModule
from ptycho_torch.model import TorchModel
from ptycho_torch.module import TensorBatch

# The same constants on both engines; one fused kernel updates all weights in one pass.
ADAM = {"betas": (0.9, 0.999), "eps": 1e-8}


class PtychoLightning(pl.LightningModule):
    """
    The Lightning side of a model.

    Parameters
    ----------
    model : TorchModel
    execution : ExecutionConfig
        Schedule and accumulation.
    n_train : int
        Training groups, to weigh the last, smaller batches by their samples.
    monitor : str
        Name of the metric that a plateau schedule watches.
    control : Control, optional
        Where an earlier training stopped.
    """

    def __init__(
        self, model: TorchModel, execution: ExecutionConfig, n_train: int, monitor: str, control: Control | None = None
    ) -> None:
        super().__init__()
        self.network = model.module
        self.train_loss_name, self.val_loss_name = model.train_loss_name, model.val_loss_name
        self._model, self._execution, self._n_train, self._monitor = model, execution, n_train, monitor
        self._loss = torch.compile(model.module.loss) if execution.compile else model.module.loss
        self.resumed = (control or Control()).resume
        schedule_state = self.resumed.schedule if self.resumed else None
        self.schedule = RateSchedule(model.training.nepochs, execution, schedule_state)

    def training_step(self, batch: TensorBatch, batch_index: int) -> dict[str, Tensor]:
        """Return the loss of a batch, weighted so that a window's mean is the mean over its samples."""
        loss = self._loss(batch)
        number = self.first_batch + batch_index
        refuse_non_finite(float(loss.detach()), self.current_epoch + 1, number + 1)
        weight = window_weight(number, len(batch.x), self._n_train, self._model.training.batch_size, self._execution)
        return {"loss": loss * weight, "batch_loss": loss.detach()}

    def validation_step(self, batch: TensorBatch, batch_index: int) -> None:
        """Log the loss of a validation batch."""
        self.log(self.val_loss_name, self.network.loss(batch), on_epoch=True, batch_size=len(batch.x))

    def configure_optimizers(self):
        """Return Adam with the shared constants and the shared learning rates by epoch."""
        trained, rate = self._model.trained(), self._model.training.learning_rate
        # A fused optimiser would undo the scaling of float16 losses by itself, past Lightning's clipping.
        fused = self._model.module.convolution_dtype != torch.float16
        optimizer = torch.optim.Adam(trained.values(), lr=rate, fused=fused, **ADAM)
        last_epoch = -1
        if self.resumed is not None:
            restore_moments(optimizer, trained, self.resumed)
            optimizer.param_groups[0]["initial_lr"] = rate
            last_epoch = self.resumed.epoch - 1
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule.factor, last_epoch=last_epoch)
        watches = self._execution.scheduler == "plateau"
        config = {"scheduler": scheduler, "interval": "epoch", "monitor": self._monitor, "reduce_on_plateau": watches}
        return {"optimizer": optimizer, "lr_scheduler": config}

    def lr_scheduler_step(self, scheduler: torch.optim.lr_scheduler.LRScheduler, metric: Tensor | None) -> None:
        """Move to the next epoch's rate; a schedule that watches a metric has met it in the reporter."""
        scheduler.step()

    @property
    def first_batch(self) -> int:
        """Number of batches of this epoch that an earlier training has already taken in."""
        resumed = self.resumed
        return resumed.batch if resumed is not None and self.current_epoch == resumed.epoch else 0


def window_weight(number: int, size: int, n_train: int, batch_size: int, execution: ExecutionConfig) -> float:
    """Return the weight of batch `number` of an epoch, with `size` groups, in its accumulation window."""
    # Lightning divides every loss by k, also in a last window of fewer or smaller batches.
    k = execution.accumulate_grad_batches
    start = number // k * k * batch_size
    return size * k / min(k * batch_size, n_train - start)


def fit(
    model: TorchModel,
    train: Samples,
    validation: Samples | None,
    execution: ExecutionConfig,
    on_event: OnEvent,
    control: Control | None = None,
) -> History:
    """Train a model in place (contract clause 5)."""
    control = control or Control()
    monitor = resolve_monitor(execution.monitor, model, validation is not None)
    best = BestEpoch(
        monitor,
        execution.early_stop_patience,
        execution.monitor_mode,
        control.resume.monitor if control.resume else None,
    )
    n_batches = math.ceil(len(train) / model.training.batch_size)
    module = PtychoLightning(model, execution, len(train), monitor, control)
    reporter = Reporter(model, execution, best, on_event, control, n_batches)
    start = control.resume.epoch if control.resume else 0
    if start < model.training.nepochs and not best.should_stop:
        data = PtychoDataModule(train, validation, model.training, control.resume)
        with _quiet_lightning(), freed_memory_kept():
            trainer = build_trainer(model, execution, reporter, validation is not None)
            start_at(trainer, start)
            trainer.fit(module, datamodule=data)
        model.module.to(model.device)
    reporter.finish()
    return reporter.history


def build_trainer(
    model: TorchModel, execution: ExecutionConfig, reporter: Reporter, has_validation: bool
) -> pl.Trainer:
    """Build Lightning's Trainer from the execution knobs."""
    on_gpu = model.device.type == "cuda"
    return pl.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=[model.device.index] if on_gpu else 1,
        max_epochs=model.training.nepochs,
        accumulate_grad_batches=execution.accumulate_grad_batches,
        gradient_clip_val=execution.gradient_clip_val,
        gradient_clip_algorithm=execution.gradient_clip_algorithm,
        callbacks=build_callbacks(execution, reporter),
        plugins=[PortableCheckpointIO(reporter.write_checkpoint)],
        # A new order for every epoch, made from the seed and the epoch's number.
        reload_dataloaders_every_n_epochs=1,
        precision="16-mixed" if model.module.convolution_dtype == torch.float16 else "32-true",
        deterministic=execution.deterministic,
        num_sanity_val_steps=0,
        limit_val_batches=1.0 if has_validation else 0,
        logger=False,
        enable_checkpointing=reporter.control.checkpoints is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def build_callbacks(execution: ExecutionConfig, reporter: Reporter) -> list[pl.Callback]:
    """Return the reporter, early stopping and checkpoints, all watching the same metric."""
    callbacks: list[pl.Callback] = [reporter]
    best, keeper = reporter.best, reporter.control.checkpoints
    if execution.early_stop_patience is not None:
        stopping = EarlyStopping(
            best.monitor_name,
            patience=execution.early_stop_patience,
            mode=best.mode,
            check_finite=False,
            check_on_train_epoch_end=True,
        )
        stopping.best_score, stopping.wait_count = torch.tensor(best.best), best.waited
        callbacks.append(stopping)
    if keeper is not None:
        resumed = reporter.control.resume
        kept = resumed.kept if resumed else {}
        reporter.checkpoint_callbacks = checkpoint_callbacks(keeper, best.monitor_name, best.mode, kept)
        callbacks += reporter.checkpoint_callbacks
    return callbacks


def start_at(trainer: pl.Trainer, epoch: int) -> None:
    """Let a trainer begin with an epoch, counted from 0."""
    progress = trainer.fit_loop.epoch_progress.current
    progress.ready = progress.started = progress.processed = progress.completed = epoch


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's hints about workers and tips out of the user's log, for the time of a fit."""
    chatter = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [log.level for log in chatter]
    try:
        for log in chatter:
            log.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            for message in (
                ".*does not have many workers.*",
                ".*smaller than the logging interval.*",
                ".*exists and is not empty.*",  # the checkpoints of the training that is resumed
            ):
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for log, level in zip(chatter, levels, strict=True):
            log.setLevel(level)
