"""
Engine contract: the abstract class that every engine implements.

Arguments and results are NumPy arrays; layouts, devices and tensors stay inside the engine. The numbered clauses stand
in ``specs/backend_contract.md``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

from ptycho_backend.config import ExecutionConfig, TrainingConfig
from ptycho_backend.data.batching import Samples
from ptycho_backend.engines.model import History, Model
from ptycho_backend.engines.numpy.solver import NumpyKernels
from ptycho_backend.engines.operators import Operators
from ptycho_backend.engines.solver_contract import SolverKernels
from ptycho_backend.errors import DeviceError, PtychoError
from ptycho_backend.events import OnEvent
from ptycho_backend.physics.calibration import Calibration
from ptycho_backend.training.options import FitOptions
from ptycho_backend.training.parallel import ProcessGroup, ProcessRank

__all__ = ["Backend", "Model"]

EngineModel = TypeVar("EngineModel", bound=Model)


class Backend(ABC):
    """Abstract engine: devices, models, training and physics operators of one framework."""

    name: str

    @abstractmethod
    def devices(self) -> tuple[str, ...]:
        """Return the devices of this machine that the engine can use: "cpu", "cuda:0", … (clause 1.1)."""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Return the versions of the framework's packages, for provenance (clause 1.2)."""

    @abstractmethod
    def create_model(
        self, training: TrainingConfig, calibration: Calibration, execution: ExecutionConfig | None = None
    ) -> Model:
        """
        Build an untrained model; initial weights depend on ``training.seed`` alone (clause 1.3).

        Parameters
        ----------
        training : TrainingConfig
            Architecture (`model`), and the loss weights for `loss_and_gradients`.
        calibration : Calibration
        execution : ExecutionConfig, optional
            Device and precision.
        """

    @abstractmethod
    def fit(
        self,
        model: Model,
        train: Samples,
        validation: Samples | None,
        execution: ExecutionConfig,
        on_event: OnEvent,
        options: FitOptions | None = None,
    ) -> History:
        """
        Train a model in place and return one dict per epoch (clause 5).

        Each dict holds ``epoch`` (from 1), ``lr``, the model's `train_loss_name` and, with validation data,
        its `val_loss_name`. With `restore_best` the model ends with the weights of the best epoch.

        `options` hold a saved state to resume from, the checkpoint writer and the stop request.

        Raises
        ------
        TrainingStopped
            After the optimiser step that follows a stop request.
        """

    def solver_kernels(self, device: str = "auto") -> SolverKernels:
        """
        Return the engine's solver kernels on a device (clause 10).

        An engine without kernels of its own gets the NumPy kernels, which compute on the processor.
        """
        return NumpyKernels()

    def process_group(self, process: ProcessRank) -> ProcessGroup:
        """
        Return the group of processes that reconstruct together (clause 10.8).

        Raises
        ------
        PtychoError
            If the engine exchanges no arrays between processes.
        """
        raise PtychoError(
            f"The engine '{self.name}' exchanges no arrays between processes.",
            expected="the engine 'pytorch', which exchanges them for every engine",
            received=f"process {process.rank} of {process.world}",
            fix="start one process, or take the group of get_backend('pytorch')",
        )

    @abstractmethod
    def operators(self, device: str = "auto") -> Operators:
        """Return the engine's physics operators on a device (clause 8.1)."""


def checked_model(
    model: Model, model_class: type[EngineModel], execution: ExecutionConfig, resolve_device: Callable[[str], Any]
) -> EngineModel:
    """
    Return a model as an instance of its engine's class, on the device of the execution options (clause 5.6).

    Raises
    ------
    PtychoError
        If another engine created the model.
    DeviceError
        If the model is on another device.
    """
    if not isinstance(model, model_class):
        raise PtychoError(
            "An engine trains its own models.",
            expected=f"a {model_class.__name__}",
            received=f"a {type(model).__name__}",
            fix="create the model with this engine and copy the weights with set_weights()",
        )
    device = resolve_device(model.execution.device)
    if execution.device != "auto" and resolve_device(execution.device) != device:
        raise DeviceError(
            "A model is trained on the device it was created on.",
            expected=f"device='auto' or '{device}'",
            received=f"device={execution.device!r}",
            fix="create the model with the same ExecutionConfig",
        )
    return model
