"""
Quality and time of all reconstruction methods, in one table.

For each seed a scan is simulated: 64×64 pixels, 1024 positions, 1e6 photons per pattern. The methods: the estimate
without a network, ePIE, a network trained on the scan, and this network followed by ePIE. The trained network then
reconstructs a second scan, with another object and another probe, at 1e6 and at 1e4 photons.

    python benchmarks/reconstruction.py --backend pytorch --seeds 10 --output results.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median

from epie import epie

import ptycho_backend as pb
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.solver.initial_estimate import baseline_image

POSITIONS = 1024
OTHER = {"diameter_fraction": 0.3, "probe_name": "disc"}
EPIE_ITERATIONS = (5, 10, 20, 40)
REFINEMENT_ITERATIONS = (1, 2, 5)  # of ePIE after a network


def main() -> None:
    """Run all seeds and print the medians."""
    options = arguments()
    runs = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        runs.append(one_seed(seed, options))
        print_table([runs[-1]], f"seed {seed}")
        if options.output:
            options.output.write_text(json.dumps(runs, indent=1), encoding="utf-8")
    if len(runs) > 1:
        print_table(runs, f"median of {len(runs)} seeds, {options.backend}")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="pytorch")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=18)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--no-classical", action="store_true", help="omit the rows without an engine")
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def one_seed(seed: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return the rows of one seed."""
    scan = pb.simulate_scan(seed=seed, n_positions=POSITIONS)
    rows: dict[str, dict[str, float]] = {}
    if not options.no_classical:
        rows |= classical(scan, "")
    training = pb.TrainingConfig(
        model=pb.ModelConfig(N=scan.N),
        backend=options.backend,
        nepochs=options.epochs,
        seed=seed,
        probe_iterations=0,  # the scan contains the exact probe
    )
    started = time.perf_counter()
    run = pb.train(scan, training, pb.ExecutionConfig(precision=options.precision))
    rows["trained network"] = network_row(scan, run.model, time.perf_counter() - started, run.summary)
    rows |= refined(scan, run.model, "trained network")
    for photons in (1e6, 1e4):
        other = pb.simulate_scan(seed=1000 + seed, n_positions=POSITIONS, photons_per_pattern=photons, **OTHER)
        label = f"other scan, {photons:.0e}: "
        if not options.no_classical:
            rows |= classical(other, label, iterations=(20,) if photons < 1e6 else EPIE_ITERATIONS)
        rows[f"{label}untrained network"] = network_row(other, run.model, 0.0, {})
        rows |= refined(other, run.model, f"{label}untrained network")
    return rows


def classical(scan: pb.Scan, label: str, iterations: tuple[int, ...] = EPIE_ITERATIONS) -> dict[str, dict[str, float]]:
    """Return the rows without training: the initial estimate, and ePIE with the exact probe."""
    calibration = calibrate(scan, pb.ModelConfig(N=scan.N))
    started = time.perf_counter()
    rows = {f"{label}no network": scored(baseline_image(scan, calibration), scan, started)}
    for count in iterations:
        started = time.perf_counter()
        image = epie(scan, calibration, count)
        rows[f"{label}ePIE, {count} iterations"] = scored(image, scan, started)
    return rows


def network_row(scan: pb.Scan, model: object, training_s: float, summary: dict[str, float]) -> dict[str, float]:
    """Return the figures of a reconstruction, its speed, its loss and the shot-noise floor."""
    pb.reconstruct(scan.subset(slice(0, 64)), model)  # the first call compiles
    started = time.perf_counter()
    row = scored(pb.reconstruct(scan, model), scan, started) | {"training_s": training_s}
    return row | {key: float(summary[key]) for key in ("half_deviance", "shot_noise_floor") if key in summary}


def refined(scan: pb.Scan, model: object, label: str) -> dict[str, dict[str, float]]:
    """Return the rows of a network's image refined by ePIE."""
    rows = {}
    for count in REFINEMENT_ITERATIONS:
        started = time.perf_counter()
        image = epie(scan, calibrate(scan, pb.ModelConfig(N=scan.N)), count, start=pb.reconstruct(scan, model))
        rows[f"{label} + {count} iterations"] = scored(image, scan, started)
    return rows


def scored(image: pb.Image, scan: pb.Scan, started: float) -> dict[str, float]:
    """Return the figures of an image, and the time and speed since `started`."""
    seconds = time.perf_counter() - started
    result = pb.evaluate(image, scan)
    return {
        "seconds": seconds,
        "patterns_per_s": len(scan) / seconds,
        "amplitude_psnr_db": result.amplitude_psnr_db,
        "amplitude_ssim": result.amplitude_ssim,
        "phase_psnr_db": result.phase_psnr_db,
        "phase_ssim": result.phase_ssim,
        "frc_half": result.frc_half,
    }


def print_table(runs: list[dict[str, dict[str, float]]], title: str) -> None:
    """Print medians and lowest PSNR of all rows as a Markdown table."""
    print(f"\n### {title}\n")
    print("| | training s | image s | amplitude dB / SSIM | phase dB / SSIM | FRC at 0.5 | worst dB |")
    print("|---|---|---|---|---|---|---|")
    for name in runs[0]:
        values = {key: median(run[name][key] for run in runs) for key in runs[0][name]}
        worst = [min(run[name][key] for run in runs) for key in ("amplitude_psnr_db", "phase_psnr_db")]
        print(
            f"| {name} | {values.get('training_s', 0):.0f} | {values['seconds']:.1f} "
            f"| {values['amplitude_psnr_db']:.1f} / {values['amplitude_ssim']:.2f} "
            f"| {values['phase_psnr_db']:.1f} / {values['phase_ssim']:.2f} | {values['frc_half']:.2f} "
            f"| {worst[0]:.1f} / {worst[1]:.1f} |",
            flush=True,
        )
    network = {key: median(run["trained network"][key] for run in runs) for key in runs[0]["trained network"]}
    print(
        f"\nreconstruction {network['patterns_per_s']:.0f} patterns/s; half-deviance {network['half_deviance']:.3f}, "
        f"shot-noise floor {network['shot_noise_floor']:.3f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
