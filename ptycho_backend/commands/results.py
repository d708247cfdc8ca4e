"""Result of `train` and `reconstruct`: an image with its files, pictures, comparisons and assessment."""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptycho_backend import api, plots
from ptycho_backend.commands.figures import (
    assessment_rows,
    comparison_figures,
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
from ptycho_backend.engines.solver_contract import SolverKernels
from ptycho_backend.errors import DataError
from ptycho_backend.events import OnEvent, ignore, without_images
from ptycho_backend.model_file.run import write_json
from ptycho_backend.network.prediction import Predicted
from ptycho_backend.quality.assessment import STARTS, Assessment, assessment_of
from ptycho_backend.quality.metrics import Comparison
from ptycho_backend.reconstruction import Reconstruction, Start, other_start, prepare
from ptycho_backend.runtime.progress import Terminal
from ptycho_backend.training.parallel import launched_rank

logger = logging.getLogger(__name__)

NO_NETWORK = "no network"
LABELS = {"network": "network", "flat": NO_NETWORK, "physics": NO_NETWORK}  # of comparisons
INITIAL_OBJECTS = STARTS | {"network": "the prediction of a network"}


@dataclass(frozen=True, eq=False)
class Request:
    """
    Settings of a reconstruction by a command.

    Parameters
    ----------
    model : Model, optional
        None reconstructs without a model.
    inference : InferenceConfig
    kernels : SolverKernels
    compare : bool
        Reconstruct once more, without the network or with it, and compare.
    network : Model, optional
        Network for a comparison with an image that has none.
    """

    model: Model | None
    inference: InferenceConfig
    kernels: SolverKernels
    compare: bool = False
    network: Model | None = None


@dataclass(eq=False)
class Result:
    """
    Image with its comparisons and assessment.

    Parameters
    ----------
    reconstruction : Reconstruction
        Scan, calibration and options of the image.
    image : Image
    seconds : float
        Duration of the image.
    predicted : Predicted, optional
        Patches of the network; removed after the assessment.
    other : Image, optional
        Image from another start, with the same calibration; only on request.
    other_start : {"flat", "physics", "network"}, optional
        Initial object of that image.
    comparisons : dict of str to Comparison
        Comparisons with the known object; empty without one.
    assessment : Assessment, optional
        Assessment by the patterns alone; None before its end.
    """

    reconstruction: Reconstruction
    image: Image
    seconds: float
    predicted: Predicted | None
    other: Image | None = None
    other_start: Start | None = None
    comparisons: dict[str, Comparison] = field(default_factory=dict)
    assessment: Assessment | None = None


def run_reconstruction(incremental: IncrementalImage, request: Request, on_event: OnEvent) -> Result:
    """Reconstruct a scan, and write, draw and assess the image."""
    result = compute_result(incremental.scan, request, on_event, incremental)
    folder, assessment = incremental.folder, result.assessment
    if assessment is not None:
        write_json(folder / ASSESSMENT, assessment.to_dict())
        title = scan_title("Assessment", result)
        draw(plots.plot_assessment, folder / "assessment.png", assessment, result.reconstruction.scan, title=title)
    return result


def compute_result(
    scan: Scan, request: Request, on_event: OnEvent = ignore, incremental: IncrementalImage | None = None
) -> Result:
    """
    Reconstruct a scan, on request once more from another start, and assess the image.

    Kernels of several processes add their sums, so every process takes all of these steps in this order.

    Parameters
    ----------
    scan : Scan
    request : Request
    on_event : callable
        Receives StageEvents.
    incremental : IncrementalImage, optional
        Files of the image, in the process of rank 0; None writes nothing.
    """
    with nullcontext(on_event) if incremental is None else incremental.saved_on_signal(on_event) as forward:
        result = _images(scan, request, forward, incremental)
    if incremental is not None:
        incremental.write()
        write_comparison(incremental.folder, incremental.scan, result)
    predicted, result.predicted = result.predicted, None  # releases their memory or disk space
    result.assessment = assessment_of(result.reconstruction, result.image, on_event, predicted)
    return result


def _images(scan: Scan, request: Request, on_event: OnEvent, incremental: IncrementalImage | None) -> Result:
    """Reconstruct a scan, writing unfinished images, and on request once more from another start."""
    started, record = time.perf_counter(), on_event
    reconstruction = prepare(scan, request.model, request.inference, request.kernels, on_event)
    if incremental is not None:
        record = incremental.recorder(reconstruction.calibration, on_event)
    predicted = reconstruction.predict(record)
    image = reconstruction.image(record, predicted)
    if incremental is not None:
        incremental.set_complete(image, reconstruction.calibration)
    result = Result(reconstruction, image, time.perf_counter() - started, predicted)
    if request.compare:
        other = other_start(reconstruction, request.network)
        result.other, result.other_start = other.image(without_images(on_event)), other.start
    return result


def write_comparison(folder: Path, scan: Scan, result: Result) -> None:
    """Compare the images with the known object of a scan if there is one; write the figures and draw the images."""
    images = {LABELS[result.reconstruction.start]: result.image}
    if result.other is not None and result.other_start is not None:
        images[LABELS[result.other_start]] = result.other
    result.comparisons = compare_with_truth(images, scan)
    if result.comparisons:
        write_evaluation(folder / EVALUATION, result.comparisons, scan.source)
    draw_result(folder, result)


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
    figures = comparison_figures(comparisons)
    if len(comparisons) == 2:
        sentence = _network_sentence(comparisons)
        figures["comparison"] = sentence or "The network beats the reconstruction without one."
    write_json(path, {"truth": truth, **figures})


def draw_result(folder: Path, result: Result) -> None:
    """Draw the object, the probe, the comparison, and the object from the other start if there is one."""
    reconstruction = result.reconstruction
    pixel_size_m = reconstruction.scan.pixel_size_m
    pictures = [("object.png", result.image, "Reconstruction")]
    if result.other is not None:
        title = "Without a network" if reconstruction.start == "network" else "With a network"
        pictures.append(("baseline.png", result.other, title))
    for name, image, title in pictures:
        shown = (image.obj, image.origin_px, pixel_size_m, scan_title(title, result), image.coverage)
        draw(plots.plot_object, folder / name, *shown)
    experiment = result.image.experiment
    probe = reconstruction.calibration.probe if experiment is None else experiment.probe
    draw(plots.plot_probe, folder / "probe.png", probe, scan_title("Probe", result), pixel_size_m)
    if result.comparisons:
        comparison = next(iter(result.comparisons.values()))
        title = scan_title("Against the known object", result)
        draw(plots.plot_comparison, folder / "comparison.png", comparison, title)


def scan_title(text: str, result: Result) -> str:
    """Return the title of a picture: a text with the name of the scan, its pixel and its dose."""
    scan = result.reconstruction.scan
    photons = result.reconstruction.calibration.photons_per_pattern
    name = result.image.name or Path(scan.source).name
    return plots.title_of(f"{text}: {name}", scan.pixel_size_m, photons or None)


def provenance(request: Request, more: dict[str, Any]) -> dict[str, Any]:
    """Return the origin of an image as plain values: options, device, the model if there is one, further entries."""
    values = {"inference": to_dict(request.inference), "solver_device": request.kernels.device}
    if request.model is not None:
        values |= {"model": to_dict(request.model.config), "backend": request.model.backend}
    return {**values, **more}


def result_rows(result: Result) -> list[tuple[str, str]]:
    """Return the size of the image, its initial object, and the duration of the reconstruction."""
    height, width = result.image.obj.shape
    reconstruction = result.reconstruction
    n_patterns = len(reconstruction.scan)
    rate = n_patterns / max(result.seconds, 1e-9)
    world = launched_rank().world
    place = reconstruction.kernels.device + (f" in {world} processes" if world > 1 else "")
    return [
        ("image", f"{height} × {width} px from {n_patterns} patterns"),
        ("solver", f"on {place}, from {INITIAL_OBJECTS[reconstruction.start]}"),
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
    if len(comparisons) == 2 and (sentence := _network_sentence(comparisons)):
        terminal.show(sentence, style="bold red")


def _network_sentence(comparisons: dict[str, Comparison]) -> str:
    """Return a sentence if the network is no better than the reconstruction without one, else ""."""
    baseline = comparisons[NO_NETWORK]
    (network,) = (comparison for name, comparison in comparisons.items() if name != NO_NETWORK)
    return network_comparison(network, baseline)


def show_files(terminal: Terminal, folder: Path) -> None:
    """Show the path of a folder with the names of its files."""
    names = sorted(item.name for item in folder.iterdir() if item.is_file() and not item.name.startswith("."))
    terminal.show()
    terminal.show(f"Written to {folder}: {', '.join(names)}")
