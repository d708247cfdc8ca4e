"""Result of `train` and `reconstruct`: an image with its files, pictures, comparisons and assessment."""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptycho_backend import api, plots
from ptycho_backend.commands.figures import (
    assessment_rows,
    comparison_table,
    network_comparison,
    number,
    seconds,
    show_rows,
)
from ptycho_backend.commands.files import ASSESSMENT, EVALUATION, draw
from ptycho_backend.commands.incremental_image import IncrementalImage
from ptycho_backend.config import InferenceConfig, to_dict
from ptycho_backend.data.image import Image
from ptycho_backend.data.scan import Scan
from ptycho_backend.engines.model import Model
from ptycho_backend.errors import DataError
from ptycho_backend.events import OnEvent
from ptycho_backend.model_file.run import write_json
from ptycho_backend.network.prediction import Predicted, predict
from ptycho_backend.physics.calibration import Calibration
from ptycho_backend.quality.assessment import Assessment, assess
from ptycho_backend.quality.metrics import Comparison
from ptycho_backend.reconstruction import fit_to_scan, image_of, without_network
from ptycho_backend.runtime.progress import Terminal

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Result:
    """
    Reconstruction with its baseline, comparisons and assessment.

    Parameters
    ----------
    scan : Scan
    image, baseline : Image
        Images with and without the network.
    calibration : Calibration
        Calibration of both images.
    seconds : float
        Duration of the image with the network.
    model : Model
        Model after its fit to the scan.
    inference : InferenceConfig
        Options of the image with this model.
    predicted : Predicted, optional
        Patches of the model; removed after the assessment.
    comparisons : dict of str to Comparison
        Comparisons with the known object; empty without one.
    assessment : Assessment, optional
        Assessment by the patterns alone; None before its end.
    """

    scan: Scan
    image: Image
    baseline: Image
    calibration: Calibration
    seconds: float
    model: Model
    inference: InferenceConfig
    predicted: Predicted | None
    comparisons: dict[str, Comparison] = field(default_factory=dict)
    assessment: Assessment | None = None


def run_reconstruction(
    incremental: IncrementalImage, model: Model, inference: InferenceConfig, on_event: OnEvent
) -> Result:
    """Reconstruct a scan with a model and without one, and write, draw and assess the image."""
    folder, scan = incremental.folder, incremental.scan
    with incremental.saved_on_signal(on_event) as forward:
        result = make_result(incremental, model, inference, forward)
    incremental.write()
    if result.comparisons:
        write_evaluation(folder / EVALUATION, result.comparisons, scan.source)
    draw_result(folder, result)
    predicted, result.predicted = result.predicted, None  # releases their memory or disk space
    result.assessment = assess(scan, result.image, result.model, result.inference, on_event, predicted)
    write_json(folder / ASSESSMENT, result.assessment.to_dict())
    title = "Assessment of the reconstruction"
    draw(plots.plot_assessment, folder / "assessment.png", result.assessment, scan, title=title)
    return result


def make_result(incremental: IncrementalImage, model: Model, inference: InferenceConfig, on_event: OnEvent) -> Result:
    """Reconstruct a scan with a model, writing unfinished images, and then without a network."""
    started, scan = time.perf_counter(), incremental.scan
    fitted = fit_to_scan(model, scan, inference, on_event)
    fitted_inference = dataclasses.replace(inference, calibration="model", probe_iterations=0)
    calibration = fitted.trained_calibration()
    record = incremental.recorder(calibration, on_event)
    predicted = predict(scan, fitted, fitted_inference, record)
    image = image_of(scan, fitted, predicted, fitted_inference, record)
    incremental.set_complete(image, calibration)
    duration = time.perf_counter() - started
    baseline = without_network(scan, calibration, fitted.config, inference, on_event)
    comparisons = compare_with_truth({"network": image, "no network": baseline}, scan)
    return Result(scan, image, baseline, calibration, duration, fitted, fitted_inference, predicted, comparisons)


def compare_with_truth(images: dict[str, Image], truth: Scan) -> dict[str, Comparison]:
    """Compare images with the known object of a scan; {} without one, or if it covers too little."""
    if truth.obj is None:
        return {}
    try:
        return {name: api.evaluate(image, truth) for name, image in images.items()}
    except DataError as error:
        logger.warning("not compared with the known object: %s %s", error.rule, error.received)
        return {}


def write_evaluation(path: Path, comparisons: dict[str, Comparison], truth: str) -> None:
    """Write comparisons as JSON; NaN becomes null."""
    figures: dict[str, Any] = {name.replace(" ", "_"): comparison.to_dict() for name, comparison in comparisons.items()}
    if len(comparisons) == 2:
        sentence = network_comparison(*comparisons.values())
        figures["comparison"] = sentence or "The network beats the reconstruction without one."
    write_json(path, {"truth": truth, **figures})


def draw_result(folder: Path, result: Result) -> None:
    """Draw the object with and without the network, the probe, and the comparison."""
    pixel_size_m = result.scan.pixel_size_m
    for name, image, title in (
        ("object.png", result.image, "Reconstruction"),
        ("baseline.png", result.baseline, "Without a network"),
    ):
        draw(plots.plot_object, folder / name, image.obj, image.origin_px, pixel_size_m, title=title)
    draw(plots.plot_probe, folder / "probe.png", result.calibration.probe, title="Probe")
    if result.comparisons:
        draw(plots.plot_comparison, folder / "comparison.png", result.comparisons["network"])


def provenance(model: Model, inference: InferenceConfig, more: dict[str, Any]) -> dict[str, Any]:
    """Return the origin of an image as plain values: model, options, engine and further entries."""
    return {"model": to_dict(model.config), "inference": to_dict(inference), "backend": model.backend, **more}


def result_rows(result: Result) -> list[tuple[str, str]]:
    """Return the size of the image and the duration of the reconstruction."""
    height, width = result.image.obj.shape
    rate = len(result.scan) / max(result.seconds, 1e-9)
    return [
        ("image", f"{height} × {width} px from {len(result.scan)} patterns"),
        ("reconstruction time", f"{seconds(result.seconds)} ({number(rate, '.3g')} patterns/s)"),
    ]


def show_result(terminal: Terminal, folder: Path, result: Result) -> None:
    """Show the comparisons with the known object, the assessment, and the files of a result."""
    show_comparisons(terminal, result.comparisons, "Against the known object")
    if result.assessment is not None:
        terminal.show()
        show_rows(terminal, "By the patterns alone", assessment_rows(result.assessment))
        for warning in result.assessment.warnings:
            terminal.show(f"Warning: {warning}", style="bold red")
    show_files(terminal, folder)


def show_comparisons(terminal: Terminal, comparisons: dict[str, Comparison], title: str) -> None:
    """Show comparisons with their warnings, and a sentence if the network is no better than its baseline."""
    if not comparisons:
        return
    terminal.show()
    terminal.show(comparison_table(title, comparisons))
    for name, comparison in comparisons.items():
        for warning in comparison.warnings:
            terminal.show(f"Note on '{name}': {warning}.")
    if len(comparisons) == 2 and (sentence := network_comparison(*comparisons.values())):
        terminal.show(sentence, style="bold red")


def show_files(terminal: Terminal, folder: Path) -> None:
    """Show the path of a folder with the names of its files."""
    names = sorted(item.name for item in folder.iterdir() if item.is_file() and not item.name.startswith("."))
    terminal.show()
    terminal.show(f"Written to {folder}: {', '.join(names)}")
