"""
The measured Siemens star: probe refinement, training, reconstruction, and how far ePIE agrees.

    python benchmarks/star.py --backend pytorch --output runs/star-pytorch

The file is found through PTYCHO_DATA_DIR or in ../shared/data beside the checkout.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np

import ptycho_backend as pb
from ptycho_backend.core.calibration import calibrate
from ptycho_backend.core.epie import Plan, epie
from ptycho_backend.core.inference import calibration_of
from ptycho_backend.metrics import compare, remove_ramp
from ptycho_backend.plots import plot_losses, plot_object, plot_probe

FILE = "siemens-star.npz"


def main() -> None:
    """Train, reconstruct, compare and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="pytorch")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--output", type=Path, default=Path("runs/star"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    scan = pb.load_scan(find_star())
    started = time.perf_counter()
    training = pb.TrainingConfig(model=pb.ModelConfig(N=scan.N), backend=options.backend, nepochs=options.epochs)
    run = pb.train(scan, training)
    print(f"{options.backend}: probe refinement and training {time.perf_counter() - started:.0f} s")
    print({key: round(value, 3) if isinstance(value, float) else value for key, value in run.summary.items()})
    reference = reference_image(scan)
    draw(options.output, "ePIE, 40 passes", reference)
    print("| passes after the network | seconds | agreement of the phase with 40 passes of ePIE, dB | FRC at 0.5 |")
    print("|---|---|---|---|")
    for passes in (0, 1, 2, 5, 10):
        started = time.perf_counter()
        image = pb.reconstruct(scan, run.model, refine_passes=passes)
        seconds = time.perf_counter() - started
        phase_db, frc = agreement(image, reference, scan)
        print(f"| {passes} | {seconds:.1f} | {phase_db:.1f} | {frc:.2f} |", flush=True)
        if passes in (0, 10):
            draw(options.output, f"network and {passes} passes", image)
    plot_probe(options.output / "probe.png", calibration_of(run.model).probe)
    plot_losses(options.output / "loss.png", run.history, run.summary["shot_noise_floor"])


def find_star() -> Path:
    """Return the measured file."""
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("PTYCHO_DATA_DIR", shared)) / FILE


def reference_image(scan: pb.Scan) -> pb.Image:
    """Return 40 passes of ePIE, object and probe."""
    calibration = calibrate(scan, pb.ModelConfig(N=scan.N))
    return epie(scan, calibration, Plan(40), np.random.default_rng(7)).image


def agreement(image: pb.Image, reference: pb.Image, scan: pb.Scan) -> tuple[float, float]:
    """Return phase agreement (dB) and FRC crossing within the scanned area, plane and scale removed."""
    result = compare(image.obj, image.origin_px, reference.obj, reference.origin_px, scan.positions_px)
    return result.phase_psnr_db, result.frc_half


def draw(folder: Path, title: str, image: pb.Image) -> None:
    """Draw an image without its phase ramp."""
    flat, ramp = remove_ramp(image.obj, image.coverage)
    name = title.replace(" ", "_").replace(",", "")
    note = f"{title}; ramp of {ramp[0]:.4f}, {ramp[1]:.4f} rad/px removed"
    plot_object(folder / f"{name}.png", flat, image.origin_px, None, note)


if __name__ == "__main__":
    main()
