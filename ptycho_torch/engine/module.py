"""The trainable model as a torch module: from normalised amplitude to patches, counts and loss."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ptycho_backend.config import TrainingConfig
from ptycho_backend.data.batching import Batch
from ptycho_backend.engines.model import parts_of
from ptycho_backend.network.architectures import describe
from ptycho_backend.network.physics_constants import PhysicsConstants, constraint_share
from ptycho_backend.physics.calibration import Calibration
from ptycho_torch.engine import physics
from ptycho_torch.engine.device import autocast
from ptycho_torch.engine.network import Interpreter


class TensorBatch(NamedTuple):
    """A :class:`~ptycho_backend.data.batching.Batch` as tensors; the canvas size stays a number."""

    x: Tensor
    offsets_px: Tensor
    mask: Tensor
    canvas_px: int
    labels: Tensor | None


def to_tensors(batch: Batch, device: torch.device | str = "cpu") -> TensorBatch:
    """Copy a batch to a device."""
    arrays = (batch.x, batch.offsets_px, batch.mask)
    x, offsets, mask = (torch.from_numpy(array).to(device, non_blocking=True) for array in arrays)
    labels = None if batch.labels is None else torch.from_numpy(batch.labels).to(device)
    return TensorBatch(x, offsets, mask, batch.canvas_px, labels)


class PtychoModule(nn.Module):
    """
    A model description with its physics constants.

    Parameters
    ----------
    training : TrainingConfig
        Its `model` says what is built, its weights which losses count.
    calibration : Calibration
    convolution_dtype : torch.dtype
        float32 or bfloat16; everything but the networks is float32.
    """

    def __init__(
        self, training: TrainingConfig, calibration: Calibration, convolution_dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.training_config = training
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
        Turn to data with another probe and scale, of any N and number of modes.

        Networks do not depend on these. The probe is replaced, not its values: it must not be among what is trained.
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
            if self.config.channels > 1 and self.config.object_big:
                patches = physics.consistent_patches(patches, batch.offsets_px, self.weight, batch.canvas_px)
            if amplitude_constraint and self.config.architecture == "unet":
                patches = physics.constrain_amplitude(patches, batch.x, self.probe, batch.mask)
            return patches

    def expected_counts(self, patches: Tensor) -> Tensor:
        """Return predicted photons per pixel (group, channel, y, x)."""
        scale = self.counts_per_intensity * torch.exp(2.0 * self.log_scale)
        return scale * physics.intensity(patches, self.probe, self.smoothing)

    def loss(self, batch: TensorBatch) -> Tensor:
        """Return the loss that training minimises, a mean over the batch's groups."""
        patches = self(batch)
        with torch.autocast(batch.x.device.type, enabled=False):
            return sum(self._loss_terms(patches, batch), torch.zeros((), device=batch.x.device))

    def _loss_terms(self, patches: Tensor, batch: TensorBatch) -> list[Tensor]:
        weights = self.training_config
        terms = []
        if self.config.model_type == "supervised":
            terms.append(physics.label_mae(patches, batch.labels, self.weight))
        else:
            terms += self._data_terms(patches, batch)
            if weights.realspace_mae_weight > 0:
                error = physics.label_mae(patches, batch.labels, self.weight)
                terms.append(weights.realspace_mae_weight * error)
        if weights.realspace_weight > 0:
            terms.append(weights.realspace_weight * physics.total_variation(patches, self.weight))
        return terms

    def _data_terms(self, patches: Tensor, batch: TensorBatch) -> list[Tensor]:
        weights, r = self.training_config, self.amplitude_per_root_count
        if weights.nll_weight == 0 and weights.mae_weight == 0:
            return []
        counts = (batch.x / r).square()
        terms = []
        for share, candidate in self._judged(patches, batch):
            expected = self.expected_counts(candidate)
            if weights.nll_weight > 0:
                terms.append(share * weights.nll_weight * physics.poisson(expected, counts, batch.mask))
            if weights.mae_weight > 0:
                terms.append(share * weights.mae_weight * physics.amplitude_mae(expected, counts, batch.mask, r))
        return terms

    def _judged(self, patches: Tensor, batch: TensorBatch) -> list[tuple[float, Tensor]]:
        """Return the patches that the data judge, before and after one more D, with their shares."""
        share = constraint_share(self.training_config)
        judged = [(1.0 - share, patches)] if share < 1.0 else []
        if share > 0.0:
            judged.append((share, physics.constrain_amplitude(patches, batch.x, self.probe, batch.mask)))
        return judged

    def estimates(self, batch: TensorBatch) -> list[Tensor]:
        """Return the object patches (group, channel, y, x) after every step of "unet"; the last are its prediction."""
        probe = self.probe
        estimate = physics.initial_estimate(batch.x, probe)
        estimate = physics.accelerated(estimate, batch.x, probe, batch.mask, self.config.initial_iterations)
        found = [estimate + self._correction("step1", estimate=estimate)]
        for step in range(2, self.config.unrolled_steps + 1):
            consistent = physics.constrain_amplitude(found[-1], batch.x, probe, batch.mask)
            found.append(consistent + self._correction(f"step{step}", consistent=consistent, estimate=found[-1]))
        return found

    def _correction(self, network: str, **patches: Tensor) -> Tensor:
        """Run a network on patches as real and imaginary channels, every pattern by itself."""
        shape = next(iter(patches.values())).shape
        # view_as_real leaves the two parts innermost: channels-last without a copy.
        inputs = {name: torch.view_as_real(value).flatten(0, 1).permute(0, 3, 1, 2) for name, value in patches.items()}
        with autocast(inputs[next(iter(inputs))].device, self.convolution_dtype):
            (output,) = self.networks[network](inputs)
        parts = output.float().permute(0, 2, 3, 1).contiguous()
        return torch.view_as_complex(parts).reshape(shape)

    def _cnn(self, x: Tensor) -> Tensor:
        with autocast(x.device, self.convolution_dtype):
            amplitude, phase = self.networks["cnn"]({"x": x})
        amplitude, phase = amplitude.float(), phase.float()
        if self.config.decoder_outputs == "real_imaginary":
            return torch.complex(amplitude, phase)
        # Not torch.polar: its gradient has the wrong sign where a swish head gives a negative amplitude.
        return torch.complex(amplitude * torch.cos(phase), amplitude * torch.sin(phase))
