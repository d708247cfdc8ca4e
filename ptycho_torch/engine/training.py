"""Training with Lightning: automatic optimisation, so accumulation and float16 are Lightning's own."""

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
from ptycho_backend.training.monitoring import refuse_non_finite
from ptycho_backend.training.options import FitOptions
from ptycho_backend.training.parallel import ProcessRank, process_rank
from ptycho_backend.training.schedules import first_rate
from ptycho_torch.engine.callbacks import Reporter
from ptycho_torch.engine.checkpoint import PortableCheckpointIO, checkpoint_callbacks, restore_moments
from ptycho_torch.engine.data import PtychoDataModule
from ptycho_torch.engine.loggers import PortableLogger
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
    """Train a model in rank (contract clause 5)."""
    loop = TrainingLoop(model, execution, on_event, options or FitOptions(), len(train), validation is not None)
    if not loop.over:
        rank = process_rank(execution)
        module = PtychoLightning(model, loop, ProcessGroup(rank, model.device))
        data = PtychoDataModule(loop, train, validation, rank)
        with filtered_lightning_logs(), freed_memory_kept():
            trainer = build_trainer(model, Reporter(model, loop), validation is not None)
            start_at(trainer, loop.epoch)
            trainer.fit(module, datamodule=data)
        model.module.to(model.device)
    loop.finish()
    return loop.history


def build_trainer(model: TorchModel, reporter: Reporter, has_validation: bool) -> pl.Trainer:
    """Build Lightning's Trainer from the execution knobs."""
    execution, options = reporter.loop.execution, reporter.loop.options
    rank, on_gpu, metrics = process_rank(execution), model.device.type == "cuda", options.logger
    return pl.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=[model.device.index] if on_gpu else 1,
        num_nodes=rank.world,
        strategy=strategy_of(rank),
        use_distributed_sampler=False,
        max_epochs=model.training.nepochs,
        accumulate_grad_batches=execution.accumulate_grad_batches,
        gradient_clip_val=execution.gradient_clip_val,
        gradient_clip_algorithm=execution.gradient_clip_algorithm,
        callbacks=build_callbacks(reporter),
        plugins=[PortableCheckpointIO(reporter.write_checkpoint)],
        # A new order for every epoch, made from the seed and the epoch's number.
        reload_dataloaders_every_n_epochs=1,
        precision="16-mixed" if model.module.convolution_dtype == torch.float16 else "32-true",
        deterministic=execution.deterministic,
        num_sanity_val_steps=0,
        limit_val_batches=1.0 if has_validation else 0,
        logger=PortableLogger(metrics, model.train_loss_name) if metrics else False,
        enable_checkpointing=options.checkpoints is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def build_callbacks(reporter: Reporter) -> list[pl.Callback]:
    """Return the reporter, the rate's monitor, early stopping and checkpoints, and the caller's own after them."""
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
        kept = reporter.loop.start.kept
        reporter.checkpoint_callbacks = checkpoint_callbacks(options.checkpoints, best.monitor_name, best.mode, kept)
        callbacks += reporter.checkpoint_callbacks
    return [*callbacks, *options.callbacks]


def start_at(trainer: pl.Trainer, epoch: int) -> None:
    """Let a trainer begin with an epoch, counted from 0."""
    progress = trainer.fit_loop.epoch_progress.current
    progress.ready = progress.started = progress.processed = progress.completed = epoch


@contextmanager
def filtered_lightning_logs() -> Iterator[None]:
    """Keep Lightning's hints about workers and tips out of the user's log, for the time of a fit."""
    with filtered_logs("lightning.pytorch", "lightning.fabric"), warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",
            ".*smaller than the logging interval.*",
            ".*sync_dist=True.*",  # what is logged is the same in every process
            ".*exists and is not empty.*",  # the checkpoints of the training that is resumed
        ):
            warnings.filterwarnings("ignore", message=message)
        yield


