"""``ptychopinn train``: train a model on a scan, and reconstruct the scan with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from ptycho_backend import api, plots
from ptycho_backend.checks import check_network_side
from ptycho_backend.commands.command_line import CommandLine
from ptycho_backend.commands.common import (
    add_compare_option,
    add_config_options,
    add_message_options,
    add_output_options,
    sections,
)
from ptycho_backend.commands.describe import Rows
from ptycho_backend.commands.engines import captured_library_messages
from ptycho_backend.commands.figures import loss_rows, number, seconds, show_rows
from ptycho_backend.commands.files import (
    LAST_CHECKPOINT,
    LOSSES,
    TRAINING,
    add_scan_options,
    draw,
    load,
    result_folder,
)
from ptycho_backend.commands.incremental_image import IncrementalImage
from ptycho_backend.commands.reports import add_report_option, write_run_report
from ptycho_backend.commands.results import (
    Request,
    Result,
    compute_result,
    provenance,
    result_rows,
    run_reconstruction,
    show_files,
    show_result,
)
from ptycho_backend.commands.scan_checks import add_strict_option, load_checked
from ptycho_backend.commands.stages import training_stages
from ptycho_backend.commands.worker import silent_process
from ptycho_backend.config import ExecutionConfig, InferenceConfig, TrainingConfig
from ptycho_backend.data.run_folder import resumable_folder
from ptycho_backend.data.scan import Scan
from ptycho_backend.engines.registry import FRAMEWORKS, network_backend
from ptycho_backend.errors import ShapeError
from ptycho_backend.events import OnEvent, ignore
from ptycho_backend.live.record import recorded
from ptycho_backend.model_file.run import CONFIG, Run
from ptycho_backend.reconstruction import kernels_of
from ptycho_backend.runtime.progress import Terminal
from ptycho_backend.training.checkpoints import FOLDER
from ptycho_backend.training.parallel import launched_rank, process_rank

SECTIONS: dict[str, type[Any]] = {
    "training": TrainingConfig,
    "execution": ExecutionConfig,
    "inference": InferenceConfig,
}
configs = partial(sections, config_types=SECTIONS)  # content of --print_config


def command_line() -> CommandLine:
    """Return the options."""
    line = CommandLine(
        "train",
        "SCAN --output FOLDER [options]",
        "Train a model on a scan, reconstruct the scan with it, and assess the reconstruction.",
    )
    line.add_section("training", TrainingConfig, "Training")
    line.add_section("execution", ExecutionConfig, "Execution")
    line.add_section("inference", InferenceConfig, "Inference (reconstruction after training)")
    add_scan_options(line)
    add_strict_option(line, "Stop before any work if a check of the scan is doubtful or wrong.")
    add_output_options(line, "Folder for the run")
    add_config_options(line)
    line.add_alias("--backend", "training.backend")
    line.add_alias("--epochs", "training.nepochs")
    line.add_alias("--from-scratch", "training.start", value="scratch", text="Start from random weights.")
    line.add_alias("--device", "execution.device")
    line.add_alias("--logger", "execution.logger")
    line.add_alias("--accumulate-grad-batches", "execution.accumulate_grad_batches")
    line.add_alias("--scheduler", "execution.scheduler")
    line.add_alias("--no-progress", "execution.progress", value="false", text="Log one line per epoch, without bars.")
    line.add("--resume", action="store_true", help="Continue the stopped training in the output folder.")
    line.add("--no-reconstruct", action="store_true", help="Stop after training.")
    add_compare_option(line)
    add_report_option(line)
    add_message_options(line)
    line.base_settings = stopped_run_settings
    line.usual = (
        *("--output", "--epochs", "--from-scratch", "--backend", "--device", "--exclude", "--resize", "--strict"),
        *("--compare", "--no-reconstruct", "--resume", "--overwrite", "--config", "--print-config", "--quiet"),
    )
    return line


def stopped_run_settings(options: Namespace) -> str | None:
    """Return the configuration file of the run to resume; the command line may repeat its settings, not change them."""
    if not (options.resume and options.output):
        return None
    file = resumable_folder(options.output, LAST_CHECKPOINT) / FOLDER / CONFIG
    return str(file) if file.exists() else None


def run(options: Namespace, terminal: Terminal, line: CommandLine) -> None:
    """Train, write the model, reconstruct, write the image, draw and show the figures."""
    settings = configs(options)
    scan_path = line.require(options, "scan", "SCAN")
    output = line.require(options, "output", "--output FOLDER")
    if process_rank(settings["execution"]).rank > 0:
        return train_as_worker(options, settings, load(options, scan_path))
    with result_folder(output, options.overwrite, TRAINING, options.resume) as folder:
        scan = load_checked(options, scan_path)
        training = with_scan_size(settings["training"], scan)
        with captured_library_messages(terminal):
            network_backend(training.backend).devices()
        plan = training_stages(settings["inference"], not options.no_reconstruct)
        with terminal.progress(settings["execution"].progress, plan) as shown, recorded(output, shown) as on_event:
            trained = api.train(scan, training, settings["execution"], on_event, folder / FOLDER, options.resume)
            trained.write_into(folder)
            result = None
            if not options.no_reconstruct:
                request = request_of(trained, settings["inference"], options.compare)
                result = reconstruct(folder, trained, scan, request, on_event)
        draw_losses(folder, trained)
        rows = training_rows(trained, scan)
        if not options.no_report:
            write_run_report(folder, terminal, settings, result, trained.history, rows)
    show_rows(terminal, "Training", rows + (result_rows(result) if result else []))
    show_result(terminal, Path(output), result) if result else show_files(terminal, Path(output))


def train_as_worker(options: Namespace, settings: Mapping[str, Any], scan: Scan) -> None:
    """Train and reconstruct in a process of rank above 0; the process of rank 0 writes the files."""
    training = with_scan_size(settings["training"], scan)
    folder = resumable_folder(options.output, LAST_CHECKPOINT) if options.resume else Path(options.output)
    trained = api.train(scan, training, settings["execution"], ignore, folder / FOLDER, options.resume)
    if launched_rank().world > 1 and not options.no_reconstruct:
        with silent_process():
            compute_result(scan, request_of(trained, settings["inference"], options.compare))


def request_of(trained: Run, inference: InferenceConfig, compare: bool) -> Request:
    """Return the settings of the reconstruction after the training."""
    return Request(trained.model, inference, kernels_of(trained.model), compare, trained.model)


def with_scan_size(training: TrainingConfig, scan: Scan) -> TrainingConfig:
    """
    Set a model size of 0 to the pattern size of the scan.

    Raises
    ------
    ShapeError
        If the sizes differ, or the network cannot have this size.
    """
    size = training.model.N or scan.N
    if size != scan.N:
        raise ShapeError.of_patterns(
            "Model and diffraction patterns must have the same side length.",
            f"patterns of {size}×{size} px, because training.model.N={size}",
            scan.N,
            scan.source,
            f"--training.model.N 0 takes the scan's size, --resize {size} crops or zero-pads the scan",
        )
    check_network_side(scan)
    training.model.N = size
    return training


def reconstruct(folder: Path, trained: Run, scan: Scan, request: Request, on_event: OnEvent) -> Result:
    """Reconstruct the scan of the training, and write, draw and assess the image."""
    costs = [float(epoch[trained.model.train_loss_name]) for epoch in trained.history]
    attributes = provenance(request, trained.provenance)
    return run_reconstruction(IncrementalImage(folder, scan, costs, attributes), request, on_event)


def draw_losses(folder: Path, trained: Run) -> None:
    """Draw the losses; the shot-noise floor applies to the pure Poisson loss only."""
    training = trained.training
    pure = trained.model.loss_name == "poisson" and training.nll_weight == 1.0
    pure = pure and training.mae_weight == training.realspace_weight == training.realspace_mae_weight == 0.0
    floor = trained.summary["shot_noise_floor"] if pure else None
    draw(plots.plot_losses, folder / LOSSES, trained.history, floor, title="Training")


def training_rows(trained: Run, scan: Scan) -> Rows:
    """Return the figures of a training."""
    summary, training = trained.summary, trained.training
    fit_seconds = summary["training_seconds"] - summary.get("probe_refinement_seconds", 0.0)
    n_patterns = (training.n_groups or len(scan)) * training.model.channels * len(trained.history)
    best = min(trained.history, key=lambda epoch: monitored_value(epoch, trained))
    score = number(monitored_value(best, trained), ".4g")
    validated = trained.model.val_loss_name in trained.history[-1]
    package = FRAMEWORKS.get(trained.model.backend, (("",), ""))[0][0]
    version = trained.provenance["versions"].get(package, "")
    return [
        ("engine", f"{trained.model.backend} {version}".strip()),
        *loss_rows(summary, "on held-out patterns" if validated else "on training patterns"),
        ("best epoch", f"{best['epoch']:.0f} of {len(trained.history)} ({trained.monitor} {score})"),
        ("probe", probe_refinement_text(summary, training.probe_iterations)),
        ("training time", f"{seconds(fit_seconds)} ({number(n_patterns / max(fit_seconds, 1e-9), '.3g')} patterns/s)"),
    ]


def probe_refinement_text(summary: Mapping[str, Any], iterations: int) -> str:
    """Return the outcome of the probe refinement."""
    duration = summary.get("probe_refinement_seconds", 0.0)
    effort = f"{iterations} iterations in {seconds(duration)}"
    if summary.get("probe_refined"):
        return f"refined by {effort}"
    return f"as given; {effort} gave no improvement" if duration else "as given"


def monitored_value(epoch: Mapping[str, float], trained: Run) -> float:
    """Return the monitored metric of an epoch; infinity for NaN or a missing value."""
    value = epoch.get(trained.monitor, math.inf)
    return math.inf if math.isnan(value) else value
