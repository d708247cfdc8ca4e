"""Engine contract, for import by external engines."""

from ptycho_backend.engines.contract import Backend
from ptycho_backend.engines.model import (
    LOG_SCALE,
    PROBE,
    History,
    Model,
    Weights,
    loss_name_of,
    loss_names_of,
    trainable_names,
)
from ptycho_backend.training.options import FitOptions

__all__ = [
    "LOG_SCALE",
    "PROBE",
    "Backend",
    "FitOptions",
    "History",
    "Model",
    "Weights",
    "loss_name_of",
    "loss_names_of",
    "trainable_names",
]
