"""The PyTorch engine's training: Trainer and callbacks, built from the execution knobs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor

from ptycho_backend.config import ExecutionConfig
from ptycho_backend.contract import History
from ptycho_backend.core.allocation import freed_memory_kept
from ptycho_backend.core.batching import Samples
from ptycho_backend.core.control import Control
from ptycho_backend.core.course import Course
from ptycho_backend.core.quiet import quiet
from ptycho_backend.events import OnEvent
from ptycho_backend.parallel import place_of
from ptycho_torch.callbacks import Reporter
from ptycho_torch.checkpoint import PortableCheckpointIO, checkpoint_callbacks
from ptycho_torch.data import PtychoDataModule
from ptycho_torch.loggers import PortableLogger
from ptycho_torch.model import TorchModel
from ptycho_torch.parallel import Team, strategy_of
from ptycho_torch.training import PtychoLightning


def _train_with_lightning(
    model: TorchModel,
    train: Samples,
    validation: Samples | None,
    execution: ExecutionConfig,
    on_event: OnEvent,
    control: Control | None = None,
) -> History:
    """Train a model in place (contract clause 5)."""
    course = Course(model, execution, on_event, control or Control(), len(train), validation is not None)
    if not course.over:
        place = place_of(execution)
        module = PtychoLightning(model, course, Team(place, model.device))
        data = PtychoDataModule(course, train, validation, place)
        with quiet_lightning(), freed_memory_kept():
            trainer = build_trainer(model, Reporter(model, course), validation is not None)
            start_at(trainer, course.epoch)
            trainer.fit(module, datamodule=data)
        model.module.to(model.device)
    course.finish()
    return course.history


def build_trainer(model: TorchModel, reporter: Reporter, has_validation: bool) -> pl.Trainer:
    """Build Lightning's Trainer from the execution knobs."""
    execution, control = reporter.course.execution, reporter.course.control
    place, on_gpu, metrics = place_of(execution), model.device.type == "cuda", control.logger
    return pl.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=[model.device.index] if on_gpu else 1,
        num_nodes=place.world,
        strategy=strategy_of(place),
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
        enable_checkpointing=control.checkpoints is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def build_callbacks(reporter: Reporter) -> list[pl.Callback]:
    """Return the reporter, the rate's monitor, early stopping and checkpoints, and the caller's own after them."""
    best, control = reporter.course.best, reporter.course.control
    callbacks: list[pl.Callback] = [reporter]
    if control.logger is not None:
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
    if control.checkpoints is not None:
        kept = reporter.course.start.kept
        reporter.checkpoint_callbacks = checkpoint_callbacks(control.checkpoints, best.monitor_name, best.mode, kept)
        callbacks += reporter.checkpoint_callbacks
    return [*callbacks, *control.callbacks]


def start_at(trainer: pl.Trainer, epoch: int) -> None:
    """Let a trainer begin with an epoch, counted from 0."""
    progress = trainer.fit_loop.epoch_progress.current
    progress.ready = progress.started = progress.processed = progress.completed = epoch


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's hints about workers and tips out of the user's log, for the time of a fit."""
    with quiet("lightning.pytorch", "lightning.fabric"), warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",
            ".*smaller than the logging interval.*",
            ".*sync_dist=True.*",  # what is logged is the same in every process
            ".*exists and is not empty.*",  # the checkpoints of the training that is resumed
        ):
            warnings.filterwarnings("ignore", message=message)
        yield
