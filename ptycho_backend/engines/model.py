"""Abstract model of an engine, its weights by name, and the names of its losses."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.config import ExecutionConfig, ModelConfig, TrainingConfig
from ptycho_backend.data.batching import Batch
from ptycho_backend.errors import DataError
from ptycho_backend.network.training_domain import Conditions, training_domain_of
from ptycho_backend.physics.calibration import Calibration
from ptycho_backend.runtime.thread_map import ordered_map

Weights = Mapping[str, NDArray[np.float32]]
History = list[dict[str, float]]
Array = TypeVar("Array")
LOG_SCALE = "log_scale"  # weight of shape (): ln of the amplitude scale
PROBE = "probe"  # weight of shape (mode, y, x, 2): real and imaginary part


class Model(ABC):
    """
    Abstract model of an engine: configuration, calibration and weights.

    Weights are float32 arrays under canonical names: those of :func:`ptycho_backend.network.architectures.parameters`
    (kernels as height, width, in, out), ``"log_scale"`` and ``"probe"``.
    """

    backend: str
    config: ModelConfig
    training: TrainingConfig
    calibration: Calibration
    execution: ExecutionConfig
    training_domain: Conditions | None = None  # scan conditions of its training; None: those of its calibration

    def __repr__(self) -> str:
        sides = f"N={self.config.N}, gridsize={self.config.gridsize}"
        return f"<Model: {self.config.architecture}, {sides}, loss {self.loss_name}, engine {self.backend}>"

    @property
    def loss_name(self) -> str:
        """Name of the loss: "poisson", "mae", "realspace" or "supervised" (clause 3.1)."""
        return loss_name_of(self.training)

    @property
    def train_loss_name(self) -> str:
        """Name under which the mean training loss of an epoch is reported (clause 3.2)."""
        return loss_names_of(self.training)[0]

    @property
    def val_loss_name(self) -> str:
        """Name under which the validation loss of an epoch is reported (clause 3.2)."""
        return loss_names_of(self.training)[1]

    @abstractmethod
    def get_weights(self) -> dict[str, NDArray[np.float32]]:
        """Return all weights as copies (clause 2.1)."""

    @abstractmethod
    def set_weights(self, weights: Weights) -> None:
        """Set all weights; a missing or unknown name and a wrong shape are errors (clause 2.2)."""

    def with_calibration(self, calibration: Calibration, gridsize: int | None = None) -> Model:
        """
        Return a copy of the model for another calibration and group size (clause 2.4).

        The copy has the same network weights, and the scale and probe of the new calibration.
        """
        config = dataclasses.replace(self.config, N=calibration.N, gridsize=gridsize or self.config.gridsize)
        copy = self.untrained(dataclasses.replace(self.training, model=config), calibration)
        network = {name: value for name, value in self.get_weights().items() if name not in (LOG_SCALE, PROBE)}
        copy.set_weights({**copy.get_weights(), **network})
        copy.training_domain = self.training_domain or training_domain_of({}, self.calibration)
        return copy

    def untrained(self, training: TrainingConfig, calibration: Calibration) -> Model:
        """
        Return an untrained model of the same class, on the same device (clause 2.4).

        A class with another constructor overrides this method.
        """
        return type(self)(training, calibration, self.execution)  # type: ignore[call-arg]

    def trained_calibration(self) -> Calibration:
        """Return the calibration with the trained probe (clause 2.4)."""
        probe = complex_of(self.get_weights()[PROBE].astype(np.float32))
        return dataclasses.replace(self.calibration, probe=probe)

    @abstractmethod
    def predict_patches(self, batch: Batch, amplitude_constraint: bool = False) -> NDArray[np.complex64]:
        """
        Return object patches (group, channel, y, x) (clause 4.1).

        With `amplitude_constraint`, "unet" ends with one more amplitude constraint D.
        """

    def predictions(
        self, batches: Iterable[Batch], amplitude_constraint: bool = False
    ) -> Iterator[NDArray[np.complex64]]:
        """
        Yield the object patches of many batches, in order (clause 4.1).

        On a CPU, :attr:`workers` threads predict batches in parallel.
        """
        predict = partial(self.predict_patches, amplitude_constraint=amplitude_constraint)
        yield from ordered_map(predict, batches, self.workers)

    @property
    def workers(self) -> int:
        """Number of batches that :meth:`predictions` computes in parallel (clause 4.1)."""
        return 1

    @abstractmethod
    def expected_counts(self, batch: Batch, amplitude_constraint: bool = False) -> NDArray[np.float32]:
        """Return the photons per pixel (group, channel, y, x) of the predicted patches (clause 4.2)."""

    @abstractmethod
    def loss_and_gradients(self, batch: Batch) -> tuple[float, dict[str, NDArray[np.float32]]]:
        """Return the loss of a batch and its gradient with respect to every trainable weight (clause 4.3)."""


def loss_name_of(training: TrainingConfig) -> str:
    """Return the name of the loss that training minimises (clause 3.1)."""
    if training.model.model_type == "supervised":
        return "supervised"
    if training.nll_weight > 0:
        return "poisson"
    return "mae" if training.mae_weight > 0 else "realspace"


def loss_names_of(training: TrainingConfig) -> tuple[str, str]:
    """Return the metric names of the training and validation loss of an epoch (clause 3.2)."""
    name = loss_name_of(training)
    return f"{name}_train_loss", f"{name}_val_loss"


def trainable_names(model: Model, weights: Mapping[str, Any]) -> list[str]:
    """Return the names of the trained weights: the network, and scale and probe if their options are set."""
    training = model.training
    has_counts_loss = model.config.model_type == "pinn" and training.nll_weight + training.mae_weight > 0
    frozen = set()
    if not (training.intensity_scale_trainable and has_counts_loss):
        frozen.add(LOG_SCALE)
    if not training.probe_trainable:
        frozen.add(PROBE)
    return [name for name in weights if name not in frozen]


def required_labels(labels: Array | None) -> Array:
    """Return the labels of a batch, or raise an error if it has none."""
    if labels is None:
        raise DataError(
            "This loss compares patches with labels.",
            expected="batches with labels from a known object",
            received="a batch without labels",
            fix="use Samples(..., with_labels=True), or a loss without labels",
        )
    return labels


def parts_of(values: NDArray[Any]) -> NDArray[Any]:
    """Return the real and imaginary parts (..., 2) of complex values (...), in the same precision."""
    return np.stack([values.real, values.imag], axis=-1)


def complex_of(parts: NDArray[Any]) -> NDArray[Any]:
    """Return the complex values (...) of real and imaginary parts (..., 2), in the same precision."""
    return np.ascontiguousarray(parts).view(np.result_type(parts, np.complex64))[..., 0]
