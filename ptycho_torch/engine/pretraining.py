"""
Pretraining of the shipped network on simulated scans (ADR-013).

Only this engine has it: both engines read the weights, so one implementation is enough.

    python -m ptycho_torch.engine.pretraining ptycho_backend/network/pretrained/config.yaml --folder runs/pretrained
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ptycho_backend.config import ExecutionConfig, to_dict
from ptycho_backend.engines.model import LOG_SCALE, PROBE, parts_of
from ptycho_backend.errors import PtychoError, TrainingError, TrainingStopped
from ptycho_backend.model_file.bundle import Bundle, read_bundle, write_bundle
from ptycho_backend.model_file.run import provenance_of
from ptycho_backend.model_file.trainer_state import TrainerState
from ptycho_backend.pretraining.recipe import (
    Curriculum,
    LabelledBatch,
    PretrainingConfig,
    check_same,
    nominal_calibration,
    read_config,
)
from ptycho_backend.runtime.malloc import freed_memory_kept
from ptycho_backend.training.loop import Mean
from ptycho_backend.training.signals import Stop
from ptycho_torch.engine import physics
from ptycho_torch.engine.backend import TorchBackend
from ptycho_torch.engine.checkpoint import moments_of, restore_moments
from ptycho_torch.engine.model import TorchModel, from_canonical_weight, weights_of
from ptycho_torch.engine.module import PtychoModule, TensorBatch, to_tensors
from ptycho_torch.engine.optimizer import ADAM, clip_norm

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.h5.zip"
MODEL = "model.h5.zip"
SHOT_NOISE = 0.5  # half-deviance of a bright pixel with a perfect prediction
SMALLEST_ERROR = 1e-3  # relative error of the object at which the logarithm levels off


class Pretraining:
    """
    Training loop of a pretraining; it resumes from the checkpoint in its folder.

    Parameters
    ----------
    config : PretrainingConfig
    folder : path
        Folder of the checkpoint and of the present model.

    Raises
    ------
    ConfigError
        If the checkpoint has other settings.
    """

    def __init__(self, config: PretrainingConfig, folder: Path | str) -> None:
        self.config, self.folder = config, Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        execution = ExecutionConfig(precision=config.precision)
        self.model = TorchModel(config.training, nominal_calibration(), execution)
        if config.shared_steps:
            _share_steps(self.model)
        self.trained = self.model.trained()
        # Shared weights have several names, but the optimiser holds them once.
        self._parameters = list({id(weight): weight for weight in self.trained.values()}.values())
        self.optimizer = torch.optim.Adam(self._parameters, lr=config.learning_rate, fused=True, **ADAM)
        self.step, self.seconds = 0, 0.0
        self.history: list[dict[str, float]] = []
        if (self.folder / CHECKPOINT).exists():
            self._restore(read_bundle(self.folder / CHECKPOINT))
        self.average = [weight.detach().clone() for weight in self._parameters] if self.step == 0 else self.average

    def run(self, stop: Stop | None = None) -> Path:
        """
        Train for the configured steps or minutes.

        Returns
        -------
        path
            Model file.

        Raises
        ------
        TrainingStopped
            After a request by `stop`; the checkpoint is saved.
        TrainingError
            If a loss is not finite.
        """
        curriculum, mean = Curriculum(self.config), Mean()
        stop = stop or Stop()
        started = saved = logged = time.monotonic()
        earlier_seconds = self.seconds
        while not self._finished() and not stop.requested:
            mean.add(self.train_step(curriculum), 1.0)
            now = time.monotonic()
            self.seconds = earlier_seconds + now - started
            if self.step % self.config.log_steps == 0:
                self._log(mean.value, (now - logged) / mean.weight)
                mean, logged = Mean(), now
            if now - saved > 60 * self.config.checkpoint_minutes:
                self.save()
                saved = now
        path = self.save()
        if stop.requested:
            raise self._stopped(stop)
        return path

    def train_step(self, curriculum: Curriculum) -> float:
        """Take one optimiser step and return its loss."""
        count = self.config.batches_per_step
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        value = sum(self._add_gradient(curriculum.at(count * self.step + n)) for n in range(count))
        if not np.isfinite(value):
            raise TrainingError("A loss is finite.", received=f"{value} at step {self.step}", fix="lower the rate")
        clip_norm(self._parameters, self.config.clip_norm)
        self.optimizer.step()
        # The first weights are far from trained: a short average at first.
        decay = min(self.config.average_decay, (self.step + 1) / (self.step + 10))
        torch._foreach_lerp_(self.average, [weight.detach() for weight in self._parameters], 1.0 - decay)
        self.step += 1
        return value

    def _add_gradient(self, labelled: LabelledBatch) -> float:
        self.model.module.set_constants(labelled.constants)
        batch = to_tensors(labelled.batch, self.model.device)
        loss = pretraining_loss(self.model.module, batch, self.config) / self.config.batches_per_step
        loss.backward()
        return float(loss.detach())

    def save(self) -> Path:
        """Write the checkpoint and the present model; return the path of the model."""
        weights, provenance = self._nominal(self.model.get_weights()), self._provenance()
        averaged = self._averaged()
        state = TrainerState(batch=self.step, best_weights=averaged, **moments_of(self.optimizer, self.trained))
        bundle = Bundle(self.config.training, nominal_calibration(), weights, self.history, provenance, state)
        write_bundle(self.folder / CHECKPOINT, bundle)
        final = weights | averaged if self.config.average_decay > 0 else weights
        model = dataclasses.replace(bundle, weights=final, state=None)
        return write_bundle(self.folder / MODEL, model, weights_dtype="float16")

    def _finished(self) -> bool:
        minutes = self.config.minutes
        return self.step >= self.config.steps or (minutes is not None and self.seconds >= 60 * minutes)

    def _averaged(self) -> dict[str, Any]:
        by_weight = dict(zip(map(id, self._parameters), self.average, strict=True))
        return weights_of({name: by_weight[id(weight)] for name, weight in self.trained.items()})

    def _nominal(self, weights: dict[str, Any]) -> dict[str, Any]:
        """Return weights with the probe and scale of the nominal calibration."""
        return weights | {PROBE: parts_of(nominal_calibration().probe), LOG_SCALE: np.zeros((), np.float32)}

    def _provenance(self) -> dict[str, Any]:
        provenance = provenance_of("pytorch", TorchBackend().versions(), self.config.seed, "simulated")
        return provenance | {"pretraining": to_dict(self.config), "steps": self.step, "seconds": self.seconds}

    def _restore(self, bundle: Bundle) -> None:
        check_same(self.config, bundle.provenance["pretraining"], self.folder / CHECKPOINT)
        assert bundle.state is not None
        self.model.set_weights(bundle.weights)
        restore_moments(self.optimizer, self.trained, bundle.state)
        averaged = {name: torch.as_tensor(value) for name, value in bundle.state.best_weights.items()}
        self.average = _in_order(averaged, self.trained, self._parameters)
        self.step, self.seconds = bundle.state.batch, float(bundle.provenance["seconds"])
        self.history = list(bundle.history)
        logger.info("resuming after step %d", self.step)

    def _log(self, loss: float, seconds: float) -> None:
        rate, remaining_s = self.config.rate(self.step - 1), (self.config.steps - self.step) * seconds
        if self.config.minutes is not None:
            remaining_s = min(remaining_s, 60 * self.config.minutes - self.seconds)
        self.history.append({"step": self.step, "loss": loss, "lr": rate, "seconds": self.seconds})
        logger.info(
            "step %d of %d: loss %.4f, rate %.2e, %.0f ms a step, %.0f min left",
            *(self.step, self.config.steps, loss, rate, 1e3 * seconds, remaining_s / 60),
        )

    def _stopped(self, stop: Stop) -> TrainingStopped:
        error = TrainingStopped(
            "Pretraining stopped on request.",
            received=f"a signal after step {self.step}; saved in '{self.folder / CHECKPOINT}'",
            fix="run the same command again to resume",
        )
        error.signal = stop.signal or error.signal
        return error


def pretraining_loss(module: PtychoModule, batch: TensorBatch, config: PretrainingConfig) -> Tensor:
    """Return the loss of a labelled batch: a weighted mean over the network's steps, with and without constraint."""
    total = torch.zeros((), device=batch.x.device)
    for weight, estimate in zip(config.step_weights(), module.estimates(batch), strict=True):
        candidates = [(1.0 - config.constraint_share, estimate)]
        if weight * config.constraint_share > 0:
            constrained = physics.constrain_amplitude(estimate, batch.x, module.probe, batch.mask)
            candidates.append((config.constraint_share, constrained))
        for share, patches in candidates:
            if weight * share > 0:
                total = total + weight * share * _patch_loss(module, patches, batch, config)
    return total


