"""
Measured Siemens star: the shipped network and a network trained on the scan, compared with a long run of ePIE.

    python benchmarks/star.py --backend pytorch --output runs/star-pytorch

The file is in the folder PTYCHO_DATA_DIR, by default ../shared/data beside the checkout.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

from epie import epie

import ptycho_backend as pb
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.plots import plot_losses, plot_object, plot_probe
from ptycho_backend.quality.metrics import compare, remove_ramp
from ptycho_backend.reconstruction import fit_to_scan

FILE = "siemens-star.npz"
REFERENCE_ITERATIONS = 40


def main() -> None:
    """Reconstruct, train, reconstruct, compare and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="pytorch")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--start", choices=("pretrained", "scratch"), default="pretrained")
    parser.add_argument("--output", type=Path, default=Path("runs/star"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    scan = pb.load_scan(find_star())
    reference = reference_image(scan)
    draw(options.output, f"ePIE, {REFERENCE_ITERATIONS} iterations", reference)
    started = time.perf_counter()
    shipped = fit_to_scan(pb.load_model(None, options.backend), scan, pb.InferenceConfig())
    rows = [assessed(scan, shipped, "no training", time.perf_counter() - started, reference, options.output)]
    started = time.perf_counter()
    training = pb.TrainingConfig(
        model=pb.ModelConfig(N=scan.N), backend=options.backend, nepochs=options.epochs, start=options.start
    )
    run = pb.train(scan, training)
    name = f"{options.epochs} epochs from {options.start}"
    rows.append(assessed(scan, run.model, name, time.perf_counter() - started, reference, options.output))
    print("| | s before | s | residual / shot noise | halves agree to, of Nyquist | ePIE: phase dB, FRC at 0.5 |")
    print("|---|---|---|---|---|---|")
    print("\n".join(rows))
    plot_probe(options.output / "probe.png", run.model.trained_calibration().probe)
    plot_losses(options.output / "loss.png", run.history, run.summary["shot_noise_floor"])


def assessed(scan: pb.Scan, model: Any, name: str, before_s: float, reference: pb.Image, output: Path) -> str:
    """Draw the image of a model, and return its row of figures."""
    settings = pb.InferenceConfig(calibration="model")
    started = time.perf_counter()
    image = pb.reconstruct(scan, model, settings)
    seconds = time.perf_counter() - started
    assessment = pb.assess(scan, image, model, settings)
    phase_db, frc = agreement(image, reference, scan)
    resolution = "–" if assessment.halves is None else f"{assessment.halves.resolution:.2f}"
    draw(output, name, image)
    return (
        f"| {name} | {before_s:.0f} | {seconds:.1f} | {assessment.residual / assessment.shot_noise_floor:.2f} "
        f"| {resolution} | {phase_db:.1f}, {frc:.2f} |"
    )


def find_star() -> Path:
    """Return the path of the measured file."""
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("PTYCHO_DATA_DIR", shared)) / FILE


def reference_image(scan: pb.Scan) -> pb.Image:
    """Return the image of a long run of ePIE with probe updates."""
    calibration = calibrate(scan, pb.ModelConfig(N=scan.N))
    return epie(scan, calibration, REFERENCE_ITERATIONS, update_probe=True, seed=7)


def agreement(image: pb.Image, reference: pb.Image, scan: pb.Scan) -> tuple[float, float]:
    """Return phase PSNR (dB) and FRC crossing within the scanned area, without phase plane and scale."""
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
