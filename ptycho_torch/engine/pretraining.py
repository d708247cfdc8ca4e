"""
Trains the network that ships with the package, on PyTorch.

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
    Lesson,
    Lessons,
    PretrainingConfig,
    check_same,
    nominal_calibration,
    read_config,
)
from ptycho_backend.runtime.malloc import freed_memory_kept
from ptycho_backend.training.means import Mean
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
SHOT_NOISE = 0.5  # half-deviance of a bright pixel whose prediction is perfect
SMALLEST_ERROR = 1e-3  # of an object of 1: a better image is not worth more


class Pretraining:
    """
    A pretraining in a folder, begun or gone on with.

    Parameters
    ----------
    config : PretrainingConfig
    folder : path
        Receives the checkpoint, from which a later one goes on, and the model as it stands.

    Raises
    ------
    ConfigError
        If the folder's checkpoint belongs to other settings.
    """

    def __init__(self, config: PretrainingConfig, folder: Path | str) -> None:
        self.config, self.folder = config, Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        execution = ExecutionConfig(precision=config.precision)
        self.model = TorchModel(config.training, nominal_calibration(), execution)
        if config.shared_steps:
            _share_steps(self.model)
        self.trained = self.model.trained()
        # Shared weights have several names, and one place in the optimiser.
        self._parameters = list({id(weight): weight for weight in self.trained.values()}.values())
        self.optimizer = torch.optim.Adam(self._parameters, lr=config.learning_rate, fused=True, **ADAM)
        self.step, self.seconds = 0, 0.0
        self.history: list[dict[str, float]] = []
        if (self.folder / CHECKPOINT).exists():
            self._restore(read_bundle(self.folder / CHECKPOINT))
        self.average = [weight.detach().clone() for weight in self._parameters] if self.step == 0 else self.average

    def run(self, stop: Stop | None = None) -> Path:
        """
        Train until the steps or the minutes are used up.

        Returns
        -------
        path
            The model file.

        Raises
        ------
        TrainingStopped
            If `stop` asked for it; what there is has been kept.
        TrainingError
            If a loss is not finite.
        """
        lessons, mean = Lessons(self.config), Mean()
        stop = stop or Stop()
        begun = kept = logged = time.monotonic()
        before = self.seconds
        while not self._used_up() and not stop.requested:
            mean.add(self.learn(lessons), 1.0)
            now = time.monotonic()
            self.seconds = before + now - begun
            if self.step % self.config.log_steps == 0:
                self._log(mean.value, (now - logged) / mean.weight)
                mean, logged = Mean(), now
            if now - kept > 60 * self.config.checkpoint_minutes:
                self.keep()
                kept = now
        path = self.keep()
        if stop.requested:
            raise self._stopped(stop)
        return path

    def learn(self, lessons: Lessons) -> float:
        """Take the next step and return its loss."""
        count = self.config.lessons_per_step
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        value = sum(self._add_gradient(lessons.at(count * self.step + n)) for n in range(count))
        if not np.isfinite(value):
            raise TrainingError("A loss is finite.", received=f"{value} at step {self.step}", fix="lower the rate")
        clip_norm(self._parameters, self.config.clip_norm)
        self.optimizer.step()
        # A young average follows the weights closely: its first values are far from trained.
        decay = min(self.config.average_decay, (self.step + 1) / (self.step + 10))
        torch._foreach_lerp_(self.average, [weight.detach() for weight in self._parameters], 1.0 - decay)
        self.step += 1
        return value

    def _add_gradient(self, lesson: Lesson) -> float:
        self.model.module.set_constants(lesson.constants)
        batch = to_tensors(lesson.batch, self.model.device)
        loss = lesson_loss(self.model.module, batch, self.config) / self.config.lessons_per_step
        loss.backward()
        return float(loss.detach())

    def keep(self) -> Path:
        """Write the checkpoint, and the model as it stands."""
        weights, provenance = self._nominal(self.model.get_weights()), self._provenance()
        averaged = self._averaged()
        state = TrainerState(batch=self.step, best_weights=averaged, **moments_of(self.optimizer, self.trained))
        bundle = Bundle(self.config.training, nominal_calibration(), weights, self.history, provenance, state)
        write_bundle(self.folder / CHECKPOINT, bundle)
        best = weights | averaged if self.config.average_decay > 0 else weights
        finished = dataclasses.replace(bundle, weights=best, state=None)
        return write_bundle(self.folder / MODEL, finished, weights_dtype="float16")

    def _used_up(self) -> bool:
        minutes = self.config.minutes
        return self.step >= self.config.steps or (minutes is not None and self.seconds >= 60 * minutes)

    def _averaged(self) -> dict[str, Any]:
        by_weight = dict(zip(map(id, self._parameters), self.average, strict=True))
        return weights_of({name: by_weight[id(weight)] for name, weight in self.trained.items()})

    def _nominal(self, weights: dict[str, Any]) -> dict[str, Any]:
        """Return weights with the probe of the nominal calibration in place of the last scan's."""
        return weights | {PROBE: parts_of(nominal_calibration().probe), LOG_SCALE: np.zeros((), np.float32)}

    def _provenance(self) -> dict[str, Any]:
        made = provenance_of("pytorch", TorchBackend().versions(), self.config.seed, "simulated")
        return made | {"pretraining": to_dict(self.config), "steps": self.step, "seconds": self.seconds}

    def _restore(self, bundle: Bundle) -> None:
        check_same(self.config, bundle.provenance["pretraining"], self.folder / CHECKPOINT)
        assert bundle.state is not None
        self.model.set_weights(bundle.weights)
        restore_moments(self.optimizer, self.trained, bundle.state)
        averaged = {name: torch.as_tensor(value) for name, value in bundle.state.best_weights.items()}
        self.average = _in_order(averaged, self.trained, self._parameters)
        self.step, self.seconds = bundle.state.batch, float(bundle.provenance["seconds"])
        self.history = list(bundle.history)
        logger.info("going on after step %d", self.step)

    def _log(self, loss: float, seconds: float) -> None:
        rate, left = self.config.rate(self.step - 1), (self.config.steps - self.step) * seconds
        if self.config.minutes is not None:
            left = min(left, 60 * self.config.minutes - self.seconds)
        self.history.append({"step": self.step, "loss": loss, "lr": rate, "seconds": self.seconds})
        logger.info(
            "step %d of %d: loss %.4f, rate %.2e, %.0f ms a step, %.0f min left",
            *(self.step, self.config.steps, loss, rate, 1e3 * seconds, left / 60),
        )

    def _stopped(self, stop: Stop) -> TrainingStopped:
        error = TrainingStopped(
            "Pretraining was asked to stop.",
            received=f"a signal after step {self.step}; kept in '{self.folder / CHECKPOINT}'",
            fix="run the same command again to go on",
        )
        error.signal = stop.signal or error.signal
        return error


