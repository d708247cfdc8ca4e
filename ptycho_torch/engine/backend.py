"""PyTorch engine of the contract."""

from __future__ import annotations

import lightning
import lightning.pytorch as pl
import torch

from ptycho_backend.config import ExecutionConfig, TrainingConfig
from ptycho_backend.data.batching import Samples
from ptycho_backend.engines.contract import Backend, checked_model
from ptycho_backend.engines.model import History, Model
from ptycho_backend.events import OnEvent
from ptycho_backend.physics.calibration import Calibration
from ptycho_backend.training.options import FitOptions
from ptycho_backend.training.parallel import ProcessRank, check_processes, must_launch
from ptycho_backend.training.processes import fit_in_processes
from ptycho_torch.engine.callbacks import replayed
from ptycho_torch.engine.device import devices, resolve_device, unchanged_random_state
from ptycho_torch.engine.model import TorchModel
from ptycho_torch.engine.operators import TorchOperators
from ptycho_torch.engine.process_group import TorchProcessGroup, joined_group
from ptycho_torch.engine.solver import TorchKernels
from ptycho_torch.engine.training import fit


class TorchBackend(Backend):
    """Engine on PyTorch and Lightning."""

    name = "pytorch"

    def devices(self) -> tuple[str, ...]:
        """Return the devices of torch."""
        return devices()

    def versions(self) -> dict[str, str]:
        """Return the versions of torch and Lightning."""
        return {"torch": torch.__version__, "lightning": lightning.__version__}

    def create_model(
        self, training: TrainingConfig, calibration: Calibration, execution: ExecutionConfig | None = None
    ) -> TorchModel:
        """Build an untrained model."""
        with unchanged_random_state():
            return TorchModel(training, calibration, execution or ExecutionConfig())

    def fit(
        self,
        model: Model,
        train: Samples,
        validation: Samples | None,
        execution: ExecutionConfig,
        on_event: OnEvent,
        options: FitOptions | None = None,
    ) -> History:
        """Train a model in place and return one dict per epoch."""
        model, options = checked_model(model, TorchModel, execution, resolve_device), options or FitOptions()
        options.check_callbacks(pl.Callback)
        check_processes(execution, self.name, self.devices())
        if must_launch(execution):
            listener = replayed(options.callbacks, model, on_event)
            return fit_in_processes(type(self), model, (train, validation), execution, listener, options)
        with unchanged_random_state():
            return fit(model, train, validation, execution, on_event, options)

    def operators(self, device: str = "auto") -> TorchOperators:
        """Return the physics operators on a device."""
        return TorchOperators(device)

    def solver_kernels(self, device: str = "auto") -> TorchKernels:
        """Return the solver kernels on a device."""
        return TorchKernels(device)

    def process_group(self, process: ProcessRank) -> TorchProcessGroup:
        """Return the group of torch.distributed."""
        return joined_group(process)
