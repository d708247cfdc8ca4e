"""
Time to stitch: proportional to the number of patches, independent of the canvas.

    python benchmarks/stitching.py
"""

from __future__ import annotations

import time
from statistics import median

import numpy as np

from ptycho_backend.physics.calibration import probe_weight
from ptycho_backend.simulation.probes import make_probe
from ptycho_backend.solver.stitching import stitch


def main() -> None:
    """Print the median of five runs for several numbers of patches and canvas sides."""
    rng = np.random.default_rng(0)
    weight = probe_weight(make_probe("disc", 64, rng, diameter_fraction=0.35))
    print("| patches of 64×64 | canvas | seconds |\n|---|---|---|")
    for patches, side in ((1024, 400), (2048, 400), (4096, 400), (4096, 800), (4096, 1600), (8192, 400)):
        stack = np.exp(1j * rng.normal(size=(patches, 64, 64))).astype(np.complex64)
        positions = rng.uniform(0, side - 65, (patches, 2))
        print(f"| {patches} | {side}×{side} | {median(seconds(stack, positions, weight) for _ in range(5)):.3f} |")


def seconds(stack: np.ndarray, positions: np.ndarray, weight: np.ndarray) -> float:
    """Return the time to stitch once, seconds."""
    started = time.perf_counter()
    stitch(stack, positions, weight)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
