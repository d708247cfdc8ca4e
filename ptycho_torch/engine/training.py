"""Training with Lightning: `fit` with the callbacks of the training loop, and the training step."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor
from torch import Tensor

from ptycho_backend.config import ExecutionConfig
from ptycho_backend.data.batching import Samples
from ptycho_backend.engines.model import History
from ptycho_backend.events import OnEvent
from ptycho_backend.runtime.log_filters import filtered_logs
from ptycho_backend.runtime.malloc import freed_memory_kept
from ptycho_backend.training.loop import TrainingLoop
from ptycho_backend.training.monitoring import check_finite
from ptycho_backend.training.options import FitOptions
from ptycho_backend.training.parallel import ProcessRank, process_rank
from ptycho_backend.training.schedules import first_rate
from ptycho_torch.engine.callbacks import Reporter
from ptycho_torch.engine.checkpoint import PortableCheckpointIO, checkpoint_callbacks, restore_moments
from ptycho_torch.engine.data import PtychoDataModule
from ptycho_torch.engine.loggers import EpochLogger
from ptycho_torch.engine.model import TorchModel
from ptycho_torch.engine.module import TensorBatch
from ptycho_torch.engine.optimizer import ADAM, clip_norm
from ptycho_torch.engine.parallel import ProcessGroup, strategy_of


def fit(
    model: TorchModel,
    train: Samples,
    validation: Samples | None,
    execution: ExecutionConfig,
    on_event: OnEvent,
    options: FitOptions | None = None,
) -> History:
    """Train a model in place (contract clause 5)."""
    loop = TrainingLoop(model, execution, on_event, options or FitOptions(), len(train), validation is not None)
    if not loop.finished:
        process = process_rank(execution)
        module = TrainingModule(model, loop, ProcessGroup(process, model.device))
        data = PtychoDataModule(loop, train, validation, process)
        with filtered_lightning_logs(), freed_memory_kept():
            trainer = build_trainer(model, Reporter(model, loop), validation is not None)
            start_at(trainer, loop.epoch)
            trainer.fit(module, datamodule=data)
        model.module.to(model.device)
    loop.restore_best()
    return loop.history


def build_trainer(model: TorchModel, reporter: Reporter, has_validation: bool) -> pl.Trainer:
    """Build Lightning's Trainer from the execution options."""
    execution, options = reporter.loop.execution, reporter.loop.options
    process, on_gpu, metrics = process_rank(execution), model.device.type == "cuda", options.logger
    return pl.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=[model.device.index] if on_gpu else 1,
        num_nodes=process.world,
        strategy=strategy_of(process),
        use_distributed_sampler=False,
        max_epochs=model.training.nepochs,
        accumulate_grad_batches=execution.accumulate_grad_batches,
        gradient_clip_val=execution.gradient_clip_val,
        gradient_clip_algorithm=execution.gradient_clip_algorithm,
        callbacks=build_callbacks(reporter),
        plugins=[PortableCheckpointIO(reporter.write_checkpoint)],
        # The order of the groups changes with every epoch.
        reload_dataloaders_every_n_epochs=1,
        precision="16-mixed" if model.module.convolution_dtype == torch.float16 else "32-true",
        deterministic=execution.deterministic,
        num_sanity_val_steps=0,
        limit_val_batches=1.0 if has_validation else 0,
        logger=EpochLogger(metrics, model.train_loss_name) if metrics else False,
        enable_checkpointing=options.checkpoints is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def build_callbacks(reporter: Reporter) -> list[pl.Callback]:
    """Return the callbacks of the engine (reporter, rate, early stopping, checkpoints), then those of the caller."""
    best, options = reporter.loop.best, reporter.loop.options
    callbacks: list[pl.Callback] = [reporter]
    if options.logger is not None:
        callbacks.append(LearningRateMonitor(logging_interval="epoch"))
    if best.patience is not None:
        stopping = EarlyStopping(
            best.monitor_name,
            patience=best.patience,
            mode=best.mode,
            check_finite=False,
            check_on_train_epoch_end=True,
        )
        stopping.best_score, stopping.wait_count = torch.tensor(best.best), best.waited
        callbacks.append(stopping)
    if options.checkpoints is not None:
        saved = reporter.loop.start.saved
        reporter.checkpoint_callbacks = checkpoint_callbacks(options.checkpoints, best.monitor_name, best.mode, saved)
        callbacks += reporter.checkpoint_callbacks
    return [*callbacks, *options.callbacks]


def start_at(trainer: pl.Trainer, epoch: int) -> None:
    """Set the first epoch of a trainer, counted from 0."""
    progress = trainer.fit_loop.epoch_progress.current
    progress.ready = progress.started = progress.processed = progress.completed = epoch


