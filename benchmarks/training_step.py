"""
Time per training step, through the same path as `ptycho_backend.train`.

    python benchmarks/training_step.py --backend tensorflow --architecture unet cnn --precision bf16-mixed

The time between two batch events is one step, data included. Median over the steps after the warm-up; CPU time
is that of the whole process, so that a machine shared with others can be recognised (wall time well above CPU
time divided by the threads).
"""

from __future__ import annotations

import argparse
import itertools
import time

import numpy as np

from ptycho_backend.config import ExecutionConfig, ModelConfig, TrainingConfig
from ptycho_backend.core.batching import Samples
from ptycho_backend.core.calibration import calibrate
from ptycho_backend.core.grouping import group_positions
from ptycho_backend.data.simulate import simulate_scan
from ptycho_backend.events import BatchEvent, Event
from ptycho_backend.registry import get_backend

HEADER = "backend     architecture  N    precision   batch  ms/step   cpu ms  patterns/s  first step s  predict/s"
ROW = "{:<11} {:<13} {:<4} {:<11} {:<6} {:>7.1f} {:>8.1f} {:>11.0f} {:>13.1f} {:>10.0f}"


def samples(arguments: argparse.Namespace, model: ModelConfig) -> Samples:
    """Return a simulated scan of the right size."""
    scan = simulate_scan(N=model.N, n_positions=arguments.batch * 4)
    rng = np.random.default_rng(0)
    groups = group_positions(scan.positions_px, model.gridsize, 7, None, rng)
    return Samples(scan, groups, calibrate(scan, model))


def measure(arguments: argparse.Namespace, architecture: str, N: int, precision: str, batch: int) -> str:
    """Train for a while and return one row of the table."""
    arguments.batch = batch
    model = ModelConfig(N=N, gridsize=arguments.gridsize, architecture=architecture, n_filters_scale=arguments.scale)
    nepochs = -(-(arguments.steps + arguments.warmup) // 4)
    training = TrainingConfig(model=model, nepochs=nepochs, batch_size=batch)
    execution = ExecutionConfig(
        device=arguments.device, precision=precision, threads=arguments.threads, restore_best=False
    )
    data, backend = samples(arguments, model), get_backend(arguments.backend)
    engine_model = backend.create_model(training, data.calibration, execution)
    moments = [(time.perf_counter(), time.process_time())]

    def listen(event: Event) -> None:
        if isinstance(event, BatchEvent):
            moments.append((time.perf_counter(), time.process_time()))

    backend.fit(engine_model, data, None, execution, listen)
    steps = np.diff(moments, axis=0)
    wall, cpu = 1e3 * np.median(steps[arguments.warmup :], axis=0)
    rate = predictions_per_second(engine_model, data, batch)
    patterns = 1e3 * batch * model.channels / wall
    return ROW.format(backend.name, architecture, N, precision, batch, wall, cpu, patterns, steps[0, 0], rate)


def predictions_per_second(model, data: Samples, batch: int) -> float:
    """Return how many patterns a second the trained model reconstructs."""
    rows = data.batch(slice(0, batch))
    model.predict_patches(rows)
    times = []
    for _ in range(10):
        start = time.perf_counter()
        model.predict_patches(rows)
        times.append(time.perf_counter() - start)
    return float(batch * model.config.channels / np.median(times))


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
    parser.add_argument("--threads", type=int, default=None)
    return parser.parse_args()


def main() -> None:
    """Print the table."""
    arguments = parse()
    cases = itertools.product(arguments.architecture, arguments.N, arguments.precision, arguments.batch_size)
    print(HEADER)
    for (architecture, N, precision, batch), name in itertools.product(list(cases), list(arguments.backend)):
        arguments.backend = name
        print(measure(arguments, architecture, N, precision, batch), flush=True)


if __name__ == "__main__":
    main()
