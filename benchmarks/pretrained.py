"""
How well a pretrained network reconstructs scans that no training saw.

Simulated scans in several cases, and for each the estimate without a network, 20 passes of ePIE, and every model file:
median and worst amplitude and phase PSNR, median FRC and time.

    python benchmarks/pretrained.py runs/pretrained/model.h5.zip --scans 20
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import ptycho_backend as pb
from ptycho_backend.baseline import baseline_image
from ptycho_backend.core.calibration import calibrate
from ptycho_backend.core.epie import Plan, epie

FIRST_SEED = 5000
PASSES = 20
OBJECTS = ("textures", "lines", "siemens")
PROBES = ("zone-plate", "gaussian")
Row = dict[str, float]


def cases(positions: int) -> dict[str, Callable[[int], dict[str, Any]]]:
    """Return what to simulate, by case and number of the scan."""
    quarter = max(64, positions // 4)
    return {
        "exact probe, 1e6 photons": lambda k: {},
        "1e4 photons": lambda k: {"photons_per_pattern": 1e4},
        "probe 10 % too wide": lambda k: {"probe_error": 0.1},
        "other objects": lambda k: {"object_name": OBJECTS[k % len(OBJECTS)]},
        "other probes": lambda k: {"probe_name": PROBES[k % len(PROBES)]},
        "N = 128": lambda k: {"N": 128, "n_positions": quarter},
        "N = 32": lambda k: {"N": 32},
    }


def main() -> None:
    """Run all cases and print a table for each."""
    options = arguments()
    models = {path.parent.name if path.name == "model.h5.zip" else path.stem: path for path in options.models}
    loaded = {name: pb.load_model(path, options.backend) for name, path in models.items()}
    results = {}
    for case, fields in cases(options.positions).items():
        if options.only and case not in options.only:
            continue
        scans = range(options.scans)
        rows = [
            one_scan({"seed": FIRST_SEED + k, "n_positions": options.positions, **fields(k)}, loaded, options)
            for k in scans
        ]
        results[case] = rows
        print_table(case, rows)
        if options.output:
            options.output.write_text(json.dumps(results, indent=1), encoding="utf-8")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="*")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--scans", type=int, default=20)
    parser.add_argument("--positions", type=int, default=1024)
    parser.add_argument("--only", nargs="*", help="cases by name")
    parser.add_argument("--no-classical", action="store_true", help="leave out the rows that need no network")
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def one_scan(fields: dict[str, Any], models: dict[str, Any], options: argparse.Namespace) -> dict[str, Row]:
    """Return the rows of one scan."""
    # Every third probe is as in the other benchmark, the others are smaller or larger.
    scan = pb.simulate_scan(**{"diameter_fraction": (0.35, 0.25, 0.4)[fields["seed"] % 3], **fields})
    rows = {} if options.no_classical else classical(scan, update_probe="probe_error" in fields)
    for name, model in models.items():
        pb.reconstruct(scan.subset(slice(0, 64)), model)  # the first call compiles
        started = time.perf_counter()
        rows[name] = scored(pb.reconstruct(scan, model), scan, started)
    return rows


def classical(scan: pb.Scan, update_probe: bool) -> dict[str, Row]:
    """Return the rows without a network; ePIE refines the probe only where it is wrong."""
    calibration = calibrate(scan, pb.ModelConfig(N=scan.N))
    started = time.perf_counter()
    rows = {"no network": scored(baseline_image(scan, calibration), scan, started)}
    started = time.perf_counter()
    image = epie(scan, calibration, Plan(PASSES, update_probe), np.random.default_rng(0)).image
    return rows | {f"ePIE, {PASSES} passes": scored(image, scan, started)}


def scored(image: pb.Image, scan: pb.Scan, started: float) -> Row:
    """Return the figures of an image, with its patterns per second since `started`."""
    rate = len(scan) / (time.perf_counter() - started)
    result = pb.evaluate(image, scan)
    return {
        "amplitude": result.amplitude_psnr_db,
        "phase": result.phase_psnr_db,
        "frc": result.frc_half,
        "patterns_per_s": rate,
    }


def print_table(case: str, rows: list[dict[str, Row]]) -> None:
    """Print medians, and the worst scan, as Markdown."""
    print(f"\n### {case}, {len(rows)} scans\n")
    print("| | amplitude dB, median (worst) | phase dB, median (worst) | FRC at 0.5 | patterns/s |")
    print("|---|---|---|---|---|")
    for name in rows[0]:
        values = {key: [row[name][key] for row in rows] for key in rows[0][name]}
        middle = {key: median(column) for key, column in values.items()}
        print(
            f"| {name} | {middle['amplitude']:.1f} ({min(values['amplitude']):.1f}) "
            f"| {middle['phase']:.1f} ({min(values['phase']):.1f}) "
            f"| {middle['frc']:.2f} | {middle['patterns_per_s']:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