def _patch_loss(module: PtychoModule, patches: Tensor, batch: TensorBatch, config: PretrainingConfig) -> Tensor:
    loss = torch.zeros((), device=batch.x.device)
    if config.label_weight > 0:
        loss = loss + config.label_weight * LABEL_LOSSES[config.label_loss](patches, batch, module.weight)
    if config.data_weight > 0:
        counts, expected = module.measured_counts(batch), module.expected_counts(patches)
        if config.data_loss == "amplitude":
            data = physics.amplitude_mae(expected, counts, batch.mask, module.amplitude_per_root_count)
        elif config.data_loss == "poisson":
            data = physics.poisson(expected, counts, batch.mask) / counts.mean()
        else:
            data = torch.log(physics.poisson(expected, counts, batch.mask) + SHOT_NOISE)
        loss = loss + config.data_weight * data
    return loss


def mean_error(patches: Tensor, batch: TensorBatch, weight: Tensor) -> Tensor:
    """Return the weighted mean absolute error."""
    return physics.label_mae(patches, batch.labels, weight)


def log_error(patches: Tensor, batch: TensorBatch, weight: Tensor) -> Tensor:
    """
    Return ln of the weighted rms error; like a PSNR, it weights all relative changes alike.

    Scans of weak and of strong contrast, with many and with few photons, have the same weight.
    """
    error = physics.abs2(_label_error(patches, batch, weight))
    return 0.5 * torch.log((error * weight).sum() / (patches.shape[:2].numel() * weight.sum()) + SMALLEST_ERROR**2)


