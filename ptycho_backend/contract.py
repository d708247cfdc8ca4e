"""
What an engine owes: the same questions for every engine, so that tests can ask them.

NumPy goes in and NumPy comes out; layouts, devices and tensors stay inside the engine. Numbered clauses stand in
``specs/backend_contract.md``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.config import ExecutionConfig, ModelConfig, TrainingConfig
from ptycho_backend.core.batching import Batch, Samples
from ptycho_backend.core.calibration import Calibration
from ptycho_backend.core.side_by_side import side_by_side
from ptycho_backend.events import OnEvent
from ptycho_backend.operators import Operators

if TYPE_CHECKING:
    from ptycho_backend.core.conditions import Conditions
    from ptycho_backend.core.control import Control

Weights = Mapping[str, NDArray[np.float32]]
History = list[dict[str, float]]

LOG_SCALE = "log_scale"  # weight of shape (): ln of the amplitude scale
PROBE = "probe"  # weight of shape (mode, y, x, 2): real and imaginary part


class Model(ABC):
    """
    A model on an engine: a description, a calibration and weights.

    Weights are float32 arrays under canonical names: those of :func:`ptycho_backend.network.parameters`
    (kernels as height, width, in, out), ``"log_scale"`` and ``"probe"``.
    """

    backend: str
    config: ModelConfig
    training: TrainingConfig
    calibration: Calibration
    execution: ExecutionConfig
    known: Conditions | None = None  # what its training has prepared it for; None: scans like its calibration's

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
        """Set all weights; a missing, unknown or misshapen one is an error (clause 2.2)."""

    @abstractmethod
    def predict_patches(self, batch: Batch, data_consistency: bool = False) -> NDArray[np.complex64]:
        """
        Return object patches (group, channel, y, x) (clause 4.1).

        With `data_consistency`, "unet" ends with one more step D.
        """

    def predictions(self, batches: Iterable[Batch], data_consistency: bool = False) -> Iterator[NDArray[np.complex64]]:
        """
        Yield the object patches of many batches, in order (clause 4.1).

        On a processor, :attr:`workers` batches are worked on at a time.
        """
        predict = partial(self.predict_patches, data_consistency=data_consistency)
        yield from side_by_side(predict, batches, self.workers)

    @property
    def workers(self) -> int:
        """How many batches :meth:`predictions` works on at a time (clause 4.1)."""
        return 1

    @abstractmethod
    def expected_counts(self, batch: Batch, data_consistency: bool = False) -> NDArray[np.float32]:
        """Return photons per pixel (group, channel, y, x) that the predicted patches would give (clause 4.2)."""

    @abstractmethod
    def loss_and_gradients(self, batch: Batch) -> tuple[float, dict[str, NDArray[np.float32]]]:
        """Return the loss of a batch and its gradient by every trainable weight (clause 4.3)."""


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
        control: Control | None = None,
    ) -> History:
        """
        Train a model in place and return one dict per epoch (clause 5).

        With `control` it starts where an earlier training stopped, keeps checkpoints, and stops when asked to,
        after its step, with :class:`~ptycho_backend.errors.TrainingStopped`.

        Each dict holds ``epoch`` (from 1), ``lr``, the model's `train_loss_name` and, with validation data,
        its `val_loss_name`. With `restore_best` the model ends with the weights of the best epoch.
        """

    @abstractmethod
    def operators(self, device: str = "auto") -> Operators:
        """Return the engine's physics, one function at a time, on a device (clause 8.1)."""


def loss_name_of(training: TrainingConfig) -> str:
    """Return the name of the loss that a training minimises (clause 3.1)."""
    if training.model.model_type == "supervised":
        return "supervised"
    if training.nll_weight > 0:
        return "poisson"
    return "mae" if training.mae_weight > 0 else "realspace"


def loss_names_of(training: TrainingConfig) -> tuple[str, str]:
    """Return the names under which training and validation loss of an epoch are reported (clause 3.2)."""
    name = loss_name_of(training)
    return f"{name}_train_loss", f"{name}_val_loss"


def trainable_names(model: Model, weights: Mapping[str, Any]) -> list[str]:
    """Return the weights that training changes: the network's, and scale and probe where asked for."""
    training = model.training
    counts_matter = model.config.model_type == "pinn" and training.nll_weight + training.mae_weight > 0
    frozen = set()
    if not (training.intensity_scale_trainable and counts_matter):
        frozen.add(LOG_SCALE)
    if not training.probe_trainable:
        frozen.add(PROBE)
    return [name for name in weights if name not in frozen]
