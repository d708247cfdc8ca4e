"""
Patterns per second of a whole reconstruction by the shipped network, and of what comes before the overlap passes.

    python benchmarks/speed.py --backend pytorch

Run it on an idle machine, and the engines in turn: figures of a shared one vary by a quarter. The probe is known, so
that nothing is refined.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from statistics import median

import ptycho_backend as pb
from ptycho_backend.contract import Model
from ptycho_backend.core.inference import fit_to_scan

SCANS = {64: 2048, 128: 1024}  # positions by N
HELD = pb.InferenceConfig(probe_refinement_passes=0)
ALONE = dataclasses.replace(HELD, overlap_passes=0)


def main() -> None:
    """Time both sizes and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--calls", type=int, default=3)
    options = parser.parse_args()
    print(f"{options.backend}, medians of {options.calls} calls\n")
    print("| patterns | per second | before the overlap passes |")
    print("|---|---|---|")
    for N, positions in SCANS.items():
        scan = pb.simulate_scan(N=N, n_positions=positions, seed=7)
        model = fit_to_scan(pb.load_model(None, options.backend), scan, HELD)
        pb.reconstruct(scan, model, ALONE)  # the first call compiles
        whole, before = (median(rates(scan, model, settings, options.calls)) for settings in (HELD, ALONE))
        print(f"| {positions} of {N}×{N} | {whole:.0f} | {before:.0f} |", flush=True)


def rates(scan: pb.Scan, model: Model, settings: pb.InferenceConfig, calls: int) -> list[float]:
    """Return the patterns per second of every call."""
    found = []
    for _ in range(calls):
        started = time.perf_counter()
        pb.reconstruct(scan, model, settings)
        found.append(len(scan) / (time.perf_counter() - started))
    return found


if __name__ == "__main__":
    main()
