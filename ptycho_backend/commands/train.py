"""``ptychopinn train``: a scan goes in, a model and a reconstruction come out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
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
from ptycho_backend.commands.describe import Rows
from ptycho_backend.commands.engines import started_quietly
from ptycho_backend.commands.figures import loss_rows, number, seconds, show_rows
from ptycho_backend.commands.files import (
    IMAGE_FILES,
    add_scan_options,
    draw,
    load,
    remove_earlier,
    result_folder,
)
from ptycho_backend.commands.incremental_image import IncrementalImage
from ptycho_backend.commands.results import (
    Result,
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
from ptycho_backend.config import ExecutionConfig, InferenceConfig, ModelConfig, TrainingConfig, validate
from ptycho_backend.data.scan import Scan
from ptycho_backend.engines.registry import FRAMEWORKS, get_backend
from ptycho_backend.errors import ConfigError, ShapeError
from ptycho_backend.events import OnEvent, ignore
from ptycho_backend.model_file.run import CONFIG, Run
from ptycho_backend.plots import pictures
from ptycho_backend.runtime.progress import Terminal
from ptycho_backend.training.checkpoints import FOLDER, SUFFIX
from ptycho_backend.training.parallel import process_rank

SECTIONS: dict[str, type[Any]] = {
    "training": TrainingConfig,
    "execution": ExecutionConfig,
    "inference": InferenceConfig,
}
configs = partial(sections, config_types=SECTIONS)  # what --print_config prints


def command_line() -> CommandLine:
    """Return the options."""
    line = CommandLine(
        "train",
        "SCAN --output FOLDER [options]",
        "Train a model on a scan, reconstruct the scan with it, and say how good it is.",
    )
    add_scan_options(line)
    add_output_options(line, "Folder for the run")
    add_config_options(line)
    line.add_alias("--backend", "training.backend", "NAME", text="Engine: auto, pytorch or tensorflow.")
    line.add_alias("--epochs", "training.nepochs", "INT", text="Passes over the data.")
    line.add_alias("--from-scratch", "training.start", value="scratch", text="Start from random weights.")
    line.add_alias("--device", "execution.device", "NAME", text="auto, cpu, cuda or cuda:<index>.")
    line.add_alias("--logger", "execution.logger", "NAME", text="csv, tensorboard, mlflow or none.")
    line.add_alias("--accumulate-grad-batches", "execution.accumulate_grad_batches", "INT")
    line.add_alias("--scheduler", "execution.scheduler", "NAME")
    line.add_alias("--no-progress", "execution.progress", value="false", text="One log line per epoch, no bars.")
    line.add("--resume", action="store_true", help="Go on with the training that was stopped in the output folder.")
    line.add("--no-reconstruct", action="store_true", help="Stop after training.")
    add_message_options(line)
    line.add_section("training", TrainingConfig, "Training")
    line.set_default("training.model.N", 0, "Side of a pattern and of a patch, pixels; 0 takes the scan's.")
    line.add_section("execution", ExecutionConfig, "Execution")
    line.add_section("inference", InferenceConfig, "Inference (reconstruction after training)")
    line.earlier_settings = settings_of_stopped
    return line


def settings_of_stopped(options: Namespace) -> str | None:
    """Return the configuration of the run that is to be resumed, which the command line may repeat but not change."""
    file = Path(options.output or "") / FOLDER / CONFIG
    return str(file) if options.resume and options.output and file.exists() else None


def run(options: Namespace, terminal: Terminal, line: CommandLine) -> None:
    """Train, write the model, reconstruct, write the image, draw, tell."""
    settings = configs(options)
    scan_path = line.require(options, "scan", "SCAN")
    output = line.require(options, "output", "--output FOLDER")
    if process_rank(settings["execution"]).rank > 0:
        return take_part(options, settings, load(options, scan_path))
    with result_folder(output, options.overwrite or options.resume) as folder:
        scan = load(options, scan_path)
        training = sized(settings["training"], scan, options)
        with started_quietly(terminal):
            get_backend(training.backend).devices()
        with terminal.progress(settings["execution"].progress) as on_event:
            checkpoints = checkpoint_folder(folder, options.resume)
            trained = api.train(scan, training, settings["execution"], on_event, checkpoints, options.resume)
            remove_earlier(folder, (*IMAGE_FILES, "losses.png"))
            trained.write_into(folder)
            result = None
            if not options.no_reconstruct:
                result = reconstructed(folder, trained, scan, settings["inference"], on_event)
        draw_losses(folder, trained)
        tell(terminal, folder, trained, scan, result)


def take_part(options: Namespace, settings: Mapping[str, Any], scan: Scan) -> None:
    """Train beside the process that writes and tells."""
    training = sized(settings["training"], scan, options)
    folder = Path(options.output) / FOLDER
    api.train(scan, training, settings["execution"], ignore, folder, options.resume)


def checkpoint_folder(folder: Path, resume: bool) -> Path:
    """Return where checkpoints go, without those of an earlier run unless that one goes on."""
    checkpoints = folder / FOLDER
    if not resume:
        for path in checkpoints.glob(f"*{SUFFIX}"):
            path.unlink()
    return checkpoints


def sized(training: TrainingConfig, scan: Scan, options: Namespace) -> TrainingConfig:
    """Take the model's size from the scan where nobody has given one, or refuse a scan of another size."""
    wanted = training.model.N or scan.N
    if wanted != scan.N:
        raise ShapeError(
            "Model and diffraction patterns must have the same side length.",
            expected=f"patterns of {wanted}×{wanted} px, because training.model.N={wanted}",
            received=f"patterns of {scan.N}×{scan.N} px in '{scan.source}'",
            fix=f"--training.model.N 0 takes the scan's size, --resize {wanted} crops or zero-pads the scan",
        )
    try:
        validate(ModelConfig(N=wanted))
    except ConfigError as error:
        raise ShapeError(
            "Networks take patterns of certain sizes.",
            expected="a side that is a multiple of 16, from 32 to 512 px",
            received=f"patterns of {scan.N}×{scan.N} px in '{scan.source}'",
            fix=f"--resize {min(512, max(32, round(scan.N / 16) * 16))} crops or zero-pads the detector",
        ) from error
    training.model.N = wanted
    return training


