"""
PyTorch engine on a GPU: correctness, speed beside the memory bandwidth, and memory, in one JSON file.

    python benchmarks/gpu.py                               # under 6 minutes; writes docs/measurements/gpu.json
    python benchmarks/gpu.py --device cpu --small          # rehearsal without a GPU, prints the JSON

It needs no TensorFlow. The file is written after every section. Cases that do not fit in the time limit are listed
as skipped. Use an idle machine.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from scans import periodic_scan
from timing import machine, save_json, timed
from training_step import Case, measure

import ptycho_backend as pb
from ptycho_backend.engines.registry import get_backend
from ptycho_backend.engines.solver_contract import SolverKernels
from ptycho_backend.errors import first_line
from ptycho_backend.events import Event, StageEvent
from ptycho_backend.model_file.run import core_versions
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.solver.coarse_correction import coarse_correction
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.solver import STAGE, SolverOptions, solve
from ptycho_backend.testing.checks import Check, EngineUnderTest
from ptycho_backend.testing.checks.kernels import CHECKS

OUTPUT = Path(__file__).parents[1] / "docs" / "measurements" / "gpu.json"
BYTES_PER_PIXEL = 160  # moved by one iteration for each detector pixel and mode
STEP_OF_N, JITTER = 1 / 8, 0.2  # of the scans: 58 % overlap of a disc of 0.3·N
WARMUP_ITERATIONS = 2
COMPILED_S, STEPS_S = 75.0, 15.0  # time that a training case may take, with and without compilation


@dataclass(frozen=True)
class Sizes:
    """
    Amount of work of each section.

    Parameters
    ----------
    patterns : dict of int to int
        Patterns of the iteration speed, by side N.
    iterations : int
    copied_bytes : int
    whole_patterns, cpu_patterns : int
        Patterns of 128×128 of the whole reconstruction, and those of its run on the processor.
    batch_size, steps, warmup : int
        Training steps.
    predicted : int
        Patterns of 64×64 that the shipped network predicts.
    seconds : float
        Time limit.
    """

    patterns: dict[int, int]
    iterations: int
    copied_bytes: int
    whole_patterns: int
    cpu_patterns: int
    batch_size: int
    steps: int
    warmup: int
    predicted: int
    seconds: float


FULL = Sizes({64: 65536, 128: 16384, 256: 4096}, 20, 2**31, 20_000, 2_000, 64, 40, 8, 16_384, 330.0)
SMALL = Sizes({64: 256, 128: 64, 256: 16}, 4, 2**26, 144, 72, 4, 4, 2, 64, 100.0)


@dataclass(frozen=True)
class Bench:
    """Device under test, sizes, and the end of the time limit on the clock of `time.perf_counter`."""

    device: str
    sizes: Sizes
    deadline_s: float

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.startswith("cuda")

    def has(self, seconds: float) -> bool:
        """Return whether this time is left."""
        return time.perf_counter() + seconds <= self.deadline_s

    def kernels(self) -> SolverKernels:
        """Return new PyTorch kernels on the device."""
        return get_backend("pytorch").solver_kernels(self.device)


def main() -> None:
    """Run all sections, and write or print the JSON."""
    options = arguments()
    sizes = SMALL if options.small else FULL
    output = options.output or (None if options.small else OUTPUT)
    engine = EngineUnderTest.of(get_backend("pytorch"), options.device)
    bench = Bench(engine.device, sizes, time.perf_counter() + sizes.seconds)
    report: dict[str, Any] = environment(bench)
    for name, section in SECTIONS.items():
        release(bench)
        report[name], times = timed(lambda section=section: section(bench))
        report["section_seconds"][name] = times.wall_s
        print(f"{name}: {times.wall_s:.1f} s", flush=True)
        if output is not None:
            save_json(output, report)
    print(json.dumps(report, indent=2, default=str) if output is None else f"written to {output}")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help='"cuda", "cuda:<index>" or "cpu"')
    parser.add_argument("--small", action="store_true", help="little work: a rehearsal, its figures mean nothing")
    parser.add_argument("--output", type=Path, help="JSON file; default docs/measurements/gpu.json, none with --small")
    return parser.parse_args()


def environment(bench: Bench) -> dict[str, Any]:
    """Return device, machine, versions, date and sizes."""
    import torch

    name = torch.cuda.get_device_name(bench.device) if bench.on_gpu else machine()["processor"]
    memory = torch.cuda.get_device_properties(bench.device).total_memory if bench.on_gpu else None
    versions = {**core_versions(), **get_backend("pytorch").versions(), "cuda": torch.version.cuda}
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": {"device": bench.device, "name": name, "memory_bytes": memory},
        "machine": machine(),
        "versions": versions,
        "rehearsal": bench.sizes is SMALL,
        "sizes": asdict(bench.sizes),
        "section_seconds": {},
    }


def parity(bench: Bench) -> dict[str, Any]:
    """Compare the kernels on the device with the float64 oracle."""
    engine = EngineUnderTest.of(get_backend("pytorch"), bench.device)
    rows = [check_row(check, engine) for check in CHECKS]
    return {"passed": all(row["passed"] for row in rows), "checks": rows}


def check_row(check: Check, engine: EngineUnderTest) -> dict[str, Any]:
    """Return the result of one check; a check that raises an error does not pass."""
    row: dict[str, Any] = {"clause": check.clause, "check": check.name}
    try:
        result = check.run(engine, np.random.default_rng(0))
    except Exception as problem:  # an error of one check must not end the others
        return {**row, "passed": False, "message": f"{type(problem).__name__}: {first_line(problem)}"}
    return {**row, "passed": result.passed, "error": result.error, "tolerance": result.tolerance.relative}


def bandwidth(bench: Bench) -> dict[str, float]:
    """Measure a copy from device memory to device memory; read and written bytes both count."""
    import torch

    source = torch.ones(bench.sizes.copied_bytes // 4, device=bench.device)
    target = torch.empty_like(source)
    seconds = []
    for _ in range(12):
        synchronize(bench)
        started = time.perf_counter()
        target.copy_(source)
        synchronize(bench)
        seconds.append(time.perf_counter() - started)
    return {"bytes_per_s": copied_per_second(bench.sizes.copied_bytes, median(seconds[2:]))}


def copied_per_second(n_bytes: int, seconds: float) -> float:
    """Return the bandwidth of a copy of `n_bytes`, which are read and written, bytes per second."""
    return 2 * n_bytes / seconds


def floor_rate(bytes_per_s: float, N: int, modes: int = 1) -> float:
    """Return the patterns × iterations per second that the bandwidth allows."""
    return bytes_per_s / (BYTES_PER_PIXEL * N**2 * modes)


def iterations(bench: Bench) -> list[dict[str, Any]]:
    """Measure patterns × iterations per second for every side, beside the bandwidth measured just before."""
    bytes_per_s = bandwidth(bench)["bytes_per_s"]
    return [iteration_row(bench, N, n, bytes_per_s) for N, n in bench.sizes.patterns.items()]


def iteration_row(bench: Bench, N: int, patterns: int, bytes_per_s: float) -> dict[str, Any]:
    """Measure the iterations of one side, and one coarse correction."""
    release(bench)
    problem, kernels = problem_of(patterns, N), bench.kernels()
    seconds = iteration_seconds(problem, kernels, bench.sizes.iterations)
    probe, obj = (kernels.from_numpy(each) for each in (problem.calibration.probe, problem.geometry.canvas(None)))
    slopes, slopes_times = timed(lambda: kernels.phase_slopes(obj, probe))
    _, fit_times = timed(lambda: coarse_correction(slopes, problem.geometry.canvas_shape, N))
    rate, floor = patterns / median(seconds), floor_rate(bytes_per_s, N, len(problem.calibration.probe))
    return {
        "N": N,
        "patterns": patterns,
        "iteration_s": median(seconds),
        "patterns_iterations_per_s": rate,
        "bandwidth_floor_per_s": floor,
        "share_of_floor": rate / floor,
        "phase_slopes_s": slopes_times.wall_s,
        "coarse_fit_s": fit_times.wall_s,
        **peak_memory(bench),
    }


def iteration_seconds(problem: Problem, kernels: SolverKernels, n: int) -> list[float]:
    """Return the times of `n` iterations of the solver, after a warm-up; every iteration ends with a number."""
    ends: list[float] = []

    def on_event(event: Event) -> None:
        if is_iteration(event):
            ends.append(time.perf_counter())

    solve(problem, kernels, None, SolverOptions(WARMUP_ITERATIONS + n, coarse=False), on_event)
    return list(np.diff(ends)[WARMUP_ITERATIONS - 1 :])


def whole(bench: Bench) -> dict[str, Any]:
    """Time `pb.reconstruct` from a flat object to the image, and the same for fewer patterns on the processor."""
    sizes, scan = bench.sizes, scan_of(bench.sizes.whole_patterns, 128)
    reconstruct(scan_of(64, 128), bench.device, 3)  # plans of the FFTs
    on_device = reconstruct(scan, bench.device)
    memory = peak_memory(bench)
    on_cpu = reconstruct(scan_of(sizes.cpu_patterns, 128), "cpu", on_device["iterations"])
    scaled_s = scaled_seconds(on_cpu["seconds"], sizes.cpu_patterns, sizes.whole_patterns)
    return {
        "note": "pb.reconstruct from a flat object, without probe refinement; the scan is in memory. The processor "
        "computes the same number of iterations on fewer patterns, and its time is scaled by patterns.",
        "N": 128,
        "device": on_device,
        "cpu": on_cpu,
        "cpu_scaled_s": scaled_s,
        "speedup": scaled_s / on_device["seconds"],
        **memory,
    }


def reconstruct(scan: pb.Scan, device: str, iterations: int | None = None) -> dict[str, Any]:
    """Reconstruct a scan on a device; return time, number of iterations and last message of the solver."""
    events: list[StageEvent] = []

    def on_event(event: Event) -> None:
        if is_iteration(event):
            events.append(event)

    settings = pb.InferenceConfig(iterations=iterations, probe_iterations=0)
    image, times = timed(lambda: pb.reconstruct(scan, None, settings, on_event, "pytorch", device))
    return {
        "patterns": len(scan),
        "seconds": times.wall_s,
        "iterations": len(events),
        "last_iteration": events[-1].message,
        "finite": bool(np.isfinite(image.obj).all()),
    }


def scaled_seconds(seconds: float, patterns: int, wanted: int) -> float:
    """Return the time for `wanted` patterns from that for `patterns`, in proportion."""
    return seconds * wanted / patterns


def training(bench: Bench) -> list[dict[str, Any]]:
    """Time training steps of both networks; compiled ones last, because they take long."""
    return [training_row(bench, case) for case in training_cases(bench.device, bench.sizes.batch_size)]


def training_cases(device: str, batch_size: int) -> Iterator[Case]:
    """Yield all cases: without and with compilation, by precision and network."""
    for compiled, precision, network in itertools.product((False, True), ("32-true", "bf16-mixed"), ("unet", "cnn")):
        yield Case(network, 64, precision, batch_size, "pytorch", device, compiled)


def training_row(bench: Bench, case: Case) -> dict[str, Any]:
    """Return the times of a case, or "skipped" without enough time."""
    release(bench)
    row = {name: getattr(case, name) for name in ("architecture", "N", "precision", "compile", "batch_size")}
    if not bench.has(COMPILED_S if case.compile else STEPS_S):
        return {**row, "skipped": "time limit"}
    return {**row, **asdict(measure(case, bench.sizes.steps, bench.sizes.warmup)), **peak_memory(bench)}


def inference(bench: Bench) -> list[dict[str, Any]]:
    """Measure patterns per second of the shipped network: batches from the scan to patches in memory."""
    scan = scan_of(bench.sizes.predicted, 64)
    return [inference_row(bench, scan, precision) for precision in ("32-true", "bf16-mixed")]


def inference_row(bench: Bench, scan: pb.Scan, precision: str) -> dict[str, Any]:
    """Measure one precision, after one batch as warm-up."""
    from ptycho_backend.data.batching import Samples
    from ptycho_backend.data.grouping import group_positions

    release(bench)
    model = pb.load_model(None, "pytorch", pb.ExecutionConfig(device=bench.device, precision=precision))
    model = model.with_calibration(calibrate(scan, model.config), 1)
    groups = group_positions(scan.positions_px, 1, 7, None, np.random.default_rng(0))
    samples, size = Samples(scan, groups, model.calibration), 4 * bench.sizes.batch_size
    model.predict_patches(samples.batch(slice(0, size)))
    batches = (samples.batch(slice(start, start + size)) for start in range(0, len(scan), size))
    predicted, times = timed(lambda: sum(len(patches) for patches in model.predictions(batches, True)))
    return {
        "precision": precision,
        "patterns": predicted,
        "batch_size": size,
        "patterns_per_s": predicted / times.wall_s,
        **peak_memory(bench),
    }


def is_iteration(event: Event) -> bool:
    """Return whether an event ends an iteration of the solver; events inside an iteration have no image."""
    return isinstance(event, StageEvent) and event.stage == STAGE and event.image is not None


def scan_of(patterns: int, N: int) -> pb.Scan:
    """Return a simulated scan with its exact probe."""
    return periodic_scan(patterns, N, N * STEP_OF_N, JITTER).scan()


def problem_of(patterns: int, N: int) -> Problem:
    """Return the problem of a simulated scan."""
    scan = scan_of(patterns, N)
    return Problem.of(scan, calibrate(scan, pb.ModelConfig(N=N)))


def peak_memory(bench: Bench) -> dict[str, int]:
    """Return the largest memory since :func:`release` on a GPU, and of the whole process on a processor."""
    import torch

    if bench.on_gpu:
        return {"peak_device_bytes": torch.cuda.max_memory_allocated(bench.device)}
    return {"peak_process_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def release(bench: Bench) -> None:
    """Free unused memory of the device and start a new peak."""
    import torch

    gc.collect()
    if bench.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(bench.device)


def synchronize(bench: Bench) -> None:
    """Wait for the device."""
    import torch

    if bench.on_gpu:
        torch.cuda.synchronize(bench.device)


SECTIONS: dict[str, Callable[[Bench], Any]] = {
    "parity": parity,
    "bandwidth": bandwidth,
    "iterations": iterations,
    "whole_reconstruction": whole,
    "inference": inference,
    "training": training,
}


if __name__ == "__main__":
    main()
