"""
Time per training step, through the same path as `ptycho_backend.train`.

    python benchmarks/training_step.py --backend tensorflow pytorch --architecture unet cnn --precision bf16-mixed

The time between two batch events is one step, including data. Wall and CPU time are medians over the steps after
the warm-up. CPU time counts the whole process. On a busy machine, wall time exceeds CPU time divided by the threads.
"""

from __future__ import annotations

import argparse
import itertools
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptycho_backend.config import ExecutionConfig, ModelConfig, TrainingConfig
from ptycho_backend.data.batching import Samples
from ptycho_backend.data.grouping import group_positions
from ptycho_backend.engines.model import Model
from ptycho_backend.engines.registry import get_backend
from ptycho_backend.events import BatchEvent, Event
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.simulation.simulate import simulate_scan

BATCHES_PER_EPOCH = 4
COLUMNS = ("backend", "model", "N", "precision", "batch", "ms/step", "cpu ms", "min ms")
COLUMNS += ("patterns/s", "first s", "predict/s")
ROW = "{:<11} {:<6} {:>4} {:<11} {:>6} {:>8} {:>8} {:>8} {:>11} {:>8} {:>10}"


@dataclass(frozen=True)
class Case:
    """One row of the table: a network, and the engine that trains it."""

    architecture: str
    N: int
    precision: str
    batch_size: int
    backend: str
    device: str = "cpu"
    compile: bool = False
    threads: int | None = None
    gridsize: int = 1
    n_filters_scale: int = 2

    @property
    def model(self) -> ModelConfig:
        """Network of the case."""
        return ModelConfig(
            N=self.N,
            gridsize=self.gridsize,
            architecture=self.architecture,
            n_filters_scale=self.n_filters_scale,
        )

    @property
    def execution(self) -> ExecutionConfig:
        """Execution of the case; the weights of the last epoch are returned."""
        return ExecutionConfig(
            device=self.device,
            precision=self.precision,
            threads=self.threads,
            monitor="train_loss",
            restore_best=False,
            compile=self.compile,
        )


@dataclass(frozen=True)
class StepTimes:
    """
    Times of training steps, and speed of prediction.

    Parameters
    ----------
    wall_ms, cpu_ms : float
        Medians after the warm-up.
    min_ms : float
        Shortest step, wall time.
    patterns_per_s : float
    first_s : float
        First step, with compilation.
    predicted_per_s : float
        Patterns per second of `predict_patches`, batch by batch.
    """

    wall_ms: float
    cpu_ms: float
    min_ms: float
    patterns_per_s: float
    first_s: float
    predicted_per_s: float


def measure(case: Case, steps: int, warmup: int) -> StepTimes:
    """Train a few steps after a warm-up, and predict a few batches."""
    nepochs = -(-(steps + warmup) // BATCHES_PER_EPOCH)
    training = TrainingConfig(model=case.model, nepochs=nepochs, batch_size=case.batch_size)
    data, backend = samples(case), get_backend(case.backend)
    trained = backend.create_model(training, data.calibration, case.execution)
    times = [_now()]

    def on_event(event: Event) -> None:
        if isinstance(event, BatchEvent):
            times.append(_now())

    backend.fit(trained, data, None, case.execution, on_event)
    milliseconds = 1e3 * np.diff(times, axis=0)
    wall, cpu = np.median(milliseconds[warmup:], axis=0)
    return StepTimes(
        wall_ms=float(wall),
        cpu_ms=float(cpu),
        min_ms=float(milliseconds[warmup:, 0].min()),
        patterns_per_s=float(1e3 * case.batch_size * case.model.channels / wall),
        first_s=float(milliseconds[0, 0] / 1e3),
        predicted_per_s=predictions_per_second(trained, data, case.batch_size),
    )


def samples(case: Case) -> Samples:
    """Return the samples of a simulated scan, one short epoch."""
    scan = simulate_scan(N=case.N, n_positions=case.batch_size * BATCHES_PER_EPOCH)
    groups = group_positions(scan.positions_px, case.gridsize, 7, None, np.random.default_rng(0))
    return Samples(scan, groups, calibrate(scan, case.model))


def predictions_per_second(model: Model, data: Samples, batch_size: int) -> float:
    """Return the patterns per second that the model predicts."""
    batch, seconds = data.batch(slice(0, batch_size)), []
    for _ in range(12):
        start = time.perf_counter()
        model.predict_patches(batch)
        seconds.append(time.perf_counter() - start)
    return float(batch_size * model.config.channels / np.median(seconds[2:]))


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def row(case: Case, times: StepTimes) -> tuple[Any, ...]:
    """Return the cells of one row."""
    names = (case.backend, case.architecture, case.N, case.precision, case.batch_size)
    return (*names, *(f"{number:.1f}" for number in vars(times).values()))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", nargs="+", default=["tensorflow"])
    parser.add_argument("--architecture", nargs="+", default=["unet", "cnn"])
    parser.add_argument("--precision", nargs="+", default=["32-true", "bf16-mixed"])
    parser.add_argument("--N", nargs="+", type=int, default=[64])
    parser.add_argument("--batch-size", nargs="+", type=int, default=[16])
    parser.add_argument("--gridsize", type=int, default=1)
    parser.add_argument("--scale", type=int, default=2, help="n_filters_scale")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="set ExecutionConfig.compile")
    parser.add_argument("--threads", type=int, default=None)
    return parser.parse_args()


def main() -> None:
    """Print the table."""
    a = parse()
    print(ROW.format(*COLUMNS))
    for values in itertools.product(a.architecture, a.N, a.precision, a.batch_size, a.backend):
        case = Case(*values, a.device, a.compile, a.threads, a.gridsize, a.scale)
        print(ROW.format(*row(case, measure(case, a.steps, a.warmup))), flush=True)


if __name__ == "__main__":
    main()