def reconstructed(folder: Path, trained: Run, scan: Scan, inference: InferenceConfig, on_event: OnEvent) -> Result:
    """Reconstruct the scan that the model was trained on, and write and draw it."""
    costs = [float(epoch[trained.model.train_loss_name]) for epoch in trained.history]
    attributes = provenance(trained.model, inference, trained.provenance)
    incremental = IncrementalImage(folder, scan, costs, attributes)
    with incremental.kept_on_signals(on_event) as told:
        result = make_result(scan, trained.model, inference, told, incremental)
    write_result(folder, result, costs, attributes)
    draw_result(folder, result)
    judge(folder, result, on_event)
    return result


def draw_losses(folder: Path, trained: Run) -> None:
    """Draw the losses; the shot-noise floor belongs to the Poisson loss alone."""
    training = trained.training
    pure = trained.model.loss_name == "poisson" and training.nll_weight == 1.0
    pure = pure and training.mae_weight == training.realspace_weight == training.realspace_mae_weight == 0.0
    floor = trained.summary["shot_noise_floor"] if pure else None
    draw(pictures.plot_losses, folder / "losses.png", trained.history, floor, title="Training")


def tell(terminal: Terminal, folder: Path, trained: Run, scan: Scan, result: Result | None) -> None:
    """Show the figures of a run."""
    rows = training_rows(trained, scan)
    show_rows(terminal, "Training", rows + (result_rows(result) if result else []))
    if result:
        show_comparisons(terminal, result.comparisons, "Against the known object")
        show_assessment(terminal, result)
    show_place(terminal, folder)


def training_rows(trained: Run, scan: Scan) -> Rows:
    """Return the figures of a training."""
    summary, training = trained.summary, trained.training
    refined = summary.get("probe_refinement_seconds", 0.0)
    fitting = summary["training_seconds"] - refined
    seen = (training.n_groups or len(scan)) * training.model.channels * len(trained.history)
    best = min(trained.history, key=lambda epoch: monitored(epoch, trained))
    score = number(monitored(best, trained), ".4g")
    held_out = trained.model.val_loss_name in trained.history[-1]
    return [
        ("engine", engine_text(trained)),
        *loss_rows(summary, "on held-out patterns" if held_out else "on training patterns"),
        ("best epoch", f"{best['epoch']:.0f} of {len(trained.history)} ({trained.monitor} {score})"),
        ("probe", refinement_text(summary, training.probe_iterations)),
        ("training time", f"{seconds(fitting)} ({number(seen / max(fitting, 1e-9), '.3g')} patterns/s)"),
    ]


def engine_text(trained: Run) -> str:
    """Return the engine with the version of its framework."""
    package = FRAMEWORKS.get(trained.model.backend, (("",), ""))[0][0]
    return f"{trained.model.backend} {trained.provenance['versions'].get(package, '')}".strip()


def refinement_text(summary: Mapping[str, Any], passes: int) -> str:
    """Say what became of the probe."""
    taken = summary.get("probe_refinement_seconds", 0.0)
    if summary.get("probe_refined"):
        return f"refined by {passes} passes of ePIE in {seconds(taken)}"
    return f"as given; {passes} passes of ePIE in {seconds(taken)} made it no better" if taken else "as given"


def monitored(epoch: Mapping[str, float], trained: Run) -> float:
    """Return what an epoch is judged by; what is not a number is the worst."""
    value = epoch.get(trained.monitor, math.inf)
    return math.inf if math.isnan(value) else value
