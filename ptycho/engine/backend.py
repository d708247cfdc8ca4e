"""The TensorFlow engine behind the contract; importing this module imports no framework."""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING

from ptycho_backend.config import ExecutionConfig, TrainingConfig
from ptycho_backend.data.batching import Samples
from ptycho_backend.engines.contract import Backend
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
    from ptycho.engine.traced_functions import TracedFunctions


class TensorFlowBackend(Backend):
    """TensorFlow and Keras."""

    name = "tensorflow"

    def __init__(self) -> None:
        _require_keras_on_tensorflow()

    def devices(self) -> tuple[str, ...]:
        """Return the devices TensorFlow can use here."""
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

        return TensorFlowModel(training, calibration, execution or ExecutionConfig(), self._graphs)

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
        from ptycho.engine.training import fit

        options = options or FitOptions()
        options.check_callbacks(keras.callbacks.Callback)
        check_processes(execution, self.name, self.devices())
        if must_launch(execution):
            listener = replayed(options.callbacks, on_event)
            return fit_in_processes(model, (train, validation), execution, listener, options)

        return fit(model, train, validation, execution, on_event, options)

    @functools.cached_property
    def _graphs(self) -> TracedFunctions:
        from ptycho.engine.traced_functions import TracedFunctions

        return TracedFunctions()

    def operators(self, device: str = "auto") -> TensorFlowOperators:
        """Return the physics, one function at a time, on a device."""
        from ptycho.engine.operators import TensorFlowOperators

        return TensorFlowOperators(device)


def prepare_start() -> None:
    """
    Set, where the environment does not, what TensorFlow reads once, when it is imported.

    Its start-up notes go to stderr, past any logging; and by itself it leaves oneDNN's convolutions, twice as fast, to
    processors with AVX-512.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def _require_keras_on_tensorflow() -> None:
    """Import Keras and TensorFlow; refuse a Keras that stands on another framework."""
    wanted = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if "keras" not in sys.modules and wanted != "tensorflow":
        raise _wrong_backend(wanted)  # before the import, which would load the other framework
    prepare_start()
    import keras

    if keras.backend.backend() != "tensorflow":
        raise _wrong_backend(keras.backend.backend())


def _wrong_backend(found: str) -> BackendSetupError:
    return BackendSetupError(
        "The TensorFlow engine needs Keras on top of TensorFlow.",
        expected="keras.backend.backend() == 'tensorflow'",
        received=f"{found!r}, chosen by KERAS_BACKEND={os.environ.get('KERAS_BACKEND')!r} or ~/.keras/keras.json",
        fix="set KERAS_BACKEND=tensorflow before Keras is first imported in this process",
    )
