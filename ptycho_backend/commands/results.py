"""What `train` and `reconstruct` have in common: an image, its files, its pictures, and how good it is."""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptycho_backend import api
from ptycho_backend.commands.figures import assessment_rows, comparison_table, number, seconds, show_rows, verdict
from ptycho_backend.commands.files import ASSESSMENT, EVALUATION, draw, write_image
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
from ptycho_backend.plots import pictures
from ptycho_backend.plots.assessment import plot_assessment
from ptycho_backend.quality.assessment import Assessment, assess
from ptycho_backend.quality.metrics import Comparison
from ptycho_backend.reconstruction import fit_to_scan, image_of, without_network
from ptycho_backend.runtime.progress import Terminal

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Result:
    """
    A reconstruction with what is known about it.

    Parameters
    ----------
    scan : Scan
    image, baseline : Image
        By the network, and without one.
    calibration : Calibration
        That both were made with.
    seconds : float
        That the network's image took.
    model : Model
        As it was fitted to the scan.
    inference : InferenceConfig
        As the network's image was made with that model.
    predicted : Predicted, optional
        What the model predicted, until the image has been judged.
    comparisons : dict of str to Comparison
        With the known object; empty where there is none.
    assessment : Assessment, optional
        What the patterns say about the image, once they have been asked.
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


def make_result(
    scan: Scan, model: Model, inference: InferenceConfig, on_event: OnEvent, incremental: IncrementalImage
) -> Result:
    """Reconstruct a scan with a model, while its image is written as it grows, and without one."""
    started = time.perf_counter()
    fitted = fit_to_scan(model, scan, inference, on_event)
    as_fitted = dataclasses.replace(inference, calibration="model", probe_iterations=0)
    calibration = fitted.trained_calibration()
    heard = incremental.listener(calibration, on_event)
    predicted = predict(scan, fitted, as_fitted, heard)
    image = image_of(scan, fitted, predicted, as_fitted, heard)
    incremental.complete(image, calibration)
    duration = time.perf_counter() - started
    baseline = without_network(scan, calibration, fitted.config, inference, on_event)
    result = Result(scan, image, baseline, calibration, duration, fitted, as_fitted, predicted)
    result.comparisons = compared({"network": image, "no network": result.baseline}, scan)
    return result


def judge(folder: Path, result: Result, on_event: OnEvent) -> None:
    """Ask the patterns how far the image can be trusted, and write and draw the answer."""
    predicted, result.predicted = result.predicted, None  # memory, or room on a disk, that nothing else needs
    result.assessment = assess(result.scan, result.image, result.model, result.inference, on_event, predicted)
    write_json(folder / ASSESSMENT, result.assessment.to_dict())
    draw(
        plot_assessment,
        folder / "assessment.png",
        result.assessment,
        result.scan,
        title="How far to trust the reconstruction",
    )


def compared(images: dict[str, Image], truth: Scan) -> dict[str, Comparison]:
    """Compare images with a scan's known object; nothing where there is none, or too little of it."""
    if truth.obj is None:
        return {}
    try:
        return {name: api.evaluate(image, truth) for name, image in images.items()}
    except DataError as error:
        logger.warning("not compared with the known object: %s %s", error.rule, error.received)
        return {}


def write_result(folder: Path, result: Result, costs: list[float], attributes: dict[str, Any]) -> None:
    """Write what decides over success: the image, and the figures where the object is known."""
    write_image(folder, result.scan, result.image, result.calibration, costs, attributes)
    if result.comparisons:
        write_evaluation(folder / EVALUATION, result.comparisons, result.scan.source)


def write_evaluation(path: Path, comparisons: dict[str, Comparison], truth: str) -> None:
    """Write comparisons as JSON; what is not a number becomes null."""
    figures: dict[str, Any] = {name.replace(" ", "_"): comparison.to_dict() for name, comparison in comparisons.items()}
    if len(comparisons) == 2:
        figures["verdict"] = verdict(*comparisons.values()) or "The network beats the reconstruction without one."
    write_json(path, {"truth": truth, **figures})


def draw_result(folder: Path, result: Result) -> None:
    """Draw the object with and without network, the probe, and the comparison."""
    pixel_size_m = result.scan.pixel_size_m
    for name, image, title in (
        ("object.png", result.image, "Reconstruction"),
        ("baseline.png", result.baseline, "Without a network"),
    ):
        draw(pictures.plot_object, folder / name, image.obj, image.origin_px, pixel_size_m, title=title)
    draw(pictures.plot_probe, folder / "probe.png", result.calibration.probe, title="Probe")
    if result.comparisons:
        draw(pictures.plot_comparison, folder / "comparison.png", result.comparisons["network"])


def provenance(model: Model, inference: InferenceConfig, more: dict[str, Any]) -> dict[str, Any]:
    """Return what made an image, as plain values."""
    return {"model": to_dict(model.config), "inference": to_dict(inference), "backend": model.backend, **more}


def result_rows(result: Result) -> list[tuple[str, str]]:
    """Return the lines of a table that every reconstruction has."""
    height, width = result.image.obj.shape
    rate = len(result.scan) / max(result.seconds, 1e-9)
    return [
        ("image", f"{height} × {width} px from {len(result.scan)} patterns"),
        ("reconstruction time", f"{seconds(result.seconds)} ({number(rate, '.3g')} patterns/s)"),
    ]


def show_assessment(terminal: Terminal, result: Result) -> None:
    """Show what the patterns say about the image, and what to do about it."""
    if result.assessment is None:
        return
    terminal.show()
    show_rows(terminal, "By the patterns alone", assessment_rows(result.assessment))
    for warning in result.assessment.warnings:
        terminal.show(f"Warning: {warning}", style="bold red")


def show_comparisons(terminal: Terminal, comparisons: dict[str, Comparison], title: str) -> None:
    """Show how good images are, what to know before quoting it, and whether the network was worth it."""
    if not comparisons:
        return
    terminal.show()
    terminal.show(comparison_table(title, comparisons))
    for name, comparison in comparisons.items():
        for warning in comparison.warnings:
            terminal.show(f"Note on '{name}': {warning}.")
    if len(comparisons) == 2 and (sentence := verdict(*comparisons.values())):
        terminal.show(sentence, style="bold red")


def show_place(terminal: Terminal, folder: Path) -> None:
    """Say where things are."""
    names = sorted(item.name for item in folder.iterdir() if item.is_file() and not item.name.startswith("."))
    terminal.show()
    terminal.show(f"Written to {folder}: {', '.join(names)}")
