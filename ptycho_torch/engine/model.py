"""Model of the engine contract on PyTorch, with NumPy arguments and results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ptycho_backend.config import ExecutionConfig, TrainingConfig
from ptycho_backend.data.batching import Batch
from ptycho_backend.engines.model import LOG_SCALE, PROBE, Model, Weights, trainable_names
from ptycho_backend.network.weights import check_weights, starting_weights
from ptycho_backend.physics.calibration import Calibration
from ptycho_backend.runtime.thread_map import ordered_map
from ptycho_torch.engine.device import apply_process_settings, convolution_dtype, prepare_device, resolve_device
from ptycho_torch.engine.module import PtychoModule, to_numpy, to_tensors
from ptycho_torch.engine.network import from_canonical, to_canonical


class TorchModel(Model):
    """
    Model on a torch device.

    Parameters
    ----------
    training : TrainingConfig
    calibration : Calibration
    execution : ExecutionConfig
        Device, precision and threads.
    """

    backend = "pytorch"

    def __init__(self, training: TrainingConfig, calibration: Calibration, execution: ExecutionConfig) -> None:
        apply_process_settings(execution)
        self.training, self.config, self.calibration = training, training.model, calibration
        self.execution = execution
        self.device = resolve_device(execution.device)
        prepare_device(self.device)
        self.module = PtychoModule(training, calibration, convolution_dtype(execution, self.device))
        self.set_weights(starting_weights(training, calibration))
        self.module.to(self.device)
        trained = set(trainable_names(self, self.parameters()))
        for name, parameter in self.parameters().items():
            parameter.requires_grad_(name in trained)

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """Return torch parameters by canonical weight name."""
        parameters: dict[str, torch.nn.Parameter] = {}
        for network in self.module.networks.values():
            parameters |= network.by_name
        return parameters | {LOG_SCALE: self.module.log_scale, PROBE: self.module.probe_parts}

    def trained(self) -> dict[str, torch.nn.Parameter]:
        """Return the trained parameters by canonical name."""
        return {name: parameter for name, parameter in self.parameters().items() if parameter.requires_grad}

    def get_weights(self) -> dict[str, NDArray[np.float32]]:
        """Return all weights as copies in canonical layout."""
        return weights_of(self.parameters())

    @torch.no_grad()
    def set_weights(self, weights: Weights) -> None:
        """Set all weights from canonical arrays."""
        check_weights(weights, {name: value.shape for name, value in self.get_weights().items()})
        self.module.log_scale.copy_(torch.as_tensor(weights[LOG_SCALE]))
        self.module.probe_parts.copy_(torch.as_tensor(np.asarray(weights[PROBE])))
        for network in self.module.networks.values():
            network.load_canonical(weights)

    @torch.inference_mode()
    def predict_patches(self, batch: Batch, amplitude_constraint: bool = False) -> NDArray[np.complex64]:
        """Return object patches (group, channel, y, x)."""
        return to_numpy(self.module(to_tensors(batch, self.device), amplitude_constraint))

    @property
    def workers(self) -> int:
        """Number of batches in parallel: one per CPU thread, one on a GPU."""
        return torch.get_num_threads() if self.device.type == "cpu" else 1

    def predictions(
        self, batches: Iterable[Batch], amplitude_constraint: bool = False
    ) -> Iterator[NDArray[np.complex64]]:
        """Yield the object patches of many batches; one thread computes each batch."""
        threads = torch.get_num_threads()
        predict = partial(self.predict_patches, amplitude_constraint=amplitude_constraint)
        try:
            yield from ordered_map(predict, batches, self.workers, partial(torch.set_num_threads, 1))
        finally:
            torch.set_num_threads(threads)  # a part of this setting is global for the process

    @torch.inference_mode()
    def expected_counts(self, batch: Batch, amplitude_constraint: bool = False) -> NDArray[np.float32]:
        """Return predicted photons per pixel (group, channel, y, x)."""
        patches = self.module(to_tensors(batch, self.device), amplitude_constraint)
        return to_numpy(self.module.expected_counts(patches))

    def loss_and_gradients(self, batch: Batch) -> tuple[float, dict[str, NDArray[np.float32]]]:
        """Return the loss of a batch and its gradient with respect to every trainable weight."""
        trained = self.trained()
        loss = self.module.loss(to_tensors(batch, self.device))
        gradients = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
        return float(loss.detach()), {
            name: to_numpy(to_canonical_weight(name, torch.zeros_like(p) if g is None else g))
            for (name, p), g in zip(trained.items(), gradients, strict=True)
        }


def to_canonical_weight(name: str, value: Tensor) -> Tensor:
    """Return a weight in canonical layout; scale and probe have the same layout in torch."""
    return value if name in (LOG_SCALE, PROBE) else to_canonical(value)


def from_canonical_weight(name: str, value: Tensor) -> Tensor:
    """Return a canonical weight in torch's layout."""
    return value if name in (LOG_SCALE, PROBE) else from_canonical(value)


def weights_of(parameters: Mapping[str, Tensor]) -> dict[str, NDArray[np.float32]]:
    """Return copies of parameters as canonical arrays by canonical name."""
    return {name: to_numpy(to_canonical_weight(name, value.detach())) for name, value in parameters.items()}
