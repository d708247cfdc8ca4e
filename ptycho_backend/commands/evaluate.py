"""``ptychopinn evaluate``: compare a reconstruction with the known object or with another reconstruction."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
from jsonargparse import Namespace

from ptycho_backend import api, plots
from ptycho_backend.commands.command_line import CommandLine
from ptycho_backend.commands.common import add_json_option, add_message_options, add_output_options
from ptycho_backend.commands.describe import Rows
from ptycho_backend.commands.figures import number, show_rows
from ptycho_backend.commands.files import (
    EVALUATION,
    REPORT,
    add_selection_options,
    draw,
    is_product,
    load,
    remove_files,
    result_folder,
)
from ptycho_backend.commands.json_output import comparison_document, show_json
from ptycho_backend.commands.reports import add_report_option, write_evaluation_report
from ptycho_backend.commands.results import NO_NETWORK, show_comparisons, show_files, write_evaluation
from ptycho_backend.config import InferenceConfig, ModelConfig, from_dict
from ptycho_backend.data.image import Image, load_image
from ptycho_backend.data.product import Product, read_product
from ptycho_backend.data.readers import existing_file
from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import ConfigError, DataError
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.quality.metrics import Comparison, compare
from ptycho_backend.reconstruction import Reconstruction
from ptycho_backend.runtime.progress import Terminal
from ptycho_backend.runtime.quantities import pixel_text

logger = logging.getLogger(__name__)


def command_line() -> CommandLine:
    """Return the options."""
    line = CommandLine(
        "evaluate",
        "RECONSTRUCTION.h5 REFERENCE [--compare] [--output FOLDER]",
        "Compare a reconstruction with the known object of a scan, or with another reconstruction.",
    )
    line.add("reconstruction", nargs="?", metavar="RECONSTRUCTION.h5", help="Reconstruction (ptychodus product).")
    line.add("reference", nargs="?", metavar="REFERENCE", help="Scan with a known object, or a reconstruction.")
    line.add("--compare", action="store_true", help="Reconstruct a scan without a network, and compare that too.")
    add_selection_options(line)
    add_output_options(line, "Folder for the figures (JSON) and a picture")
    add_report_option(line)
    add_json_option(line)
    add_message_options(line)
    return line


def run(options: Namespace, terminal: Terminal, line: CommandLine) -> None:
    """Compare, show the figures, and write them with `--output`."""
    image_path = line.require(options, "reconstruction", "RECONSTRUCTION.h5")
    reference = Path(line.require(options, "reference", "REFERENCE (a scan with a known object, or a reconstruction)"))
    terminal.json = options.json
    if options.output is None:
        comparisons = comparisons_of(image_path, reference, options)
        show(terminal, comparisons, reference)
        if options.json:
            show_json(terminal, comparison_document(image_path, reference, comparisons, None, terminal.warnings))
        return
    with result_folder(options.output, options.overwrite) as folder:
        comparisons = comparisons_of(image_path, reference, options)
        remove_files(folder, (EVALUATION, REPORT, "comparison.png"))
        write_evaluation(folder / EVALUATION, comparisons, str(reference))
        first = next(iter(comparisons.values()))
        draw(plots.plot_comparison, folder / "comparison.png", first, title=f"{image_path} against {reference}")
        if not options.no_report:
            write_evaluation_report(folder, terminal, image_path, reference, comparisons)
        show(terminal, comparisons, reference)
        show_files(terminal, folder)
        if options.json:
            show_json(terminal, comparison_document(image_path, reference, comparisons, folder, terminal.warnings))


def comparisons_of(image_path: str, reference: Path, options: Namespace) -> dict[str, Comparison]:
    """Compare a reconstruction with another one, or with a scan, on request also for an image without a network."""
    product, image = _read_image(Path(image_path))
    if is_product(existing_file(reference)):
        _, other = _read_image(reference)
        found = compare(image.obj, image.origin_px, other.obj, other.origin_px, product.positions_px)
        return {"reconstruction": replace(found, pixel_size_m=product.pixel_size_m)}
    scan = load(options, reference)
    comparisons = {"reconstruction": api.evaluate(image, scan)}
    if options.compare and "inference" in product.attributes and "model" not in product.attributes:
        logger.warning("--compare has no effect: '%s' is itself an image without a network", image_path)
    elif options.compare:
        comparisons[NO_NETWORK] = api.evaluate(_without_network(scan, product), scan)
    return comparisons


def show(terminal: Terminal, comparisons: dict[str, Comparison], reference: Path) -> None:
    """Show the compared area, the registration and the comparisons."""
    first = next(iter(comparisons.values()))
    show_rows(terminal, "Compared area", registration_rows(first))
    show_comparisons(terminal, comparisons, f"Against {reference}")


def registration_rows(comparison: Comparison) -> Rows:
    """Return the compared area and the parameters of the registration."""
    c = comparison
    return [
        ("area", f"{c.area[2]} × {c.area[3]} px from y={c.area[0]:.5g}, x={c.area[1]:.5g}"),
        ("pixel", pixel_text(c.pixel_size_m) if c.pixel_size_m is not None else "unknown"),
        ("removed shift", f"y {c.shift_px[0]:+.2f}, x {c.shift_px[1]:+.2f} px"),
        ("removed phase ramp", f"y {c.ramp_rad_per_px[0]:+.1e}, x {c.ramp_rad_per_px[1]:+.1e} rad/px"),
        ("amplitude factor", number(c.amplitude_scale, ".4f")),
    ]


def _read_image(path: Path) -> tuple[Product, Image]:
    if not is_product(existing_file(path)):
        raise DataError(
            "A reconstruction is a ptychodus product.",
            expected="a reconstruction.h5 of 'ptychopinn train' or 'reconstruct', or another product",
            received=f"'{path}'",
            fix="give the reconstruction first, the scan second",
        )
    return read_product(path), load_image(path)


def _without_network(scan: Scan, product: Product) -> Image:
    """Reconstruct without a network, with the probe and the settings of a product if they fit the scan."""
    probe = np.asarray(product.probe)
    fits = probe.shape[-2:] == (scan.N, scan.N) and bool(np.abs(probe).max() > 0)
    settings = {name: product.attributes.get(name, {}) for name in ("model", "inference")}
    mask = {"probe_mask": settings["model"].get("probe_mask", False)}
    calibration = calibrate(scan, ModelConfig(N=scan.N, **mask), probe=probe if fits else None)
    inference = InferenceConfig()
    try:
        inference = from_dict(InferenceConfig, settings["inference"], "the reconstruction")
    except ConfigError as error:
        logger.warning("the image without a network uses default settings: %s", error.rule)
    if len(product.positions_px) == len(scan):  # those of the image: fitted, and turned by an orientation
        scan = scan.changed(positions_px=product.positions_px)
    return Reconstruction(scan, calibration, "flat", inference).image()
