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
    """One row of the table."""

    architecture: str
    N: int
    precision: str
    batch_size: int
    backend: str


def measure(case: Case, arguments: argparse.Namespace) -> tuple[Any, ...]:
    """Train a few steps and return one row."""
    model = ModelConfig(
        N=case.N, gridsize=arguments.gridsize, architecture=case.architecture, n_filters_scale=arguments.scale
    )
    nepochs = -(-(arguments.steps + arguments.warmup) // BATCHES_PER_EPOCH)
    training = TrainingConfig(model=model, nepochs=nepochs, batch_size=case.batch_size)
    execution = ExecutionConfig(
        device=arguments.device,
        precision=case.precision,
        threads=arguments.threads,
        monitor="train_loss",
        restore_best=False,
        compile=arguments.compile,
    )
    data, backend = samples(case, model), get_backend(case.backend)
    trained = backend.create_model(training, data.calibration, execution)
    times = [_now()]

    def on_event(event: Event) -> None:
        if isinstance(event, BatchEvent):
            times.append(_now())

    backend.fit(trained, data, None, execution, on_event)
    steps = 1e3 * np.diff(times, axis=0)
    wall, cpu = np.median(steps[arguments.warmup :], axis=0)
    numbers = (wall, cpu, steps[arguments.warmup :, 0].min(), 1e3 * case.batch_size * model.channels / wall)
    rates = (steps[0, 0] / 1e3, predictions_per_second(trained, data, case.batch_size))
    names = (case.backend, case.architecture, case.N, case.precision, case.batch_size)
    return (*names, *(f"{number:.1f}" for number in (*numbers, *rates)))


def samples(case: Case, model: ModelConfig) -> Samples:
    """Return the samples of a simulated scan, one short epoch."""
    scan = simulate_scan(N=case.N, n_positions=case.batch_size * BATCHES_PER_EPOCH)
    groups = group_positions(scan.positions_px, model.gridsize, 7, None, np.random.default_rng(0))
    return Samples(scan, groups, calibrate(scan, model))


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
        print(ROW.format(*measure(Case(*values), a)), flush=True)


if __name__ == "__main__":
    main()
