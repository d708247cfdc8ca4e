"""
Demo: simulate, train and reconstruct with every installed engine, in about two minutes on two cores.

    python benchmarks/demo.py

Simulates a 64×64 scan and trains on it by the command line, in one subprocess per engine. Prints the figures
beside those of the reconstruction without a network. All files are in ``demo/``.
``--picture FILE`` also draws the first engine's image for the README.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import ptycho_backend as pb
from ptycho_backend.data.product import read_product
from ptycho_backend.quality.metrics import compare

COMMAND = [sys.executable, "-m", "ptycho_backend.cli"]
COLUMNS = ("", "training s", "total s", "amplitude dB / SSIM", "phase dB / SSIM", "FRC 0.5, of Nyquist")
MARK = ".made-by-demo"


def main() -> None:
    """Run the demo and print its table."""
    options = arguments()
    engines = pb.available_backends()
    if not engines:
        sys.exit("No engine is installed. Fix: pip install 'ptychopinn[torch]', or 'ptychopinn[tensorflow]'")
    folder = fresh_folder(options.folder)
    scan = folder / "scan.npz"
    command("simulate", "--output", scan, "--n_positions", options.positions, "--quiet")
    rows: dict[str, dict[str, Any]] = {}
    for engine in engines:
        print(f"\n{engine}: training on {options.positions} patterns, {options.epochs} epochs", flush=True)
        rows[engine] = train(engine, scan, folder / engine, options.epochs)
    print_table(rows)
    if options.picture:
        draw(options.picture, scan, folder / engines[0])
        print(f"picture: {options.picture}")
    print(f"\nScan, models, images and pictures are in {folder}/; see '{folder}/{engines[0]}/comparison.png' first.")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("demo"), help="output folder (default: demo)")
    parser.add_argument("--positions", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the first engine's image as a PNG too")
    return parser.parse_args()


def fresh_folder(folder: Path) -> Path:
    """Return an empty folder. The folder of an earlier demo is emptied; others are refused."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARK).exists():
            sys.exit(f"'{folder}' contains files that are not from a demo. Fix: choose another --folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()
    return folder


def command(*words: object) -> None:
    """Run ``ptychopinn``; a failure ends the demo."""
    result = subprocess.run([*COMMAND, *map(str, words)], check=False)
    if result.returncode:
        sys.exit(f"'ptychopinn {' '.join(map(str, words))}' failed with status {result.returncode}")


def train(engine: str, scan: Path, run: Path, epochs: int) -> dict[str, Any]:
    """Train and reconstruct with one engine; return its figures and those without a network."""
    started = time.perf_counter()
    command("train", scan, "--output", run, "--backend", engine, "--epochs", epochs, "--compare", "--no-progress")
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    figures = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    return {**figures, "training_s": summary["training_seconds"], "total_s": time.perf_counter() - started}


def print_table(rows: dict[str, dict[str, Any]]) -> None:
    """Print one line per engine and one without a network."""
    lines = [table_row(name, row["network"], row["training_s"], row["total_s"]) for name, row in rows.items()]
    first = next(iter(rows.values()))
    lines.append(table_row("no network", first["no_network"]))
    widths = [max(len(line[i]) for line in (COLUMNS, *lines)) for i in range(len(COLUMNS))]
    print()
    for line in (COLUMNS, *lines):
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    for name, row in rows.items():
        if not is_better(row):
            print(f"\n{name}: the network does not beat the reconstruction without one.")


def table_row(name: str, figures: dict[str, Any], training_s: float = 0.0, total_s: float = 0.0) -> tuple[str, ...]:
    """Return the texts of one line."""
    scores = [f"{figures[f'{part}_psnr_db']:.1f} / {figures[f'{part}_ssim']:.2f}" for part in ("amplitude", "phase")]
    times = [f"{seconds:.0f}" if seconds else "-" for seconds in (training_s, total_s)]
    return (name, *times, *scores, f"{figures['frc_half']:.2f}")


def is_better(row: dict[str, Any]) -> bool:
    """Return whether the network has the higher PSNR, in amplitude and in phase."""
    return all(row["network"][score] > row["no_network"][score] for score in ("amplitude_psnr_db", "phase_psnr_db"))


def draw(path: Path, scan_path: Path, run: Path) -> None:
    """Draw two diffraction patterns, the image without and with a network, and the truth."""
    scan, product = pb.load_scan(scan_path), read_product(run / "reconstruction.h5")
    assert scan.obj is not None
    assert product.obj is not None
    baseline = pb.evaluate(pb.reconstruct(scan, probe_iterations=0), scan)
    network = compare(product.obj, product.obj_origin_px, scan.obj, scan.obj_origin_px, scan.positions_px)
    figure = Figure(figsize=(9.6, 4.9), layout="constrained")
    axes = figure.subplots(2, 4)
    images = (("without a network", baseline.image), ("reconstructed", network.image), ("truth", network.truth))
    for column, (title, image) in enumerate(images, start=1):
        for row, (values, (low, high)) in enumerate(
            zip(amplitude_and_phase(image), map(limits, amplitude_and_phase(network.truth)), strict=True)
        ):
            axes[row, column].imshow(values, cmap=("gray", "viridis")[row], vmin=low, vmax=high)
        axes[0, column].set_title(title, fontsize=10)
    for row, index in enumerate((0, len(scan) // 2)):
        axes[row, 0].imshow(np.log1p(scan.patterns[index].astype(float)), cmap="magma")
        axes[row, 0].set_title("a pattern" if row == 0 else "another", fontsize=10)
    for row, label in enumerate(("amplitude", "phase")):
        axes[row, 1].set_ylabel(label, fontsize=10)
    for panel in axes.flat:
        panel.set_xticks([])
        panel.set_yticks([])
    write_small(figure, path)


def write_small(figure: Figure, path: Path) -> None:
    """Write a figure as a small PNG with a palette."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.open(buffer).convert("RGB").quantize(256).save(path, optimize=True)


def amplitude_and_phase(image: Any) -> tuple[Any, Any]:
    """Return amplitude and phase of an image; the mean phase is 0."""
    return np.abs(image), np.angle(image * np.exp(-1j * np.angle(image.sum())))


def limits(values: Any) -> tuple[float, float]:
    """Return the percentiles 0.5 and 99.5, limits of a colour scale."""
    low, high = np.percentile(values, (0.5, 99.5))
    return float(low), float(high)


if __name__ == "__main__":
    main()
