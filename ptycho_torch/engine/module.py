"""Trainable model as a torch module: patches, counts and loss from normalised amplitude."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ptycho_backend.config import TrainingConfig
from ptycho_backend.data.batching import Batch
from ptycho_backend.engines.model import parts_of
from ptycho_backend.network.architectures import describe, merges_groups
from ptycho_backend.network.objective import loss_terms, unrolled_estimates
from ptycho_backend.network.physics_constants import PhysicsConstants
from ptycho_backend.physics.calibration import Calibration
from ptycho_torch.engine import physics
from ptycho_torch.engine.device import autocast
from ptycho_torch.engine.network import Interpreter


class TensorBatch(NamedTuple):
    """A :class:`~ptycho_backend.data.batching.Batch` as tensors; the side of the canvas is an int."""

    x: Tensor
    offsets_px: Tensor
    mask: Tensor
    labels: Tensor | None = None
    canvas_px: int = 0


def to_tensors(batch: Batch, device: torch.device | str = "cpu") -> TensorBatch:
    """Copy a batch to a device."""
    arrays = (batch.x, batch.offsets_px, batch.mask)
    x, offsets, mask = (torch.from_numpy(array).to(device, non_blocking=True) for array in arrays)
    labels = None if batch.labels is None else torch.from_numpy(batch.labels).to(device)
    return TensorBatch(x, offsets, mask, labels, batch.canvas_px)


def to_numpy(value: Tensor) -> NDArray[Any]:
    """Return a contiguous copy of a tensor."""
    return np.array(value.resolve_conj().cpu().numpy(), order="C")


class PtychoModule(nn.Module):
    """
    Networks, parameters and physics constants of a model.

    Parameters
    ----------
    training : TrainingConfig
        Architecture (`model`) and loss weights.
    calibration : Calibration
    convolution_dtype : torch.dtype
        Dtype of the networks, float32, bfloat16 or float16; the physics is float32.
    """

    def __init__(
        self, training: TrainingConfig, calibration: Calibration, convolution_dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.training_config = training  # torch modules have a flag `training` of their own
        self.config = training.model
        self.convolution_dtype = convolution_dtype
        self.networks = nn.ModuleDict({name: Interpreter(network) for name, network in describe(self.config).items()})
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.probe_parts = nn.Parameter(torch.empty(0))
        for name in ("probe_support", "weight", "smoothing"):
            self.register_buffer(name, None)
        self.set_constants(PhysicsConstants.of(self.config, calibration))

    @torch.no_grad()
    def set_constants(self, constants: PhysicsConstants) -> None:
        """
        Set probe, scale and blur for another scan, of any N and number of modes.

        The networks do not depend on them. A new parameter replaces the probe; an optimiser must not hold the old one.
        """
        device = self.log_scale.device
        parts = torch.from_numpy(parts_of(constants.probe))
        self.probe_parts = nn.Parameter(parts.to(device), requires_grad=self.probe_parts.requires_grad)
        self.probe_support = torch.from_numpy(constants.probe_support).to(device)
        self.weight = torch.from_numpy(constants.weight).to(device)
        self.smoothing = None if constants.smoothing is None else torch.from_numpy(constants.smoothing).to(device)
        self.counts_per_intensity = float(constants.counts_per_intensity)
        self.amplitude_per_root_count = float(constants.amplitude_per_root_count)

    @property
    def probe(self) -> Tensor:
        """Probe modes (mode, y, x), complex64, inside their support."""
        return torch.view_as_complex(self.probe_parts) * self.probe_support

    def forward(self, batch: TensorBatch, amplitude_constraint: bool = False) -> Tensor:
        """Return object patches (group, channel, y, x)."""
        with torch.autocast(batch.x.device.type, enabled=False):
            patches = self._cnn(batch.x) if self.config.architecture == "cnn" else self.estimates(batch)[-1]
            if merges_groups(self.config):
                patches = physics.consistent_patches(patches, batch.offsets_px, self.weight, batch.canvas_px)
            if amplitude_constraint and self.config.architecture == "unet":
                patches = physics.constrain_amplitude(patches, batch.x, self.probe, batch.mask)
            return patches

    def expected_counts(self, patches: Tensor) -> Tensor:
        """Return predicted photons per pixel (group, channel, y, x)."""
        scale = self.counts_per_intensity * torch.exp(2.0 * self.log_scale)
        return scale * physics.intensity(patches, self.probe, self.smoothing)

    def measured_counts(self, batch: TensorBatch) -> Tensor:
        """Return measured photons per pixel (group, channel, y, x)."""
        return (batch.x / self.amplitude_per_root_count).square()

    def loss(self, batch: TensorBatch) -> Tensor:
        """Return the loss that training minimises, a mean over the batch's groups."""
        patches = self(batch)
        with torch.autocast(batch.x.device.type, enabled=False):
            terms = loss_terms(physics, self.training_config, self, patches, batch)
            return sum(terms, torch.zeros((), device=batch.x.device))

    def estimates(self, batch: TensorBatch) -> list[Tensor]:
        """Return object patches (group, channel, y, x) after every step of "unet"; the last are its prediction."""
        return unrolled_estimates(physics, self.config, batch, self.probe, self._object_update)

    def _object_update(self, name: str, **patches: Tensor) -> Tensor:
        """Run a network on single patches, with real and imaginary parts as channels."""
        first = next(iter(patches.values()))
        # view_as_real leaves the two parts innermost: channels-last without a copy.
        inputs = {key: torch.view_as_real(value).flatten(0, 1).permute(0, 3, 1, 2) for key, value in patches.items()}
        with autocast(first.device, self.convolution_dtype):
            (output,) = self.networks[name](inputs)
        parts = output.float().permute(0, 2, 3, 1).contiguous()
        return torch.view_as_complex(parts).reshape(first.shape)

    def _cnn(self, x: Tensor) -> Tensor:
        with autocast(x.device, self.convolution_dtype):
            amplitude, phase = self.networks["cnn"]({"x": x})
        amplitude, phase = amplitude.float(), phase.float()
        if self.config.decoder_outputs == "real_imaginary":
            return torch.complex(amplitude, phase)
        # Not torch.polar: its gradient has the wrong sign for negative amplitudes, which a swish head can give.
        return torch.complex(amplitude * torch.cos(phase), amplitude * torch.sin(phase))
