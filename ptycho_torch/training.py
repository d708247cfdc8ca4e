"""Training with Lightning: automatic optimisation, so accumulation and clipping are Lightning's own."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from torch import Tensor

from ptycho_backend.config import ExecutionConfig
from ptycho_backend.core.control import Control
from ptycho_backend.core.monitoring import refuse_non_finite
from ptycho_backend.core.schedules import RateSchedule
from ptycho_backend.parallel import Place
from ptycho_torch.checkpoint import restore_moments
from ptycho_torch.model import TorchModel
from ptycho_torch.module import TensorBatch
from ptycho_torch.parallel import Team

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
    team : Team, optional
        The processes that train together; None is one alone.
    """

    def __init__(
        self,
        model: TorchModel,
        execution: ExecutionConfig,
        n_train: int,
        monitor: str,
        control: Control | None = None,
        team: Team | None = None,
    ) -> None:
        super().__init__()
        self.team = team or Team(Place(), model.device)
        self.network = model.module
        self.train_loss_name, self.val_loss_name = model.train_loss_name, model.val_loss_name
        self._model, self._execution, self._n_train, self._monitor = model, execution, n_train, monitor
        self._loss = torch.compile(model.module.loss) if execution.compile else model.module.loss
        self.resumed = (control or Control()).resume
        schedule_state = self.resumed.schedule if self.resumed else None
        self.schedule = RateSchedule(model.training.nepochs, execution, schedule_state)

    def training_step(self, batch: TensorBatch, batch_index: int) -> dict[str, Tensor | float]:
        """Return this process's part of a batch's loss, weighted so that a window's mean is that over its samples."""
        loss, number, place = self._loss(batch), self.first_batch + batch_index, self.team.place
        batch_size = self._model.training.batch_size
        groups = min(batch_size, self._n_train - number * batch_size)
        counted = place.counted(groups)
        batch_loss = self.team.total(float(loss.detach()) * counted) / groups
        refuse_non_finite(batch_loss, self.current_epoch + 1, number + 1)
        if place.world > 1:
            # The processes wait for every weight's gradient, also of one that this loss does not depend on.
            loss = loss + 0.0 * sum(weight.sum() for weight in self._model.trained().values())
        # Gradients become their mean over the processes.
        weight = window_weight(number, counted * place.world, self._n_train, batch_size, self._execution)
        return {"loss": loss * weight, "batch_loss": batch_loss, "groups": groups}

    def validation_step(self, batch: TensorBatch, batch_index: int) -> None:
        """Log the loss of a validation batch."""
        # Equal in every process but for rounding, which must not lead them to different decisions.
        together, loss = self.team.place.world > 1, self.network.loss(batch)
        self.log(self.val_loss_name, loss, on_epoch=True, batch_size=len(batch.x), sync_dist=together)

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
        return {"optimizer": optimizer, "lr_scheduler": {**config, "name": "lr"}}

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
