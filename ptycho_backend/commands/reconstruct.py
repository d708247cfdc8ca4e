"""``ptychopinn reconstruct``: a scan and a trained model give an image."""

from __future__ import annotations

from functools import partial
from typing import Any

from jsonargparse import Namespace

from ptycho_backend import api
from ptycho_backend.bundle import read_bundle
from ptycho_backend.commands.command_line import CommandLine
from ptycho_backend.commands.common import (
    add_config_options,
    add_message_options,
    add_output_options,
    sections,
)
from ptycho_backend.commands.engines import started_quietly
from ptycho_backend.commands.figures import show_rows
from ptycho_backend.commands.files import IMAGE_FILES, add_scan_options, load, remove_earlier, result_folder
from ptycho_backend.commands.results import (
    draw_result,
    judge,
    make_result,
    provenance,
    result_rows,
    show_comparisons,
    show_place,
    show_trust,
    write_result,
)
from ptycho_backend.config import ExecutionConfig, InferenceConfig
from ptycho_backend.progress import Terminal

SECTIONS: dict[str, type[Any]] = {"inference": InferenceConfig, "execution": ExecutionConfig}
configs = partial(sections, config_types=SECTIONS)  # what --print_config prints


def command_line() -> CommandLine:
    """Return the options."""
    line = CommandLine(
        "reconstruct", "SCAN --model RUN --output FOLDER [options]", "Reconstruct a scan with a trained model."
    )
    add_scan_options(line)
    line.add("--model", "-m", metavar="PATH", help="Run folder, or its wts.h5.zip.")
    add_output_options(line, "Folder for the results")
    add_config_options(line)
    line.add("--backend", default="auto", metavar="NAME", help="Engine: pytorch, tensorflow, or auto (its own).")
    line.add_alias("--device", "execution.device", "NAME", text="auto, cpu, cuda or cuda:<index>.")
    line.add_alias("--refine-passes", "inference.refine_passes", "INT", text="Passes of ePIE that polish the image.")
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
    model_path = line.require(options, "model", "--model RUN")
    output = line.require(options, "output", "--output FOLDER")
    with result_folder(output, options.overwrite) as folder:
        scan = load(options, scan_path)
        with started_quietly(terminal):
            model = api.load_model(model_path, options.backend, execution)
        with terminal.progress(execution.progress) as on_event:
            result = make_result(scan, model, inference, on_event)
            remove_earlier(folder, IMAGE_FILES)
            history = read_bundle(model_path).history
            costs = [float(epoch.get(model.train_loss_name, float("nan"))) for epoch in history]
            made_from = {"model_file": str(model_path), "data_sha256": scan.data_hash()}
            write_result(folder, result, costs, provenance(model, inference, made_from))
            draw_result(folder, result)
            judge(folder, result, on_event)
        title = f"Reconstruction of {scan.source}"
        show_rows(terminal, title, [("model", f"{model_path} ({model.backend})"), *result_rows(result)])
        show_comparisons(terminal, result.comparisons, "Against the known object")
        show_trust(terminal, result)
        show_place(terminal, folder)
