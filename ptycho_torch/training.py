"""Training with Lightning: automatic optimisation, so accumulation and float16 are Lightning's own."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from torch import Tensor

from ptycho_backend.config import ExecutionConfig
from ptycho_backend.core.course import Course
from ptycho_backend.core.monitoring import refuse_non_finite
from ptycho_backend.core.schedules import first_rate
from ptycho_backend.parallel import Place
from ptycho_torch.checkpoint import restore_moments
from ptycho_torch.model import TorchModel
from ptycho_torch.module import TensorBatch
from ptycho_torch.optimizer import ADAM, clip_norm
from ptycho_torch.parallel import Team


class PtychoLightning(pl.LightningModule):
    """
    The Lightning side of a model.

    Parameters
    ----------
    model : TorchModel
    course : Course
        Where training stands.
    team : Team, optional
        The processes that train together; None is one alone.
    """

    def __init__(self, model: TorchModel, course: Course, team: Team | None = None) -> None:
        super().__init__()
        self.team = team or Team(Place(), model.device)
        self.network = model.module
        self.train_loss_name, self.val_loss_name = model.train_loss_name, model.val_loss_name
        self._model, self._course = model, course
        self._loss = torch.compile(model.module.loss) if course.execution.compile else model.module.loss

    def training_step(self, batch: TensorBatch, batch_index: int) -> dict[str, Tensor | float]:
        """Return this process's part of a batch's loss, weighted so that a window's mean is that over its samples."""
        course, place, batch_size = self._course, self.team.place, self._model.training.batch_size
        loss, number = self._loss(batch), course.batch
        groups = min(batch_size, course.n_train - number * batch_size)
        counted = place.counted(groups)
        batch_loss = self.team.total(float(loss.detach()) * counted) / groups
        # Now, not when the batch is over: its step would spoil the weights.
        refuse_non_finite(batch_loss, course.epoch + 1, number + 1)
        if place.world > 1:
            # The processes wait for every weight's gradient, also of one that this loss does not depend on.
            loss = loss + 0.0 * sum(weight.sum() for weight in self._model.trained().values())
        # Gradients become their mean over the processes.
        weight = window_weight(number, counted * place.world, course.n_train, batch_size, course.execution)
        return {"loss": loss * weight, "batch_loss": batch_loss, "groups": groups}

    def validation_step(self, batch: TensorBatch, batch_index: int) -> None:
        """Log the loss of a validation batch."""
        # Equal in every process but for rounding, which must not lead them to different decisions.
        together, loss = self.team.place.world > 1, self.network.loss(batch)
        self.log(self.val_loss_name, loss, on_epoch=True, batch_size=len(batch.x), sync_dist=together)

    def configure_optimizers(self):
        """Return Adam with the shared constants and the shared learning rates by epoch."""
        trained, rate = self._model.trained(), first_rate(self._model.training)
        start, schedule = self._course.start, self._course.schedule
        # A fused optimiser would undo the scaling of float16 losses by itself, past Lightning's clipping.
        fused = self._model.module.convolution_dtype != torch.float16
        optimizer = torch.optim.Adam(trained.values(), lr=rate, fused=fused, **ADAM)
        restore_moments(optimizer, trained, start)
        optimizer.param_groups[0]["initial_lr"] = rate
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule.factor, last_epoch=start.epoch - 1)
        watches, monitor = self._course.execution.scheduler == "plateau", self._course.best.monitor_name
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
        """Move to the next epoch's rate; a schedule that watches a metric has met it in the course."""
        scheduler.step()


def window_weight(number: int, size: int, n_train: int, batch_size: int, execution: ExecutionConfig) -> float:
    """Return the weight of batch `number` of an epoch, with `size` groups, in its accumulation window."""
    # Lightning divides every loss by k, also in a last window of fewer or smaller batches.
    k = execution.accumulate_grad_batches
    start = number // k * k * batch_size
    return size * k / min(k * batch_size, n_train - start)
