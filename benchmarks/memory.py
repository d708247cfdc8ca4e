"""
Peak memory of training on a large scan: 20,000 patterns of 128×128 stored as uint16.

    python benchmarks/memory.py --backend pytorch

Trains one short epoch through the front door, probe refinement included, and prints the peak resident size.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
from pathlib import Path

import numpy as np

import ptycho_backend as pb
from ptycho_backend.data.probes import make_probe

N = 128


def main() -> None:
    """Write the scan, train on it, and print the peak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="pytorch")
    parser.add_argument("--patterns", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = write_scan(Path(folder) / "large.npz", options.patterns)
        scan = pb.load_scan(path)
        training = pb.TrainingConfig(
            model=pb.ModelConfig(N=N, n_filters_scale=1, unrolled_steps=2),
            backend=options.backend,
            nepochs=1,
            batch_size=16,
            n_groups=min(options.patterns, 2000),
            probe_refinement_passes=1,
        )
        pb.train(scan, training)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{options.backend}: {options.patterns} patterns of {N}×{N} uint16, peak resident size {peak:.2f} GiB")


def write_scan(path: Path, n: int) -> Path:
    """Write Poisson counts of the bare probe; what they show does not matter here."""
    rng = np.random.default_rng(0)
    probe = make_probe("disc", N, rng, diameter_fraction=0.3)
    few = rng.poisson(20.0, (64, N, N)).astype(np.uint16)
    patterns = np.tile(few, (-(-n // len(few)), 1, 1))[:n]
    side = int(np.ceil(np.sqrt(n)))
    y, x = np.divmod(np.arange(n), side)
    np.savez(path, diff3d=patterns, xcoords=x * 8.0, ycoords=y * 8.0, probeGuess=probe)
    return path


if __name__ == "__main__":
    main()
