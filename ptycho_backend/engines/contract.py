"""
What an engine owes: the same questions for every engine, so that tests can ask them.

NumPy goes in and NumPy comes out; layouts, devices and tensors stay inside the engine. Numbered clauses stand in
``specs/backend_contract.md``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from ptycho_backend.config import ExecutionConfig, TrainingConfig
from ptycho_backend.data.batching import Samples
from ptycho_backend.engines.model import History, Model
from ptycho_backend.engines.operators import Operators
from ptycho_backend.events import OnEvent
from ptycho_backend.physics.calibration import Calibration
from ptycho_backend.training.options import FitOptions

__all__ = ["Backend", "Model"]


class Backend(ABC):
    """An engine."""

    name: str

    @abstractmethod
    def devices(self) -> tuple[str, ...]:
        """Return the devices this engine can use here: "cpu", "cuda:0", … (clause 1.1)."""

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
            Its `model` says what is built, its loss weights what `loss_and_gradients` minimises.
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

        With `options` it starts where an earlier training stopped, keeps checkpoints, and stops when asked to,
        after its step, with :class:`~ptycho_backend.errors.TrainingStopped`.

        Each dict holds ``epoch`` (from 1), ``lr``, the model's `train_loss_name` and, with validation data,
        its `val_loss_name`. With `restore_best` the model ends with the weights of the best epoch.
        """

    @abstractmethod
    def operators(self, device: str = "auto") -> Operators:
        """Return the engine's physics, one function at a time, on a device (clause 8.1)."""
