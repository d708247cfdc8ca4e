"""TensorFlow engine of the contract; importing this module does not import TensorFlow."""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING

from ptycho_backend.config import ExecutionConfig, TrainingConfig
from ptycho_backend.data.batching import Samples
from ptycho_backend.engines.contract import Backend, checked_model
from ptycho_backend.engines.model import History, Model
from ptycho_backend.errors import BackendSetupError
from ptycho_backend.events import OnEvent
from ptycho_backend.physics.calibration import Calibration
from ptycho_backend.training.options import FitOptions
from ptycho_backend.training.parallel import check_processes, must_launch
from ptycho_backend.training.processes import fit_in_processes

if TYPE_CHECKING:
    from ptycho.engine.model import TensorFlowModel
    from ptycho.engine.operators import TensorFlowOperators
    from ptycho.engine.solver import TensorFlowKernels
    from ptycho.engine.traced_functions import TracedFunctions


class TensorFlowBackend(Backend):
    """Engine on TensorFlow and Keras."""

    name = "tensorflow"

    def __init__(self) -> None:
        _require_keras_on_tensorflow()

    def devices(self) -> tuple[str, ...]:
        """Return the devices of TensorFlow."""
        from ptycho.engine.device import devices

        return devices()

    def versions(self) -> dict[str, str]:
        """Return the versions of TensorFlow and Keras."""
        import keras
        import tensorflow as tf

        return {"tensorflow": tf.__version__, "keras": keras.__version__}

    def create_model(
        self, training: TrainingConfig, calibration: Calibration, execution: ExecutionConfig | None = None
    ) -> TensorFlowModel:
        """Build an untrained model."""
        from ptycho.engine.model import TensorFlowModel

        return TensorFlowModel(training, calibration, execution or ExecutionConfig(), self._traced_functions)

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
        import keras

        from ptycho.engine.callbacks import replayed
        from ptycho.engine.device import resolve_device
        from ptycho.engine.model import TensorFlowModel
        from ptycho.engine.training import fit

        model, options = checked_model(model, TensorFlowModel, execution, resolve_device), options or FitOptions()
        options.check_callbacks(keras.callbacks.Callback)
        check_processes(execution, self.name, self.devices())
        if must_launch(execution):
            listener = replayed(options.callbacks, on_event)
            return fit_in_processes(type(self), model, (train, validation), execution, listener, options)
        return fit(model, train, validation, execution, on_event, options)

    @functools.cached_property
    def _traced_functions(self) -> TracedFunctions:
        from ptycho.engine.traced_functions import TracedFunctions

        return TracedFunctions()

    def solver_kernels(self, device: str = "auto") -> TensorFlowKernels:
        """Return the solver kernels on a device."""
        from ptycho.engine.solver import TensorFlowKernels

        return TensorFlowKernels(device)

    def operators(self, device: str = "auto") -> TensorFlowOperators:
        """Return the physics operators on a device."""
        from ptycho.engine.operators import TensorFlowOperators

        return TensorFlowOperators(device)


def prepare_start() -> None:
    """
    Set environment variables that TensorFlow reads once, during its import; existing values remain.

    TensorFlow writes its start-up messages to stderr, not to a logger. By default it uses oneDNN only on CPUs with
    AVX-512; oneDNN's convolutions are twice as fast on others too.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def _require_keras_on_tensorflow() -> None:
    """Import Keras and TensorFlow; raise an error if Keras uses another framework."""
    configured = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if "keras" not in sys.modules and configured != "tensorflow":
        raise _wrong_backend(configured)  # the import would load the other framework
    prepare_start()
    import keras

    if keras.backend.backend() != "tensorflow":
        raise _wrong_backend(keras.backend.backend())


def _wrong_backend(found: str) -> BackendSetupError:
    return BackendSetupError(
        "The TensorFlow engine needs Keras with the TensorFlow backend.",
        expected="keras.backend.backend() == 'tensorflow'",
        received=f"{found!r}, from KERAS_BACKEND={os.environ.get('KERAS_BACKEND')!r} or ~/.keras/keras.json",
        fix="set KERAS_BACKEND=tensorflow before Keras is first imported in this process",
    )
