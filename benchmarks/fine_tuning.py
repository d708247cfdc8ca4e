"""
Fine-tuning of the shipped network compared with training from scratch, which takes five times the epochs.

Each simulated scan is reconstructed by three networks: the shipped one, the shipped one trained on the scan, and a
new one trained on it. No training used these scans before. The table shows the stitched image alone and the image
after the default iterations.

    python benchmarks/fine_tuning.py --backend pytorch --scans 5
"""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import Any

from pretrained import ALONE, DIAMETERS, FIRST_SEED

import ptycho_backend as pb

FIXED_PROBE = {"probe_iterations": 0}  # the probe is exact: only the network differs between rows
SCORES = ("amplitude alone", "phase alone", "amplitude", "phase")
Row = dict[str, float]


def main() -> None:
    """Train, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--scans", type=int, default=5)
    parser.add_argument("--positions", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=10, help="from scratch; a fifth of them from the shipped network")
    options = parser.parse_args()
    results: dict[str, list[Row]] = {}
    for k in range(options.scans):
        diameter = DIAMETERS[k % len(DIAMETERS)]
        scan = pb.simulate_scan(seed=FIRST_SEED + k, n_positions=options.positions, diameter_fraction=diameter)
        for name, row in rows_of(scan, options):
            results.setdefault(name, []).append(row)
            print(f"scan {k}, {name}:", {key: round(value, 3) for key, value in row.items()}, flush=True)
    *_, longest = results
    print(f"\nMedians; in brackets: median difference from '{longest}' on the same scan.\n")
    print("| start, epochs | amplitude dB alone | phase dB alone | amplitude dB | phase dB | loss | s of training |")
    print("|---|---|---|---|---|---|---|")
    for name, rows in results.items():
        cells = [comparison(rows, results[longest], key) for key in SCORES]
        loss, seconds = (median(row[key] for row in rows) for key in ("loss", "seconds"))
        print(f"| {name} | {' | '.join(cells)} | {loss:.4f} | {seconds:.0f} |")


def comparison(rows: list[Row], others: list[Row], key: str) -> str:
    """Return a median, and the median difference from other rows."""
    difference = median(row[key] - other[key] for row, other in zip(rows, others, strict=True))
    return f"{median(row[key] for row in rows):.1f} ({difference:+.1f})"


def rows_of(scan: pb.Scan, options: argparse.Namespace) -> list[tuple[str, Row]]:
    """Return the figures of one scan for every start of training."""
    shipped = pb.load_model(None, options.backend)
    rows = [("shipped, 0", quality(scan, shipped) | {"loss": float("nan"), "seconds": 0.0})]
    fifth = max(1, options.epochs // 5)
    for start, epochs in (("pretrained", fifth), ("scratch", fifth), ("scratch", options.epochs)):
        started = time.perf_counter()
        run = pb.train(scan, configuration(scan, options.backend, start, epochs))
        seconds = time.perf_counter() - started
        loss = float(run.history[-1][run.model.val_loss_name])
        rows.append((f"{start}, {epochs}", quality(scan, run.model) | {"loss": loss, "seconds": seconds}))
    return rows


def configuration(scan: pb.Scan, backend: str, start: Any, epochs: int) -> pb.TrainingConfig:
    """Return the configuration to train the default network."""
    model = pb.ModelConfig(N=scan.N)
    return pb.TrainingConfig(model=model, backend=backend, start=start, nepochs=epochs, **FIXED_PROBE)


def quality(scan: pb.Scan, model: Any) -> Row:
    """Return the scores of the stitched image alone and of the image after the iterations."""
    images = (pb.reconstruct(scan, model, **FIXED_PROBE, **options) for options in (ALONE, {}))
    values = [
        (found.amplitude_psnr_db, found.phase_psnr_db) for found in (pb.evaluate(image, scan) for image in images)
    ]
    return dict(zip(SCORES, [*values[0], *values[1]], strict=True))


if __name__ == "__main__":
    main()