@contextmanager
def filtered_lightning_logs() -> Iterator[None]:
    """Hide Lightning's messages and its warnings about intended settings."""
    with filtered_logs("lightning.pytorch", "lightning.fabric"), warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",
            ".*smaller than the logging interval.*",
            ".*sync_dist=True.*",  # logged values are the same in every process
            ".*exists and is not empty.*",  # checkpoints of the resumed training
        ):
            warnings.filterwarnings("ignore", message=message)
        yield


class TrainingModule(pl.LightningModule):
    """
    Training and validation step of a model for Lightning, with automatic optimisation.

    Lightning accumulates gradients and scales float16 losses itself.

    Parameters
    ----------
    model : TorchModel
    loop : TrainingLoop
    process_group : ProcessGroup, optional
        All processes of the training; None is a single process.
    """

    def __init__(self, model: TorchModel, loop: TrainingLoop, process_group: ProcessGroup | None = None) -> None:
        super().__init__()
        self.process_group = process_group or ProcessGroup(ProcessRank(), model.device)
        self.network = model.module
        self.train_loss_name, self.val_loss_name = model.train_loss_name, model.val_loss_name
        self._model, self._loop = model, loop
        self._loss = torch.compile(model.module.loss) if loop.execution.compile else model.module.loss

    def training_step(self, batch: TensorBatch, batch_index: int) -> dict[str, Tensor | float]:
        """Return the loss of this process's share of a batch, weighted for a mean over the accumulation window."""
        loop, process, batch_size = self._loop, self.process_group.process, self._model.training.batch_size
        loss, number = self._loss(batch), loop.batch
        groups = min(batch_size, loop.n_train - number * batch_size)
        counted = process.counted(groups)
        batch_loss = self.process_group.total(float(loss.detach()) * counted) / groups
        # Before the optimiser step, which would make the weights non-finite.
        check_finite(batch_loss, loop.epoch + 1, number + 1)
        if process.world > 1:
            # DDP needs a gradient of every weight, also of one that this loss does not depend on.
            loss = loss + 0.0 * sum(weight.sum() for weight in self._model.trained().values())
        # DDP averages gradients over the processes.
        weight = window_weight(number, counted * process.world, loop.n_train, batch_size, loop.execution)
        return {"loss": loss * weight, "batch_loss": batch_loss, "groups": groups}

    def validation_step(self, batch: TensorBatch, batch_index: int) -> None:
        """Log the loss of a validation batch."""
        # The mean over processes removes rounding differences, so that all processes decide alike.
        distributed, loss = self.process_group.process.world > 1, self.network.loss(batch)
        self.log(self.val_loss_name, loss, on_epoch=True, batch_size=len(batch.x), sync_dist=distributed)

    def configure_optimizers(self):
        """Return Adam with the constants and the learning rates of the core."""
        trained, rate = self._model.trained(), first_rate(self._model.training)
        start, schedule = self._loop.start, self._loop.schedule
        # A fused optimiser removes the scale of float16 losses itself, after Lightning has clipped.
        fused = self._model.module.convolution_dtype != torch.float16
        optimizer = torch.optim.Adam(trained.values(), lr=rate, fused=fused, **ADAM)
        restore_moments(optimizer, trained, start)
        optimizer.param_groups[0]["initial_lr"] = rate
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule.factor, last_epoch=start.epoch - 1)
        plateau, monitor = self._loop.execution.scheduler == "plateau", self._loop.best.monitor_name
        config = {"scheduler": scheduler, "interval": "epoch", "monitor": monitor, "reduce_on_plateau": plateau}
        return {"optimizer": optimizer, "lr_scheduler": {**config, "name": "lr"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient: its norm by :func:`clip_norm`, its elements by Lightning."""
        if gradient_clip_val is not None and gradient_clip_algorithm == "norm":
            clip_norm(list(self._model.trained().values()), gradient_clip_val)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def lr_scheduler_step(self, scheduler: torch.optim.lr_scheduler.LRScheduler, metric: Tensor | None) -> None:
        """Set the rate of the next epoch; the training loop has passed the metric to a plateau schedule."""
        scheduler.step()


def window_weight(number: int, size: int, n_train: int, batch_size: int, execution: ExecutionConfig) -> float:
    """Return the weight of batch `number` of an epoch, with `size` groups, in its accumulation window."""
    # Lightning divides every loss by k, also in a shorter last window.
    k = execution.accumulate_grad_batches
    start = number // k * k * batch_size
    return size * k / min(k * batch_size, n_train - start)
