"""
Pretraining of the shipped network: its options, and the curriculum of simulated batches.

An engine iterates over :class:`Curriculum`. Every batch depends on seed and number alone, so that a resumed training
uses the same batches.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from annotated_types import Ge, Gt, Interval, Le, Lt
from numpy.typing import NDArray

from ptycho_backend.config import ModelConfig, TrainingConfig, from_dict, to_dict
from ptycho_backend.data.batching import Batch, Samples
from ptycho_backend.data.grouping import groups_from_indices
from ptycho_backend.errors import ConfigError
from ptycho_backend.network.physics_constants import PhysicsConstants
from ptycho_backend.physics.calibration import Calibration, calibrate, prepare_probe
from ptycho_backend.physics.translation import canvas_size
from ptycho_backend.pretraining.labels import sharp_patches
from ptycho_backend.pretraining.training_set import Recipe, SimulatedScan, check_recipe, draw
from ptycho_backend.runtime.yaml_files import read_yaml
from ptycho_backend.simulation.probes import make_probe

NOMINAL_N = 64  # side of the patterns in the model file; the weights serve every N
NON_NEGATIVE = Annotated[float, Ge(0.0)]


@dataclass
class PretrainingConfig:
    """
    Options for the pretraining of the shipped network.

    Parameters
    ----------
    recipe : Recipe
        Distribution of the simulated scans.
    n_filters_scale, unrolled_steps, initial_iterations : int
        Same meaning as in ModelConfig.
    shared_steps : bool
        Give the second and all later steps the same weights.
    label_weight : float
        Weight of the error against the known object, itself weighted by the probe's intensity.
    label_loss : {"mae", "log", "merged"}
        Mean absolute error; or logarithm of the rms error, which weights every scan alike; or the latter for the image
        merged from the neighbouring patches of a batch, which counts only their common error.
    data_weight : float
        Weight of the error against the measured patterns.
    data_loss : {"amplitude", "poisson", "log"}
        Mean absolute error of normalised amplitude; or half-deviance over mean counts; or ln(half-deviance + 1/2),
        which weights every dose alike and suppresses errors below the shot noise.
    constraint_share : float
        Share of every loss term that is evaluated after one more amplitude constraint.
    step_decay : float
        Loss weight of each step's estimate over that of the next step; 0 uses the last estimate alone.
    learning_rate, min_lr_ratio : float
        Largest learning rate of Adam, and its ratio to the rate at the end of the cosine schedule.
    warmup_steps : int
        Steps of linear warm-up.
    clip_norm : float
        Upper bound of the gradient's norm.
    average_decay : float
        Decay of the running average of the weights, which is saved at the end; 0 saves the last weights.
    batch_pixels : int
        Detector pixels of a batch, which holds batch_pixels / N² patterns of one scan.
    scans_at_once : int
        Scans that alternate, batch by batch.
    batches_per_step : int
        Batches whose mean gradient makes one step.
    steps : int
        Steps of the optimiser.
    minutes : float, optional
        Upper bound of the time; the schedule follows the steps.
    checkpoint_minutes : float
        Time between checkpoints.
    log_steps : int
        Steps between lines of progress.
    precision : str
        Same meaning as in ExecutionConfig.
    seed : int
        Seed of weights and scans.
    """

    recipe: Recipe = field(default_factory=Recipe)
    n_filters_scale: Annotated[int, Ge(1), Le(16)] = 1
    unrolled_steps: Annotated[int, Ge(1), Le(8)] = 2
    initial_iterations: Annotated[int, Ge(0), Le(64)] = 8
    shared_steps: bool = False
    label_weight: NON_NEGATIVE = 1.0
    label_loss: Literal["mae", "log", "merged"] = "merged"
    data_weight: NON_NEGATIVE = 0.0
    data_loss: Literal["amplitude", "poisson", "log"] = "log"
    constraint_share: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.5
    step_decay: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.0
    learning_rate: Annotated[float, Gt(0.0), Lt(1.0)] = 1e-3
    min_lr_ratio: Annotated[float, Interval(gt=0.0, le=1.0)] = 0.02
    warmup_steps: Annotated[int, Ge(0)] = 100
    clip_norm: Annotated[float, Gt(0.0)] = 1.0
    average_decay: Annotated[float, Interval(ge=0.0, lt=1.0)] = 0.998
    batch_pixels: Annotated[int, Ge(1024)] = 16 * 64**2
    scans_at_once: Annotated[int, Ge(1), Le(64)] = 4
    batches_per_step: Annotated[int, Ge(1)] = 1
    steps: Annotated[int, Ge(1)] = 40_000
    minutes: Annotated[float, Gt(0.0)] | None = None
    checkpoint_minutes: Annotated[float, Gt(0.0)] = 5.0
    log_steps: Annotated[int, Ge(1)] = 200
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    seed: Annotated[int, Ge(0)] = 0

    @property
    def training(self) -> TrainingConfig:
        """Return the training configuration for the model file."""
        model = ModelConfig(
            N=NOMINAL_N,
            n_filters_scale=self.n_filters_scale,
            unrolled_steps=self.unrolled_steps,
            initial_iterations=self.initial_iterations,
        )
        return TrainingConfig(
            model=model, learning_rate=self.learning_rate, intensity_scale_trainable=False, seed=self.seed
        )

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0: linear warm-up, then half a cosine."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        progress = min((step - self.warmup_steps) / max(1, self.steps - self.warmup_steps), 1.0)
        falling = 0.5 * (1.0 + math.cos(math.pi * progress))
        return self.learning_rate * (self.min_lr_ratio + (1.0 - self.min_lr_ratio) * falling)

    def step_weights(self) -> list[float]:
        """Return the loss weight of every step's estimate; the weights sum to one."""
        weights = [self.step_decay ** (self.unrolled_steps - 1 - step) for step in range(self.unrolled_steps)]
        return [weight / sum(weights) for weight in weights]


