"""
Peak memory on large scans of 128×128 patterns stored as uint16.

    python benchmarks/memory.py train --backend pytorch                 # 20,000 patterns, one short epoch
    python benchmarks/memory.py reconstruct --patterns 100000           # command line, untrained network
    python benchmarks/memory.py without-network --patterns 100000       # without a network: faster

Samples the resident memory ten times a second. Anonymous memory (RssAnon) belongs to the process alone. File pages
(RssFile: libraries and mapped data) can be freed by the system at any time. The unmapped file cache does not count.
"""

from __future__ import annotations

import argparse
import logging
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from scans import periodic_scan

import ptycho_backend as pb
from ptycho_backend.engines.registry import get_backend
from ptycho_backend.model_file.run import Run
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.runtime.memory_map import scratch_folder
from ptycho_backend.runtime.progress import EventLog

N = 128
STEP_PX = 8.0
GIB = 2**30


def main() -> None:
    """Write the scan, process it, and print the peak memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", choices=("train", "reconstruct", "without-network"), default="train")
    parser.add_argument("--backend", default="pytorch")
    parser.add_argument("--patterns", type=int, default=20_000)
    parser.add_argument("--compression", default=None, help="of the HDF5 file, e.g. gzip; reconstruct only")
    parser.add_argument("--scan", help=argparse.SUPPRESS)  # scan of the measured process
    parser.add_argument("--iterations", type=int, default=1)
    parser.add_argument("--stop-after", type=float, default=None, metavar="SECONDS", help="send SIGINT after this time")
    options = parser.parse_args()
    if options.scan:
        return reconstruct_without_network(options.scan, options.iterations)
    with tempfile.TemporaryDirectory(dir=scratch_folder()) as folder:
        if options.task == "train":
            return train(Path(folder), options)
        scan = write_scan(Path(folder) / "large.h5", options.patterns, options.compression)
        command = network_command if options.task == "reconstruct" else command_without_network
        print(f"{scan.stat().st_size / GIB:.2f} GiB of data in {scan}", flush=True)
        measure(command(scan, options), options)


def train(folder: Path, options: argparse.Namespace) -> None:
    """Train one short epoch by the public function, with probe refinement."""
    scan = pb.load_scan(write_scan(folder / "large.h5", options.patterns))
    training = pb.TrainingConfig(
        model=pb.ModelConfig(N=N, n_filters_scale=1, unrolled_steps=2),
        backend=options.backend,
        nepochs=1,
        batch_size=16,
        n_groups=min(options.patterns, 2000),
        probe_iterations=1,
    )
    pb.train(scan, training)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{options.backend}: {options.patterns} patterns of {N}×{N} uint16, peak resident size {peak / GIB:.2f} GiB")


def network_command(scan: Path, options: argparse.Namespace) -> list[str]:
    """Return the command line of a reconstruction by a narrow, untrained network, compared with none."""
    model = write_model(scan.parent / "model", options.backend)
    iterations = f"--inference.iterations={options.iterations}"
    command = [sys.executable, "-m", "ptycho_backend.cli", "reconstruct", str(scan), "--model", str(model), iterations]
    return [*command, "--output", str(scan.parent / "image"), "--backend", options.backend]


def command_without_network(scan: Path, options: argparse.Namespace) -> list[str]:
    """Return the command line of this file for the measured process."""
    iterations = f"--iterations={options.iterations}"
    return [sys.executable, __file__, options.task, "--scan", str(scan), iterations]


def reconstruct_without_network(path: str, iterations: int) -> None:
    """Reconstruct a scan without a network, and log the progress."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    settings = pb.InferenceConfig(iterations=iterations, probe_iterations=0)
    image = pb.reconstruct(pb.load_scan(path), None, settings, EventLog(), device="cpu")
    print(f"image of {image.obj.shape}, median amplitude {np.median(np.abs(image.obj[image.coverage > 1])):.3f}")


def measure(command: list[str], options: argparse.Namespace) -> None:
    """Run a command and print its status, time and peak memory."""
    started = time.perf_counter()
    process = subprocess.Popen(command)
    peaks = peak_sizes(process, options.stop_after)
    print(f"status {process.returncode} after {time.perf_counter() - started:.0f} s")
    print(f"{options.patterns} patterns, {', '.join(f'{name} {peak / GIB:.2f} GiB' for name, peak in peaks.items())}")


def peak_sizes(process: subprocess.Popen[bytes], stop_after_s: float | None) -> dict[str, int]:
    """Return the peak resident sizes of a process, bytes: of each kind and of their sum."""
    peaks: dict[str, int] = {}
    status, started = Path(f"/proc/{process.pid}/status"), time.perf_counter()
    while process.poll() is None:
        if stop_after_s is not None and time.perf_counter() - started > stop_after_s:
            process.send_signal(signal.SIGINT)
            stop_after_s = None
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        for name in ("VmRSS", "RssAnon", "RssFile", "RssShmem", "VmHWM"):
            if name in lines:
                peaks[name] = max(peaks.get(name, 0), 1024 * int(lines[name].split()[0]))
        time.sleep(0.1)
    return peaks


def write_model(folder: Path, backend: str) -> Path:
    """Write a run with the narrowest network, untrained."""
    config = pb.ModelConfig(N=N, n_filters_scale=1, unrolled_steps=1, initial_iterations=0)
    training = pb.TrainingConfig(model=config, backend=backend)
    scan = pb.simulate_scan(N=N, n_positions=9)
    model = get_backend(backend).create_model(training, calibrate(scan, config))
    return Run(model, training, pb.ExecutionConfig(), [], "train_loss").save(folder)


def write_scan(path: Path, n: int, compression: str | None = None) -> Path:
    """Write a raster scan of a periodic object in the layout of ptychodus, in blocks."""
    raster = periodic_scan(n, N, STEP_PX)
    with h5py.File(path, "w") as file:
        chunks = (64, N, N) if compression else None
        patterns = file.create_dataset("patterns", (n, N, N), np.uint16, chunks=chunks, compression=compression)
        for start in range(0, n, 1024):
            patterns[start : start + 1024] = raster.counts[raster.cell[start : start + 1024]]
        file["probe"] = raster.probe
        # Coordinates of ptychodus begin at the middle of a window, half a pixel before pixel N//2.
        for axis, name in enumerate(("y", "x")):
            file[f"probe_position_{name}_px"] = raster.positions_px[:, axis] - 0.5
    return path


if __name__ == "__main__":
    main()