class PtychoLightning(pl.LightningModule):
    """
    The Lightning side of a model.

    Parameters
    ----------
    model : TorchModel
    loop : TrainingLoop
        Where training stands.
    process_group : ProcessGroup, optional
        The processes that train together; None is one alone.
    """

    def __init__(self, model: TorchModel, loop: TrainingLoop, process_group: ProcessGroup | None = None) -> None:
        super().__init__()
        self.process_group = process_group or ProcessGroup(ProcessRank(), model.device)
        self.network = model.module
        self.train_loss_name, self.val_loss_name = model.train_loss_name, model.val_loss_name
        self._model, self._loop = model, loop
        self._loss = torch.compile(model.module.loss) if loop.execution.compile else model.module.loss

    def training_step(self, batch: TensorBatch, batch_index: int) -> dict[str, Tensor | float]:
        """Return this process's part of a batch's loss, weighted so that a window's mean is that over its samples."""
        loop, rank, batch_size = self._loop, self.process_group.rank, self._model.training.batch_size
        loss, number = self._loss(batch), loop.batch
        groups = min(batch_size, loop.n_train - number * batch_size)
        counted = rank.counted(groups)
        batch_loss = self.process_group.total(float(loss.detach()) * counted) / groups
        # Now, not when the batch is over: its step would spoil the weights.
        refuse_non_finite(batch_loss, loop.epoch + 1, number + 1)
        if rank.world > 1:
            # The processes wait for every weight's gradient, also of one that this loss does not depend on.
            loss = loss + 0.0 * sum(weight.sum() for weight in self._model.trained().values())
        # Gradients become their mean over the processes.
        weight = window_weight(number, counted * rank.world, loop.n_train, batch_size, loop.execution)
        return {"loss": loss * weight, "batch_loss": batch_loss, "groups": groups}

    def validation_step(self, batch: TensorBatch, batch_index: int) -> None:
        """Log the loss of a validation batch."""
        # Equal in every process but for rounding, which must not lead them to different decisions.
        together, loss = self.process_group.rank.world > 1, self.network.loss(batch)
        self.log(self.val_loss_name, loss, on_epoch=True, batch_size=len(batch.x), sync_dist=together)

    def configure_optimizers(self):
        """Return Adam with the shared constants and the shared learning rates by epoch."""
        trained, rate = self._model.trained(), first_rate(self._model.training)
        start, schedule = self._loop.start, self._loop.schedule
        # A fused optimiser would undo the scaling of float16 losses by itself, past Lightning's clipping.
        fused = self._model.module.convolution_dtype != torch.float16
        optimizer = torch.optim.Adam(trained.values(), lr=rate, fused=fused, **ADAM)
        restore_moments(optimizer, trained, start)
        optimizer.param_groups[0]["initial_lr"] = rate
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule.factor, last_epoch=start.epoch - 1)
        watches, monitor = self._loop.execution.scheduler == "plateau", self._loop.best.monitor_name
        config = {"scheduler": scheduler, "interval": "epoch", "monitor": monitor, "reduce_on_plateau": watches}
        return {"optimizer": optimizer, "lr_scheduler": {**config, "name": "lr"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Bound the gradient of a step: its norm as both engines do, its elements as Lightning does."""
        if gradient_clip_val is not None and gradient_clip_algorithm == "norm":
            clip_norm(list(self._model.trained().values()), gradient_clip_val)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def lr_scheduler_step(self, scheduler: torch.optim.lr_scheduler.LRScheduler, metric: Tensor | None) -> None:
        """Move to the next epoch's rate; a schedule that watches a metric has met it in the loop."""
        scheduler.step()


def window_weight(number: int, size: int, n_train: int, batch_size: int, execution: ExecutionConfig) -> float:
    """Return the weight of batch `number` of an epoch, with `size` groups, in its accumulation window."""
    # Lightning divides every loss by k, also in a last window of fewer or smaller batches.
    k = execution.accumulate_grad_batches
    start = number // k * k * batch_size
    return size * k / min(k * batch_size, n_train - start)
