"""
Convergence of the solver over the size of the scan, with and without coarse correction.

    python benchmarks/scaling.py                     # simulated here: photographs, a disc, 1e6 photons
    python benchmarks/scaling.py --data FOLDER       # all NPZ files of a folder, with known objects

The solver starts from a flat object, with the probe of the scan and the NumPy kernels. "coarse" is the default:
coarse corrections, and iterations until convergence. "plain" has 64 iterations without coarse corrections.
Times are those of the solver alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from timing import Clock, machine, markdown_head, markdown_row, timed

import ptycho_backend as pb
from ptycho_backend.engines.numpy.solver import NumpyKernels
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.solver import SolverOptions, solve

POSITIONS = (500, 2000, 8000)
# Photographs have slow phases, which plain iterations leave unfinished.
SIMULATED = {"object_name": "photographs", "phase_range_rad": 2.0, "diameter_fraction": 0.375, "step_px": 6.0}
SETTINGS = {"coarse": SolverOptions(), "plain": SolverOptions(64, coarse=False)}
COLUMNS = ("positions", "solver", "iterations", "amplitude dB", "phase dB", "wall s", "CPU s", "CPU ms per pattern")


@dataclass(frozen=True)
class Run:
    """
    Figures of one reconstruction.

    Parameters
    ----------
    iterations : int
    amplitude_db, phase_db : float
        PSNR against the known object.
    times : Clock
    """

    iterations: int
    amplitude_db: float
    phase_db: float
    times: Clock


def main() -> None:
    """Print one row for each scan and setting."""
    options = arguments()
    print(f"median of {options.repeat}; {machine()}\n\n{markdown_head(COLUMNS)}")
    for scan in scans(options):
        for name in options.solver:
            runs = [reconstruct(scan, SETTINGS[name]) for _ in range(options.repeat)]
            print(markdown_row(row(scan, name, runs)), flush=True)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--positions", nargs="+", type=int, default=POSITIONS, help="sizes of simulated scans")
    parser.add_argument("--seed", type=int, default=301)
    parser.add_argument("--data", type=Path, help="folder of NPZ files in place of simulated scans")
    parser.add_argument("--solver", nargs="+", choices=tuple(SETTINGS), default=tuple(SETTINGS))
    parser.add_argument("--repeat", type=int, default=3)
    return parser.parse_args()


def scans(options: argparse.Namespace) -> Iterator[pb.Scan]:
    """Yield the scans, the smallest first."""
    if options.data is None:
        for n in sorted(options.positions):
            yield pb.simulate_scan(n_positions=n, seed=options.seed, **SIMULATED)
    else:
        # Patterns of an NPZ are read into memory, so the size of the file is that of the scan.
        for path in sorted(options.data.glob("*.npz"), key=lambda path: path.stat().st_size):
            yield pb.load_scan(path)


def reconstruct(scan: pb.Scan, settings: SolverOptions) -> Run:
    """Run the solver from a flat object and compare the image with the known object."""
    problem = Problem.of(scan, calibrate(scan, pb.ModelConfig(N=scan.N)))
    solution, times = timed(lambda: solve(problem, NumpyKernels(), None, settings))
    quality = pb.evaluate(solution.image, scan)
    return Run(len(solution.errors), quality.amplitude_psnr_db, quality.phase_psnr_db, times)


def row(scan: pb.Scan, name: str, runs: list[Run]) -> tuple[object, ...]:
    """Return the cells of one row: medians of the runs."""
    wall_s, cpu_s = median(run.times.wall_s for run in runs), median(run.times.cpu_s for run in runs)
    quality = (f"{median(run.amplitude_db for run in runs):.1f}", f"{median(run.phase_db for run in runs):.1f}")
    times = (f"{wall_s:.2f}", f"{cpu_s:.2f}", f"{1e3 * cpu_s / len(scan):.2f}")
    return (len(scan), name, runs[0].iterations, *quality, *times)


if __name__ == "__main__":
    main()
