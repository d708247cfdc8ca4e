"""
Quality of the shipped network, or of another one, on scans that are not in its training set.

For several kinds of simulated scans: no network, 20 iterations of ePIE, and the network. The tables show median and
worst PSNR of amplitude and phase, median FRC, and speed. "alone" is the stitched image before the iterations.

    python benchmarks/pretrained.py --backend pytorch --scans 20
    python benchmarks/pretrained.py runs/pretrained/model.h5.zip
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from epie import epie
from reconstruction import scored

import ptycho_backend as pb
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.pretraining.probes import defocused
from ptycho_backend.reconstruction import fit_to_scan

FIRST_SEED = 5000
EPIE_ITERATIONS = 20
OBJECTS = ("textures", "lines", "siemens")
PROBES = ("zone-plate", "gaussian")
DIAMETERS = (0.35, 0.25, 0.4)  # probe diameter relative to the window, by scan number modulo 3
ALONE = {"iterations": 0}
HALF_A_DEPTH_RAD = np.pi / 2  # phase at the pupil's edge for a defocus of half the depth of focus, λ/(2·NA²)
Row = dict[str, float]


def cases(positions: int) -> dict[str, Callable[[int], dict[str, Any]]]:
    """Return a function from scan number to simulation settings, for every case."""
    quarter = max(64, positions // 4)
    return {
        "exact probe, 1e6 photons": lambda k: {},
        "1e4 photons": lambda k: {"photons_per_pattern": 1e4},
        "probe 10 % too wide": lambda k: {"probe_error": 0.1},
        "half a depth of focus off": lambda k: {"focus_error_rad": HALF_A_DEPTH_RAD},
        "other objects": lambda k: {"object_name": OBJECTS[k % len(OBJECTS)]},
        "other probes": lambda k: {"probe_name": PROBES[k % len(PROBES)]},
        "N = 128": lambda k: {"N": 128, "n_positions": quarter},
        "N = 32": lambda k: {"N": 32},
    }


def main() -> None:
    """Run all cases and print a table for each."""
    options = arguments()
    models = {str(path): path for path in options.models} or {"network": None}
    loaded = {name: pb.load_model(path, options.backend) for name, path in models.items()}
    results = {}
    for case, fields in cases(options.positions).items():
        if options.only and case not in options.only:
            continue
        common = {"n_positions": options.positions}
        rows = [
            one_scan({"seed": FIRST_SEED + k, **common, **fields(k)}, loaded, options) for k in range(options.scans)
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
    parser.add_argument("--no-classical", action="store_true", help="omit the rows without a network")
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def one_scan(fields: dict[str, Any], models: dict[str, Any], options: argparse.Namespace) -> dict[str, Row]:
    """Return the rows of one scan."""
    focus = fields.pop("focus_error_rad", 0.0)
    scan = pb.simulate_scan(**{"diameter_fraction": DIAMETERS[fields["seed"] % len(DIAMETERS)], **fields})
    scan = dataclasses.replace(scan, probe=defocused(scan.probe, focus)) if focus else scan
    exact = not focus and "probe_error" not in fields
    rows = {} if options.no_classical else classical(scan, exact)
    for name, model in models.items():
        started = time.perf_counter()
        # All rows use one refinement of a wrong probe.
        fitted = fit_to_scan(model, scan, pb.InferenceConfig(probe_iterations=0 if exact else EPIE_ITERATIONS))
        refinement_s = time.perf_counter() - started
        settings = {"probe_iterations": 0}
        pb.reconstruct(scan.subset(slice(0, 64)), fitted, **settings)  # the first call compiles
        for label, more in ((f"{name} alone", ALONE), (name, {})):
            started = time.perf_counter()
            image = pb.reconstruct(scan, fitted, **settings, **more)
            rows[label] = scored(image, scan, started) | {"refinement_s": refinement_s}
        # The last image is the finished one; the seconds are those of ePIE alone.
        started = time.perf_counter()
        image = epie(scan, fitted.trained_calibration(), 2, start=image)
        rows[f"{name}, 2 iterations of ePIE"] = scored(image, scan, started) | {"refinement_s": refinement_s}
    return rows


def classical(scan: pb.Scan, exact: bool) -> dict[str, Row]:
    """Return the rows without a network; ePIE refines the probe only if it is wrong."""
    calibration = calibrate(scan, pb.ModelConfig(N=scan.N))
    rows = {}
    for name, settings in (("no network, alone", {"start": "physics", **ALONE}), ("no network", {})):
        started = time.perf_counter()
        rows[name] = scored(pb.reconstruct(scan, probe_iterations=0, **settings), scan, started)
    started = time.perf_counter()
    image = epie(scan, calibration, EPIE_ITERATIONS, update_probe=not exact)
    return rows | {f"ePIE, {EPIE_ITERATIONS} iterations": scored(image, scan, started)}


def print_table(case: str, rows: list[dict[str, Row]]) -> None:
    """Print medians and worst values as a Markdown table."""
    print(f"\n### {case}, {len(rows)} scans\n")
    print("| | amplitude dB, median (worst) | phase dB, median (worst) | FRC at 0.5 | patterns/s | refinement, s |")
    print("|---|---|---|---|---|---|")
    for name in rows[0]:
        values = {key: [row[name][key] for row in rows] for key in rows[0][name]}
        middle = {key: median(column) for key, column in values.items()}
        print(
            f"| {name} | {middle['amplitude_psnr_db']:.1f} ({min(values['amplitude_psnr_db']):.1f}) "
            f"| {middle['phase_psnr_db']:.1f} ({min(values['phase_psnr_db']):.1f}) "
            f"| {middle['frc_half']:.2f} | {middle['patterns_per_s']:.0f} "
            f"| {middle.get('refinement_s', 0.0):.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
