"""``ptychopinn reconstruct``: reconstruct a scan from a flat object, or with a network."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from ptycho_backend import api
from ptycho_backend.commands.command_line import CommandLine
from ptycho_backend.commands.common import (
    add_compare_option,
    add_config_options,
    add_json_option,
    add_message_options,
    add_output_options,
    sections,
)
from ptycho_backend.commands.engines import captured_library_messages
from ptycho_backend.commands.figures import show_rows
from ptycho_backend.commands.files import RECONSTRUCTING, add_scan_options, load, result_folder
from ptycho_backend.commands.incremental_image import IncrementalImage
from ptycho_backend.commands.json_output import result_document, show_json
from ptycho_backend.commands.reports import add_report_option, write_run_report
from ptycho_backend.commands.results import (
    Request,
    compute_result,
    provenance,
    result_rows,
    run_reconstruction,
    show_result,
)
from ptycho_backend.commands.scan_checks import add_strict_option, load_checked
from ptycho_backend.commands.stages import reconstruction_stages
from ptycho_backend.commands.worker import silent_process
from ptycho_backend.config import ExecutionConfig, InferenceConfig, fields_of
from ptycho_backend.engines.model import Model
from ptycho_backend.live.record import recorded
from ptycho_backend.model_file.bundle import read_bundle
from ptycho_backend.network.shipped import SHIPPED
from ptycho_backend.reconstruction import kernels_of
from ptycho_backend.runtime.progress import Terminal
from ptycho_backend.training.parallel import launched_rank

SECTIONS: dict[str, type[Any]] = {"inference": InferenceConfig, "execution": ExecutionConfig}
EFFECTIVE = {"device", "precision", "compile", "deterministic", "threads", "progress"}  # the others are for trainings
configs = partial(sections, config_types=SECTIONS)  # content of --print_config


def command_line() -> CommandLine:
    """Return the options."""
    line = CommandLine(
        "reconstruct",
        "SCAN --output FOLDER [--model RUN] [options]",
        "Reconstruct a scan, without a network or with a trained model.",
    )
    line.add_section("inference", InferenceConfig, "Inference")
    line.add_section("execution", ExecutionConfig, "Execution", inert=fields_of(ExecutionConfig).keys() - EFFECTIVE)
    add_scan_options(line)
    add_strict_option(line, "Stop before any work if a check of the scan is doubtful or wrong.")
    line.add("--model", "-m", metavar="PATH", help="Run folder or its wts.h5.zip; without it from a flat object.")
    add_output_options(line, "Folder for the results")
    add_config_options(line)
    add_compare_option(line)
    line.add("--backend", default="auto", help='Engine: "numpy", "pytorch", "tensorflow" or "auto".')
    line.add_alias("--device", "execution.device")
    line.add_alias("--start", "inference.start")
    line.add_alias("--no-progress", "execution.progress", value="false", text="Log lines instead of bars.")
    add_report_option(line)
    add_json_option(line)
    add_message_options(line)
    line.ignore_section("training", "the model file contains it")
    line.usual = (
        *("--output", "--model", "--start", "--device", "--exclude", "--resize", "--strict", "--compare"),
        *("--overwrite", "--config", "--print-config", "--json", "--quiet"),
    )
    return line


def run(options: Namespace, terminal: Terminal, line: CommandLine) -> None:
    """Reconstruct a scan, write and draw the image, and show the figures."""
    settings = configs(options)
    execution, inference = settings["execution"], settings["inference"]
    scan_path = line.require(options, "scan", "SCAN")
    output = line.require(options, "output", "--output FOLDER")
    terminal.json = options.json
    if launched_rank().rank > 0:
        with silent_process():
            scan = load(options, scan_path)
            with captured_library_messages(terminal):
                request = request_of(options, inference, execution)
            compute_result(scan, request)
            return
    with result_folder(output, options.overwrite, RECONSTRUCTING) as folder:
        scan = load_checked(options, scan_path)
        with captured_library_messages(terminal):
            request = request_of(options, inference, execution)
        costs, more, rows = [], {"data_sha256": scan.data_hash()}, []
        if request.model is not None:
            model_file = str(options.model or SHIPPED)
            costs, more["model_file"] = training_losses(model_file, request.model), model_file
            rows = [("model", f"{options.model or 'the shipped network'} ({request.model.backend})")]
        incremental = IncrementalImage(folder, scan, costs, provenance(request, more))
        plan = reconstruction_stages(inference, request.model is not None)
        with terminal.progress(execution.progress, plan) as shown, recorded(output, shown) as on_event:
            result = run_reconstruction(incremental, request, on_event)
        if not options.no_report:
            write_run_report(folder, terminal, settings, result)
    show_rows(terminal, f"Reconstruction of {scan.source}", [*rows, *result_rows(result)])
    show_result(terminal, Path(output), result)
    if options.json:
        show_json(terminal, result_document(Path(output), result, terminal.warnings))


def request_of(options: Namespace, inference: InferenceConfig, execution: ExecutionConfig) -> Request:
    """Return the settings of the reconstruction; a model is loaded only where one is needed."""
    model = network = None
    if options.model or inference.start == "network":
        model = network = api.load_model(options.model, options.backend, execution)
    elif options.compare:
        network = api.load_model(None, options.backend, execution)
    kernels = kernels_of(model, options.backend, execution.device)
    return Request(model, inference, kernels, options.compare, network)


def training_losses(model_file: str, model: Model) -> list[float]:
    """Return the training loss of every epoch in a model file; [] for a file without history."""
    name = model.train_loss_name
    return [float(epoch[name]) for epoch in read_bundle(model_file).history if name in epoch]
