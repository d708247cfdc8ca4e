"""
The lessons of a network that ships with the package: what it is shown, in which order, and at which rate.

An engine needs a loop over :class:`Lessons`. Everything is keyed by seed and step, so a training that goes on sees what
it would have seen without the stop.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from annotated_types import Ge, Gt, Interval, Le, Lt

from ptycho_backend.config import ModelConfig, TrainingConfig, from_dict, to_dict
from ptycho_backend.data.batching import Batch, Samples
from ptycho_backend.data.grouping import groups_from_indices
from ptycho_backend.errors import ConfigError
from ptycho_backend.network.physics_constants import PhysicsConstants
from ptycho_backend.physics.calibration import Calibration, calibrate, prepare_probe
from ptycho_backend.physics.translation import canvas_size
from ptycho_backend.pretraining.labels import sharp_patches
from ptycho_backend.pretraining.training_set import Drawn, Recipe, check_recipe, draw
from ptycho_backend.runtime.yaml_files import read_yaml
from ptycho_backend.simulation.probes import make_probe

NOMINAL_N = 64  # of the model that is built; what it learns serves every N
NON_NEGATIVE = Annotated[float, Ge(0.0)]
UNSEEN = 10**9  # first scan of a stream that no training reaches


@dataclass
class PretrainingConfig:
    """
    How the network that ships with the package is trained.

    Parameters
    ----------
    recipe : Recipe
        What it is shown.
    n_filters_scale, unrolled_steps, initial_iterations : int
        As in ModelConfig.
    shared_steps : bool
        The second and all later steps have the same weights.
    label_weight : float
        Weight of the error against the known object, itself weighted by the probe's intensity.
    label_loss : {"mae", "log", "merged"}
        Mean absolute error; the logarithm of the rms error, for which every scan counts the same; or that of the
        neighbouring patches of a lesson merged into one image, where only what they have in common is wrong.
    data_weight : float
        Weight of the misfit to the measured patterns.
    data_loss : {"amplitude", "poisson", "log"}
        Mean absolute error of normalised amplitude; half-deviance over mean counts; or ln(half-deviance + 1/2), for
        which every dose counts the same and a misfit below the shot noise hardly counts.
    constraint_share : float
        Share of every term that is taken after one more data-consistency step.
    step_decay : float
        Weight of each step's estimate over that of the step after it; 0 judges the last one alone.
    learning_rate, min_lr_ratio : float
        Largest rate of Adam, and the smallest over it at the end of a cosine.
    warmup_steps : int
        Steps of linear warm-up.
    clip_norm : float
        Upper bound of the gradient's norm.
    average_decay : float
        Of the running average of the weights, which is what is kept in the end; 0 keeps the last weights.
    batch_pixels : int
        Detector pixels of a batch; it holds batch_pixels / N² patterns of one scan.
    scans_at_once : int
        Scans that take turns, batch by batch.
    lessons_per_step : int
        Batches whose mean gradient makes one step.
    steps : int
        Of the optimiser.
    minutes : float, optional
        Upper bound of the time; the schedule follows the steps.
    checkpoint_minutes : float
        Time between checkpoints.
    log_steps : int
        Steps between lines of progress.
    precision : str
        As in ExecutionConfig.
    seed : int
        Seeds weights and scans.
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
    lessons_per_step: Annotated[int, Ge(1)] = 1
    steps: Annotated[int, Ge(1)] = 40_000
    minutes: Annotated[float, Gt(0.0)] | None = None
    checkpoint_minutes: Annotated[float, Gt(0.0)] = 5.0
    log_steps: Annotated[int, Ge(1)] = 200
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    seed: Annotated[int, Ge(0)] = 0

    @property
    def training(self) -> TrainingConfig:
        """Return the configuration that the model file carries."""
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

    def judged_steps(self) -> list[float]:
        """Return the weight of every step's estimate in the loss; they sum to one."""
        weights = [self.step_decay ** (self.unrolled_steps - 1 - step) for step in range(self.unrolled_steps)]
        return [weight / sum(weights) for weight in weights]


