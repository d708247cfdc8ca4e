"""
Patterns per second of a reconstruction by the shipped network, with and without the iterations.

    python benchmarks/speed.py --backend pytorch

Every call uses a new scan, as at a beamline. The first call includes the start of the engine and is listed
separately. Use an idle machine and run one engine at a time: on a shared machine, figures vary by a quarter.
The probe is exact and is not refined.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from statistics import median

import ptycho_backend as pb
from ptycho_backend.engines.model import Model

SCANS = {64: 2048, 128: 1024}  # positions by N
FULL = pb.InferenceConfig(probe_iterations=0)
ALONE = dataclasses.replace(FULL, iterations=0)


def main() -> None:
    """Time both sizes and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--calls", type=int, default=3)
    options = parser.parse_args()
    print(f"{options.backend}, medians of {options.calls} calls\n")
    print("| patterns | per second | without iterations | first call |")
    print("|---|---|---|---|")
    model = pb.load_model(None, options.backend)
    for N, positions in SCANS.items():
        scans = [pb.simulate_scan(N=N, n_positions=positions, seed=7 + k) for k in range(options.calls + 1)]
        rates = [[rate(scan, model, settings) for scan in scans] for settings in (FULL, ALONE)]
        full, alone = (median(calls[1:]) for calls in rates)
        print(f"| {positions} of {N}×{N} | {full:.0f} | {alone:.0f} | {rates[0][0]:.0f} |", flush=True)


def rate(scan: pb.Scan, model: Model, settings: pb.InferenceConfig) -> float:
    """Return the patterns per second of one call."""
    started = time.perf_counter()
    pb.reconstruct(scan, model, settings)
    return len(scan) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