def log_merged_error(patches: Tensor, batch: TensorBatch, weight: Tensor) -> Tensor:
    """
    Return ln of the rms error of the merged patches of a batch.

    Stitching averages the patches. Errors that differ between neighbours cancel, common errors remain: patches that
    minimise their single error all have too little contrast.
    """
    error = _label_error(patches, batch, weight).transpose(0, 1)
    offsets = batch.offsets_px.transpose(0, 1)
    coverage = physics.scatter_patches(weight.expand(error.shape), offsets, batch.canvas_px).sum(dim=1)
    merged = physics.merge(error, offsets, weight, batch.canvas_px)
    squared_error = (physics.abs2(merged) * coverage).sum() / coverage.sum()
    return 0.5 * torch.log(squared_error + SMALLEST_ERROR**2)


def _label_error(patches: Tensor, batch: TensorBatch, weight: Tensor) -> Tensor:
    """Return the difference of patches and labels, global phase removed."""
    return patches * physics.global_phase_factor(patches, batch.labels, weight) - batch.labels


LABEL_LOSSES = {"mae": mean_error, "log": log_error, "merged": log_merged_error}


def _share_steps(model: TorchModel) -> None:
    """Use the parameters of the second step in all later steps, under their own names."""
    networks = model.module.networks
    for step in range(3, model.config.unrolled_steps + 1):
        for name in networks["step2"].values:
            networks[f"step{step}"].values[name.replace("step2", f"step{step}")] = networks["step2"].values[name]


def _in_order(values: dict[str, Tensor], names: dict[str, Tensor], order: list[Tensor]) -> list[Tensor]:
    """Return canonical values in torch's layout, in the order of its parameters."""
    ordered = {
        id(weight): torch.empty_like(weight).copy_(from_canonical_weight(name, values[name])).detach()
        for name, weight in names.items()
    }
    return [ordered[id(weight)] for weight in order]


def main(arguments: list[str] | None = None) -> int:
    """Run a pretraining from the command line; a second run resumes from the checkpoint of the first."""
    parser = argparse.ArgumentParser(description="Train the shipped network.")
    parser.add_argument("config", type=Path, help="YAML file of a PretrainingConfig")
    parser.add_argument("--folder", type=Path, required=True, help="folder of the checkpoint and the model")
    parser.add_argument("--output", type=Path, help="file for the finished model")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    stop = Stop()
    try:
        pretraining = Pretraining(read_config(options.config), options.folder)
        with stop.on_signals(), freed_memory_kept():
            model = pretraining.run(stop)
    except TrainingStopped as error:
        logger.warning("%s", error)
        return 128 + error.signal
    except PtychoError as error:
        logger.error("%s", error)
        return 1
    if options.output is not None:
        write_bundle(options.output, read_bundle(model), weights_dtype="float16")
    return 0


if __name__ == "__main__":
    sys.exit(main())
