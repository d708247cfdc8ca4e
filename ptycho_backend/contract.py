"""The engine contract, under the name that external engines import."""

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

__all__ = [
    "LOG_SCALE",
    "PROBE",
    "Backend",
    "History",
    "Model",
    "Weights",
    "loss_name_of",
    "loss_names_of",
    "trainable_names",
]