# A resumed training may change these options, because no weight depends on them.
MAY_DIFFER = ("minutes", "checkpoint_minutes", "log_steps", "precision")


def read_config(path: Path | str) -> PretrainingConfig:
    """Read a pretraining configuration from YAML; unknown keys and bad values are errors that name the file."""
    return config_from(read_yaml(path), f"file '{path}'")


def config_from(values: dict[str, Any], source: str = "the given values") -> PretrainingConfig:
    """Build and check a pretraining configuration from plain values."""
    config = from_dict(PretrainingConfig, values, source)
    check_recipe(config.recipe, source)
    return config


def check_same(config: PretrainingConfig, earlier: dict[str, Any], path: Path | str) -> None:
    """
    Compare a configuration with that of the checkpoint to resume from.

    Raises
    ------
    ConfigError
        If settings differ; the message names all of them.
    """
    now = to_dict(config)
    names = [name for name in now if name not in MAY_DIFFER and now[name] != earlier.get(name)]
    if names:
        raise ConfigError(
            "A resumed pretraining needs the settings of its checkpoint.",
            expected="; ".join(f"{name}: {earlier.get(name)}" for name in names),
            received=f"{'; '.join(f'{name}: {now[name]}' for name in names)}, checkpoint '{path}'",
            fix="restore the settings, or choose another folder for a new pretraining",
        )


def nominal_calibration() -> Calibration:
    """Return the placeholder calibration of a pretrained model: the probe of a pinhole, unit scale."""
    probe = make_probe("disc", NOMINAL_N, np.random.default_rng(0))
    return Calibration(rms_input_scale=1.0, probe=prepare_probe(probe, False), photons_per_pattern=(NOMINAL_N / 2) ** 2)


class LabelledBatch(NamedTuple):
    """
    Neighbouring patterns of one scan with their true patches.

    Attributes
    ----------
    batch : Batch
        Labels are the true patches; offsets refer to the mean position of the batch.
    constants : PhysicsConstants
        Physics constants of the scan.
    """

    batch: Batch
    constants: PhysicsConstants


class Curriculum:
    """
    Endless sequence of labelled batches: equal configurations give equal batches, in any order of access.

    Parameters
    ----------
    config : PretrainingConfig
    first_scan : int
        Number of the first scan in the endless sequence of scans.
    """

    def __init__(self, config: PretrainingConfig, first_scan: int = 0) -> None:
        self._config, self._first_scan = config, first_scan
        self._model = config.training.model
        self._batches_per_scan = max(1, config.recipe.pixels // config.batch_pixels)
        self._recent: dict[int, tuple[SimulatedScan, Samples]] = {}

    def at(self, index: int) -> LabelledBatch:
        """Return the batch with this number; consecutive batches come from alternating scans."""
        scans = self._config.scans_at_once
        block, within = divmod(index, scans * self._batches_per_scan)
        number = self._first_scan + block * scans + within % scans
        simulated, samples = self._scan(number)
        size = max(1, self._config.batch_pixels // simulated.scan.N**2)
        rng = np.random.default_rng([self._config.seed, 8, number, within // scans])
        offsets_px = simulated.positions_px - simulated.positions_px[rng.integers(len(samples))]
        nearest = np.argsort((offsets_px**2).sum(axis=1), kind="stable")[:size]
        return labelled_batch(simulated, samples, np.sort(nearest), self._model)

    def _scan(self, number: int) -> tuple[SimulatedScan, Samples]:
        if number not in self._recent:
            while len(self._recent) >= self._config.scans_at_once:
                del self._recent[next(iter(self._recent))]
            simulated = draw(self._config.recipe, np.random.default_rng([self._config.seed, 7, number]))
            scan, model = simulated.scan, dataclasses.replace(self._model, N=simulated.scan.N)
            groups = groups_from_indices(scan.positions_px, np.arange(len(scan))[:, None])
            self._recent[number] = simulated, Samples(scan, groups, calibrate(scan, model))
        return self._recent[number]


def labelled_batch(
    simulated: SimulatedScan, samples: Samples, rows: NDArray[np.intp], model: ModelConfig
) -> LabelledBatch:
    """Return some patterns of a simulated scan with their true patches as labels."""
    scan, calibration = simulated.scan, samples.calibration
    assert scan.obj is not None
    positions_px = simulated.positions_px[rows]
    patches = sharp_patches(scan.obj, scan.obj_origin_px, positions_px, scan.N)
    # Labels in units of the calibrated probe, which makes the normalised amplitude: r·P·O = P'·O'.
    scale = calibration.rms_input_scale * np.linalg.norm(simulated.probe) / (scan.N / 2)
    offsets = positions_px - positions_px.mean(axis=0)
    batch = dataclasses.replace(
        samples.batch(rows),
        labels=(patches * np.complex64(scale))[:, None],
        offsets_px=offsets[:, None].astype(np.float32),
        canvas_px=canvas_size(scan.N, offsets),
    )
    config = dataclasses.replace(model, N=scan.N)
    return LabelledBatch(batch, PhysicsConstants.of(config, calibration))
