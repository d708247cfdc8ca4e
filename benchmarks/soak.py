"""
Soak test: trainings, reconstructions, kills and resumes in a loop, with counts at the end (docs/reliability.md).

    python benchmarks/soak.py --rounds 10 --minutes 15

Every round simulates a scan, trains on it with the command, kills the training at a random time, resumes it, and
reconstructs the scan with the model. A round fails if a command ends with an unexpected status or a traceback, if a
model or an image cannot be read, or if a temporary file stays.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

import ptycho_backend as pb

COMMAND = [sys.executable, "-m", "ptycho_backend"]
SECONDS = 300  # of one command
RESUMED = ["--resume"]
SMALL = ["--training.nepochs", "3", "--training.batch_size", "8", "--training.probe_iterations", "0"]


def main() -> int:
    """Run rounds until their number or the time is reached; exit status 1 if one failed."""
    parser = argparse.ArgumentParser(description="Train, kill, resume and reconstruct in a loop.")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    failures: list[str] = []
    end = time.monotonic() + 60 * options.minutes
    memory = []
    for number in range(options.rounds):
        if time.monotonic() > end:
            break
        counts["rounds"] += 1
        with tempfile.TemporaryDirectory() as folder:
            failures += one_round(Path(folder), np.random.default_rng([options.seed, number]), counts)
        memory.append(resident_mib())
    report(counts, failures, memory)
    return 1 if failures else 0


def one_round(folder: Path, rng: np.random.Generator, counts: Counter[str]) -> list[str]:
    """Train, kill, resume and reconstruct once; return what failed."""
    scan = pb.simulate_scan(N=32, n_positions=64, seed=int(rng.integers(1000)), photons_per_pattern=1e5)
    file, run = pb.write_npz(scan, folder / "scan.npz"), folder / "run"
    failures: list[str] = []
    engine = str(rng.choice(pb.available_backends()))
    train = ["train", str(file), "--output", str(run), "--training.backend", engine, "--quiet"]
    killed = kill(train + SMALL, float(rng.uniform(2.0, 25.0)), rng, counts)
    failures += check_files(folder, counts)
    if killed and any(run.glob("checkpoints/*")):
        counts["resumes"] += 1
        status, message = finish(["train", str(file), "--output", str(run), "--quiet", *RESUMED])
    elif killed:
        counts["restarts"] += 1
        status, message = finish([*train, *SMALL, "--overwrite"])
    else:
        status, message = 0, ""
    if status:
        return [*failures, f"training: status {status}, {message[-300:]}"]
    counts["trainings"] += 1
    return failures + reconstruct(file, run, folder / "image", scan, counts)


def reconstruct(file: Path, run: Path, output: Path, scan: pb.Scan, counts: Counter[str]) -> list[str]:
    """Reconstruct with the command and in this process; return what failed."""
    status, message = finish(["reconstruct", str(file), "--model", str(run), "--output", str(output), "--quiet"])
    if status:
        return [f"reconstruction: status {status}, {message[-300:]}"]
    counts["reconstructions"] += 2
    images = pb.load_image(output), pb.reconstruct(scan, iterations=5, probe_iterations=0)
    failures = ["an image is not finite" for image in images if not np.isfinite(image.obj).all()]
    leftovers = [item.name for item in output.rglob("*.tmp")]
    return failures + [f"temporary files stay: {', '.join(leftovers)}" for _ in leftovers[:1]]


def kill(arguments: list[str], seconds: float, rng: np.random.Generator, counts: Counter[str]) -> bool:
    """Start a command and stop it after some time with SIGKILL, SIGTERM or SIGINT; False if it ended before."""
    process = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        process.communicate(timeout=seconds)
        return process.returncode != 0
    except subprocess.TimeoutExpired:
        number = int(rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        counts[f"kills by {signal.Signals(number).name}"] += 1
        process.send_signal(number)
        process.communicate(timeout=SECONDS)
        return True


def check_files(folder: Path, counts: Counter[str]) -> list[str]:
    """Read every model that a kill left; each must be whole."""
    failures = []
    for path in folder.rglob("*.zip"):
        counts["models read after a kill"] += 1
        try:
            pb.load_model(path)
        except pb.PtychoError as error:
            failures.append(f"after a kill: {error.received}")
    return failures


def finish(arguments: list[str]) -> tuple[int, str]:
    """Run a command to its end; return its status and messages. A traceback counts as a failure."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=SECONDS, check=False)
    return done.returncode or int("Traceback" in done.stderr), done.stderr


def resident_mib() -> float:
    """Return the resident memory of this process, MiB; 0 where the system does not say it."""
    path = Path("/proc/self/statm")
    return int(path.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20 if path.exists() else 0.0


def report(counts: Counter[str], failures: list[str], memory: list[float]) -> None:
    """Print the counts, the growth of the memory, and the failures."""
    print(f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}")
    for name, number in sorted(counts.items()):
        print(f"{name}: {number}")
    if len(memory) > 2:
        print(f"memory of the loop: {memory[1]:.0f} MiB after round 2, {memory[-1]:.0f} MiB at the end")
    print(f"failures: {len(failures)}")
    for failure in failures:
        print(f"  {failure}")


if __name__ == "__main__":
    sys.exit(main())
