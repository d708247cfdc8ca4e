"""NumPy engine of the contract: solver kernels and reference operators; it has no networks."""

from __future__ import annotations

import numpy as np
import scipy

from ptycho_backend.config import ExecutionConfig, TrainingConfig
from ptycho_backend.data.batching import Samples
from ptycho_backend.engines.contract import Backend
from ptycho_backend.engines.model import History, Model
from ptycho_backend.engines.operators import ReferenceOperators
from ptycho_backend.errors import BackendNotInstalledError
from ptycho_backend.events import OnEvent
from ptycho_backend.physics.calibration import Calibration
from ptycho_backend.runtime.devices import choose_device
from ptycho_backend.training.options import FitOptions


class NumpyBackend(Backend):
    """Engine on NumPy and SciPy: it solves on the processor, and needs no framework."""

    name = "numpy"

    def devices(self) -> tuple[str, ...]:
        """Return the processor."""
        return ("cpu",)

    def versions(self) -> dict[str, str]:
        """Return the versions of NumPy and SciPy."""
        return {"numpy": np.__version__, "scipy": scipy.__version__}

    def create_model(
        self, training: TrainingConfig, calibration: Calibration, execution: ExecutionConfig | None = None
    ) -> Model:
        """Raise an error: this engine has no networks."""
        raise self.no_networks()

    def fit(
        self,
        model: Model,
        train: Samples,
        validation: Samples | None,
        execution: ExecutionConfig,
        on_event: OnEvent,
        options: FitOptions | None = None,
    ) -> History:
        """Raise an error: this engine has no networks."""
        raise self.no_networks()

    def operators(self, device: str = "auto") -> ReferenceOperators:
        """Return the float64 functions of the physics, with finite differences for gradients."""
        choose_device(device, self.devices(), self.name)
        return ReferenceOperators()

    @staticmethod
    def no_networks() -> BackendNotInstalledError:
        """Return the error of a network on this engine; it names the extra to install."""
        return BackendNotInstalledError(
            "The engine 'numpy' reconstructs without a network; it neither trains nor predicts.",
            expected="backend='pytorch' or 'tensorflow'",
            received="backend='numpy'",
            fix="pip install 'ptychopinn[torch]' or 'ptychopinn[tensorflow]', and leave the option out",
        )
