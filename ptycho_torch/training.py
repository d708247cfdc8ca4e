"""Training with Lightning: automatic optimisation, so accumulation and clipping are Lightning's own."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager

import lightning.pytorch as pl
import torch
from torch import Tensor

from ptycho_backend.config import ExecutionConfig
from ptycho_backend.contract import History
from ptycho_backend.core.batching import Samples
from ptycho_backend.core.monitoring import BestEpoch, refuse_non_finite, resolve_monitor
from ptycho_backend.core.schedules import rate_factor
from ptycho_backend.events import BatchEvent, EpochEvent, OnEvent
from ptycho_torch.data import PtychoDataModule
from ptycho_torch.model import TorchModel
from ptycho_torch.module import TensorBatch

logger = logging.getLogger(__name__)

# The same constants on both engines; one fused kernel updates all weights in one pass.
ADAM = {"betas": (0.9, 0.999), "eps": 1e-8, "fused": True}


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
    """

    def __init__(self, model: TorchModel, execution: ExecutionConfig, n_train: int) -> None:
        super().__init__()
        self.network = model.module
        self.train_loss_name, self.val_loss_name = model.train_loss_name, model.val_loss_name
        self._training, self._execution, self._n_train = model.training, execution, n_train

    def training_step(self, batch: TensorBatch, batch_index: int) -> dict[str, Tensor]:
        """Return the loss of a batch, weighted so that a window's mean is the mean over its samples."""
        loss = self.network.loss(batch)
        self.log(self.train_loss_name, loss, on_step=False, on_epoch=True, batch_size=len(batch.x))
        return {"loss": loss * self._window_weight(batch_index, len(batch.x)), "batch_loss": loss.detach()}

    def validation_step(self, batch: TensorBatch, batch_index: int) -> None:
        """Log the loss of a validation batch."""
        self.log(self.val_loss_name, self.network.loss(batch), on_epoch=True, batch_size=len(batch.x))

    def configure_optimizers(self):
        """Return Adam with the shared constants and the shared learning rates by epoch."""
        trained = [p for p in self.network.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=self._training.learning_rate, **ADAM)
        nepochs, execution = self._training.nepochs, self._execution
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: rate_factor(epoch, nepochs, execution))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}

    def _window_weight(self, batch_index: int, size: int) -> float:
        # Lightning divides every loss by k, also in a last window of fewer or smaller batches.
        k, batch_size = self._execution.accumulate_grad_batches, self._training.batch_size
        start = batch_index // k * k * batch_size
        in_window = min(k * batch_size, self._n_train - start)
        return size * k / in_window


class Reporter(pl.Callback):
    """Sends events, writes the history, keeps the best epoch's weights and stops early."""

    def __init__(self, model: TorchModel, execution: ExecutionConfig, best: BestEpoch, on_event: OnEvent):
        self.history: History = []
        self.best_weights = None
        self._model, self._execution, self._best, self._on_event = model, execution, best, on_event

    def on_train_epoch_start(self, trainer, module) -> None:
        """Note the learning rate now: Lightning moves the schedule on before an epoch ends."""
        self._rate = float(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index) -> None:
        """Report a batch; refuse to go on from a loss that is not a number."""
        loss = float(outputs["batch_loss"])
        refuse_non_finite(loss, trainer.current_epoch + 1, batch_index + 1)
        self._on_event(
            BatchEvent(
                trainer.current_epoch + 1, trainer.max_epochs, batch_index + 1, trainer.num_training_batches, loss
            )
        )

    def on_train_epoch_end(self, trainer, module) -> None:
        """Report an epoch, and compare it with the best one so far."""
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        metrics = {"epoch": float(trainer.current_epoch + 1), **logged, "lr": self._rate}
        self.history.append(metrics)
        self._on_event(EpochEvent(trainer.current_epoch + 1, trainer.max_epochs, metrics))
        if self._best.update(metrics) and self._execution.restore_best:
            self.best_weights = self._model.get_weights()
        trainer.should_stop = trainer.should_stop or self._best.should_stop


def fit(
    model: TorchModel,
    train: Samples,
    validation: Samples | None,
    execution: ExecutionConfig,
    on_event: OnEvent,
) -> History:
    """Train a model in place (contract clause 5)."""
    monitor = resolve_monitor(execution.monitor, model, validation is not None)
    reporter = Reporter(model, execution, BestEpoch(monitor, execution.early_stop_patience), on_event)
    module = PtychoLightning(model, execution, len(train))
    data = PtychoDataModule(train, validation, model.training.batch_size, model.training.seed)
    with _quiet_lightning():
        _trainer(model, execution, reporter, validation is not None).fit(module, datamodule=data)
    model.module.to(model.device)
    if reporter.best_weights is not None:
        model.set_weights(reporter.best_weights)
    return reporter.history


def _trainer(model: TorchModel, execution: ExecutionConfig, reporter: pl.Callback, has_validation: bool) -> pl.Trainer:
    on_gpu = model.device.type == "cuda"
    return pl.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=[model.device.index] if on_gpu else 1,
        max_epochs=model.training.nepochs,
        accumulate_grad_batches=execution.accumulate_grad_batches,
        gradient_clip_val=execution.gradient_clip_val,
        callbacks=[reporter],
        # A new order for every epoch, made from the seed and the epoch's number.
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        limit_val_batches=1.0 if has_validation else 0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@contextmanager
def _quiet_lightning():
    """Keep Lightning's hints about workers and tips out of the user's log, for the time of a fit."""
    chatter = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [log.level for log in chatter]
    try:
        for log in chatter:
            log.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
            yield
    finally:
        for log, level in zip(chatter, levels, strict=True):
            log.setLevel(level)
