"""``ptychopinn reconstruct``: a scan gives an image, with a trained model or with the network of the package."""

from __future__ import annotations

from functools import partial
from typing import Any

from jsonargparse import Namespace

from ptycho_backend import api
from ptycho_backend.commands.command_line import CommandLine
from ptycho_backend.commands.common import (
    add_config_options,
    add_message_options,
    add_output_options,
    sections,
)
from ptycho_backend.commands.engines import started_quietly
from ptycho_backend.commands.figures import show_rows
from ptycho_backend.commands.files import BESIDE_IMAGE, add_scan_options, load, remove_earlier, result_folder
from ptycho_backend.commands.incremental_image import IncrementalImage
from ptycho_backend.commands.results import (
    draw_result,
    judge,
    make_result,
    provenance,
    result_rows,
    show_assessment,
    show_comparisons,
    show_place,
    write_result,
)
from ptycho_backend.config import ExecutionConfig, InferenceConfig
from ptycho_backend.engines.model import Model
from ptycho_backend.model_file.bundle import read_bundle
from ptycho_backend.network.shipped import SHIPPED
from ptycho_backend.runtime.progress import Terminal

SECTIONS: dict[str, type[Any]] = {"inference": InferenceConfig, "execution": ExecutionConfig}
configs = partial(sections, config_types=SECTIONS)  # what --print_config prints


def command_line() -> CommandLine:
    """Return the options."""
    line = CommandLine(
        "reconstruct",
        "SCAN --output FOLDER [--model RUN] [options]",
        "Reconstruct a scan, with the network that ships with the package or one that you have trained.",
    )
    add_scan_options(line)
    line.add(
        "--model",
        "-m",
        metavar="PATH",
        help="Run folder, or its wts.h5.zip; without it the network that ships with the package.",
    )
    add_output_options(line, "Folder for the results")
    add_config_options(line)
    line.add("--backend", default="auto", metavar="NAME", help="Engine: pytorch, tensorflow, or auto (its own).")
    line.add_alias("--device", "execution.device", "NAME", text="auto, cpu, cuda or cuda:<index>.")
    line.add_alias(
        "--epie-iterations", "inference.epie_iterations", "INT", text="Passes of ePIE that polish the image."
    )
    line.add_alias("--no-progress", "execution.progress", value="false", text="No bars.")
    add_message_options(line)
    line.accept_unused_section("training", "the model file says how it was trained")
    line.add_section("inference", InferenceConfig, "Inference")
    line.add_section("execution", ExecutionConfig, "Execution")
    return line


def run(options: Namespace, terminal: Terminal, line: CommandLine) -> None:
    """Load, reconstruct, write, draw, tell."""
    settings = configs(options)
    execution, inference = settings["execution"], settings["inference"]
    scan_path = line.require(options, "scan", "SCAN")
    output = line.require(options, "output", "--output FOLDER")
    with result_folder(output, options.overwrite) as folder:
        scan = load(options, scan_path)
        with started_quietly(terminal):
            model = api.load_model(options.model, options.backend, execution)
        model_file = str(options.model or SHIPPED)
        costs = costs_of(model_file, model)
        attributes = provenance(model, inference, {"model_file": model_file, "data_sha256": scan.data_hash()})
        incremental = IncrementalImage(folder, scan, costs, attributes)
        with terminal.progress(execution.progress) as shown:
            with incremental.kept_on_signals(shown) as on_event:
                result = make_result(scan, model, inference, on_event, incremental)
            remove_earlier(folder, BESIDE_IMAGE)
            write_result(folder, result, costs, attributes)
            draw_result(folder, result)
            judge(folder, result, shown)
        title = f"Reconstruction of {scan.source}"
        name = options.model or "the network that ships with the package"
        show_rows(terminal, title, [("model", f"{name} ({model.backend})"), *result_rows(result)])
        show_comparisons(terminal, result.comparisons, "Against the known object")
        show_assessment(terminal, result)
        show_place(terminal, folder)


def costs_of(model_file: str, model: Model) -> list[float]:
    """Return the training losses that a model file remembers, one per epoch; none where it had no epochs."""
    name = model.train_loss_name
    return [float(epoch[name]) for epoch in read_bundle(model_file).history if name in epoch]