def lesson_loss(module: PtychoModule, batch: TensorBatch, config: PretrainingConfig) -> Tensor:
    """Return the loss of a batch whose objects are known, on the steps and patches that the configuration judges."""
    total = torch.zeros((), device=batch.x.device)
    for weight, estimate in zip(config.judged_steps(), module.estimates(batch), strict=True):
        judged = [(1.0 - config.constraint_share, estimate)]
        if weight * config.constraint_share > 0:
            consistent = physics.constrain_amplitude(estimate, batch.x, module.probe, batch.mask)
            judged.append((config.constraint_share, consistent))
        for share, patches in judged:
            if weight * share > 0:
                total = total + weight * share * _misfit(module, patches, batch, config)
    return total


def _misfit(module: PtychoModule, patches: Tensor, batch: TensorBatch, config: PretrainingConfig) -> Tensor:
    misfit = torch.zeros((), device=batch.x.device)
    if config.label_weight > 0:
        misfit = misfit + config.label_weight * LABEL_LOSSES[config.label_loss](patches, batch, module.weight)
    if config.data_weight > 0:
        r = module.amplitude_per_root_count
        counts, expected = (batch.x / r).square(), module.expected_counts(patches)
        if config.data_loss == "amplitude":
            data = physics.amplitude_mae(expected, counts, batch.mask, r)
        elif config.data_loss == "poisson":
            data = physics.poisson(expected, counts, batch.mask) / counts.mean()
        else:
            data = torch.log(physics.poisson(expected, counts, batch.mask) + SHOT_NOISE)
        misfit = misfit + config.data_weight * data
    return misfit


def mean_error(patches: Tensor, batch: TensorBatch, weight: Tensor) -> Tensor:
    """Return the weighted mean absolute error."""
    return physics.label_mae(patches, batch.labels, weight)


def log_error(patches: Tensor, batch: TensorBatch, weight: Tensor) -> Tensor:
    """
    Return ln of the weighted rms error: its slope is that of a PSNR.

    Samples of weak and of strong contrast, with many and with few photons, count the same.
    """
    error = physics.intensity_of(physics.turned(patches, batch.labels, weight) - batch.labels)
    return 0.5 * torch.log((error * weight).sum() / (patches.shape[:2].numel() * weight.sum()) + SMALLEST_ERROR**2)


def log_merged_error(patches: Tensor, batch: TensorBatch, weight: Tensor) -> Tensor:
    """
    Return ln of the rms error of the image that a lesson's patches make together.

    An image averages patches. The best single patch is a cautious one, and all neighbours are cautious alike: that
    lack of contrast stays, where errors that differ between neighbours average out.
    """
    error = (physics.turned(patches, batch.labels, weight) - batch.labels).transpose(0, 1)
    offsets = batch.offsets_px.transpose(0, 1)
    coverage = physics.scatter_patches(weight.expand(error.shape), offsets, batch.canvas_px).sum(dim=1)
    merged = physics.merge(error, offsets, weight, batch.canvas_px)
    square = (physics.intensity_of(merged) * coverage).sum() / coverage.sum()
    return 0.5 * torch.log(square + SMALLEST_ERROR**2)


LABEL_LOSSES = {"mae": mean_error, "log": log_error, "merged": log_merged_error}


def _share_steps(model: TorchModel) -> None:
    """Give all steps after the second the second one's parameters, under their own names."""
    networks = model.module.networks
    for step in range(3, model.config.unrolled_steps + 1):
        for name in networks["step2"].values:
            networks[f"step{step}"].values[name.replace("step2", f"step{step}")] = networks["step2"].values[name]


def _in_order(values: dict[str, Tensor], names: dict[str, Tensor], order: list[Tensor]) -> list[Tensor]:
    """Return canonical values in a framework's layout, in the order of its parameters."""
    found = {
        id(weight): torch.empty_like(weight).copy_(from_canonical_weight(name, values[name])).detach()
        for name, weight in names.items()
    }
    return [found[id(weight)] for weight in order]


def main(arguments: list[str] | None = None) -> int:
    """Run a pretraining from the command line; a second run goes on from the first one's checkpoint."""
    parser = argparse.ArgumentParser(description="Train the network that ships with the package.")
    parser.add_argument("config", type=Path, help="YAML file of a PretrainingConfig")
    parser.add_argument("--folder", type=Path, required=True, help="where the checkpoint and the model are kept")
    parser.add_argument("--output", type=Path, help="where the finished model goes")
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
