"""
Patterns per second of a whole reconstruction by the shipped network, and of what comes before the overlap passes.

    python benchmarks/speed.py --backend pytorch

Every call meets a scan of its own, as at a beamline; the first, which is not counted, finds an engine that has just
started. Run it on an idle machine, and the engines in turn: figures of a shared one vary by a quarter. The probe is
known, so that nothing is refined.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from statistics import median

import ptycho_backend as pb
from ptycho_backend.engines.model import Model

SCANS = {64: 2048, 128: 1024}  # positions by N
HELD = pb.InferenceConfig(probe_iterations=0)
ALONE = dataclasses.replace(HELD, iterations=0)


def main() -> None:
    """Time both sizes and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--calls", type=int, default=3)
    options = parser.parse_args()
    print(f"{options.backend}, medians of {options.calls} calls\n")
    print("| patterns | per second | before the overlap passes | first call |")
    print("|---|---|---|---|")
    model = pb.load_model(None, options.backend)
    for N, positions in SCANS.items():
        scans = [pb.simulate_scan(N=N, n_positions=positions, seed=7 + k) for k in range(options.calls + 1)]
        rates = [[rate(scan, model, settings) for scan in scans] for settings in (HELD, ALONE)]
        whole, before = (median(of_one[1:]) for of_one in rates)
        print(f"| {positions} of {N}×{N} | {whole:.0f} | {before:.0f} | {rates[0][0]:.0f} |", flush=True)


def rate(scan: pb.Scan, model: Model, settings: pb.InferenceConfig) -> float:
    """Return the patterns per second of one call."""
    started = time.perf_counter()
    pb.reconstruct(scan, model, settings)
    return len(scan) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