# What may differ between a training and the one that goes on with it.
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
    Refuse to go on with another training.

    Raises
    ------
    ConfigError
        It names every setting that differs.
    """
    now = to_dict(config)
    names = [name for name in now if name not in MAY_DIFFER and now[name] != earlier.get(name)]
    if names:
        raise ConfigError(
            "A pretraining goes on with the settings it began with.",
            expected="; ".join(f"{name}: {earlier.get(name)}" for name in names),
            received=f"{'; '.join(f'{name}: {now[name]}' for name in names)}, checkpoint '{path}'",
            fix="restore the settings, or name another folder to begin anew",
        )


def nominal_calibration() -> Calibration:
    """Return the calibration that a pretrained model carries until it meets a scan: a pinhole, unit scale."""
    probe = make_probe("disc", NOMINAL_N, np.random.default_rng(0))
    return Calibration(rms_input_scale=1.0, probe=prepare_probe(probe, False), photons_per_pattern=(NOMINAL_N / 2) ** 2)


class Lesson(NamedTuple):
    """Patterns of one scan with their true patches and offsets from their middle, and the constants of that scan."""

    batch: Batch
    constants: PhysicsConstants


class Lessons:
    """
    Lessons by number: equal configurations give equal lessons, in any order.

    Parameters
    ----------
    config : PretrainingConfig
    first_scan : int
        Where in the endless stream of scans to begin.
    """

    def __init__(self, config: PretrainingConfig, first_scan: int = 0) -> None:
        self._config, self._first_scan = config, first_scan
        self._model = config.training.model
        self._per_scan = max(1, config.recipe.pixels // config.batch_pixels)
        self._drawn: dict[int, tuple[Drawn, Samples]] = {}

    def at(self, index: int) -> Lesson:
        """Return the lesson of a number: scans take turns, and each lesson shows neighbouring patterns."""
        scans = self._config.scans_at_once
        turn, place = divmod(index, scans * self._per_scan)
        number = self._first_scan + turn * scans + place % scans
        drawn, samples = self._scan(number)
        size = max(1, self._config.batch_pixels // drawn.scan.N**2)
        rng = np.random.default_rng([self._config.seed, 8, number, place // scans])
        away = drawn.positions_px - drawn.positions_px[rng.integers(len(samples))]
        nearest = np.argsort((away**2).sum(axis=1), kind="stable")[:size]
        return lesson(drawn, samples, np.sort(nearest), self._model)

    def _scan(self, number: int) -> tuple[Drawn, Samples]:
        if number not in self._drawn:
            while len(self._drawn) >= self._config.scans_at_once:
                del self._drawn[next(iter(self._drawn))]
            drawn = draw(self._config.recipe, np.random.default_rng([self._config.seed, 7, number]))
            model = dataclasses.replace(self._model, N=drawn.scan.N)
            groups = groups_from_indices(drawn.scan.positions_px, np.arange(len(drawn.scan))[:, None])
            self._drawn[number] = drawn, Samples(drawn.scan, groups, calibrate(drawn.scan, model))
        return self._drawn[number]


def lesson(drawn: Drawn, samples: Samples, rows: np.ndarray[Any, Any], model: ModelConfig) -> Lesson:
    """Return some patterns of a drawn scan with the patches that a perfect network would predict."""
    scan, calibration = drawn.scan, samples.calibration
    assert scan.obj is not None
    patches = sharp_patches(scan.obj, scan.obj_origin_px, drawn.positions_px[rows], scan.N)
    # Scaled so that the calibrated probe makes the normalised amplitude of them: r·P·O = P'·O'.
    scale = calibration.rms_input_scale * np.linalg.norm(drawn.probe) / (scan.N / 2)
    offsets = drawn.positions_px[rows] - drawn.positions_px[rows].mean(axis=0)
    batch = dataclasses.replace(
        samples.batch(rows),
        labels=(patches * np.complex64(scale))[:, None],
        offsets_px=offsets[:, None].astype(np.float32),
        canvas_px=canvas_size(scan.N, offsets),
    )
    config = dataclasses.replace(model, N=scan.N)
    return Lesson(batch, PhysicsConstants.of(config, calibration))
