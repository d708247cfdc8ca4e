"""Public functions: train, reconstruct, load_model and evaluate, on any engine."""

from __future__ import annotations

import copy
import dataclasses
import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_backend.checks import check_training
from ptycho_backend.compat.deprecated_names import modern_execution
from ptycho_backend.config import ExecutionConfig, InferenceConfig, TrainingConfig, validate
from ptycho_backend.data.batching import Samples, split
from ptycho_backend.data.grouping import Groups, group_positions
from ptycho_backend.data.image import Image, well_covered
from ptycho_backend.data.scan import Scan
from ptycho_backend.data.selection import examined
from ptycho_backend.engines.contract import Backend
from ptycho_backend.engines.model import Model, Weights, loss_names_of
from ptycho_backend.engines.registry import network_backend
from ptycho_backend.errors import ConfigError, DataError
from ptycho_backend.events import OnEvent, ignore
from ptycho_backend.model_file.bundle import Bundle
from ptycho_backend.model_file.run import Run, provenance_of
from ptycho_backend.network.loading import load_model as load_model
from ptycho_backend.network.physics_constants import constraint_share
from ptycho_backend.network.shipped import pretrained_weights
from ptycho_backend.network.training_domain import SCAN_CONDITIONS, Conditions, scan_conditions, training_domain_of
from ptycho_backend.physics.calibration import Calibration, calibrate
from ptycho_backend.physics.losses import poisson, shot_noise_floor
from ptycho_backend.reconstruction import kernels_of, prepare
from ptycho_backend.runtime.devices import choose_device
from ptycho_backend.runtime.global_state import preserved_global_state
from ptycho_backend.runtime.precision import check_precision
from ptycho_backend.solver.probe_refinement import refined_calibration
from ptycho_backend.training.checkpoints import (
    FOLDER,
    VALIDATION_HASH,
    CheckpointWriter,
    check_resumable,
    read_checkpoint,
)
from ptycho_backend.training.loggers import MetricsLogger, make_logger, recording
from ptycho_backend.training.monitoring import resolve_monitor
from ptycho_backend.training.options import FitOptions
from ptycho_backend.training.parallel import ProcessRank, check_processes, on_own_device, process_rank
from ptycho_backend.training.schedules import first_rate

if TYPE_CHECKING:
    from ptycho_backend.quality.metrics import Comparison

logger = logging.getLogger(__name__)

FLOOR_GROUPS = 256  # number of groups for the comparison of the loss with the shot noise
OVERFITTED = 0.9  # a loss below this share of the floor fits the noise


@preserved_global_state()
def train(
    scan: Scan,
    config: TrainingConfig | None = None,
    execution: ExecutionConfig | None = None,
    on_event: OnEvent = ignore,
    checkpoints: Path | str | None = None,
    resume: bool = False,
    validation: Scan | None = None,
    callbacks: Sequence[Any] = (),
) -> Run:
    """
    Train a model on a scan.

    Parameters
    ----------
    scan : Scan
    config : TrainingConfig, optional
        Options of the training; None takes the defaults, or with `resume` those of the checkpoint.
        ``model.N = 0`` takes the pattern size of the scan.
    execution : ExecutionConfig, optional
    on_event : callable, optional
        Receives :mod:`ptycho_backend.events`.
    checkpoints : path, optional
        Folder for checkpoints of the last and the best epochs. With it, SIGINT and SIGTERM end the training after
        the current step and a last checkpoint. The metrics of every epoch are written to the parent of a folder
        with the name "checkpoints", else to the folder itself.
    resume : bool
        Continue from the last checkpoint in that folder, on either engine, with the same result as without a stop.
    validation : Scan, optional
        Separate scan for the validation, in the units of `scan`. Every epoch is validated on the whole of it,
        and `scan` is used for training only.
    callbacks : sequence, optional
        Callbacks of the framework (Lightning's or Keras' ``Callback``), which run after those of the engine.
        With several processes they run in this one, once per epoch.

    Returns
    -------
    Run

    Raises
    ------
    ConfigError, DataError, ShapeError, DeviceError, BackendNotInstalledError, ModelFileError, OutputError
    TrainingError
        If a loss is not finite.
    TrainingStopped
        If a signal stopped the training.
    """
    started, scan, validation = time.perf_counter(), examined(scan), validation and examined(validation)
    previous = _previous_run(checkpoints) if resume else None
    training = _with_scan_size(config or (previous.training if previous else TrainingConfig()), scan)
    execution = _checked_execution(execution)
    validate(training)
    check_training(training, scan, validation)
    backend = _backend_of(training)
    # All checks come before the probe refinement, which takes minutes for a large scan.
    resolve_monitor(execution.monitor, loss_names_of(training))
    process, local_execution = _local_process(execution, backend)
    provenance = _provenance(backend, training, scan, validation)
    provenance["start"], weights = _initial_weights(training, previous)
    training = dataclasses.replace(training, learning_rate=first_rate(training, provenance["start"]))
    if previous:
        check_resumable(previous, training, provenance)
    metrics = _logger(execution, checkpoints, previous) if process.rank == 0 else None
    groups, validation_groups = _groups(scan, validation, training)
    writer = CheckpointWriter(checkpoints, provenance, execution, process.rank > 0) if checkpoints else None
    calibration, refinement = _calibrate_and_refine(scan, training, on_event, previous)
    fitted, held_out = _samples(groups, validation_groups, training, calibration)
    model = backend.create_model(training, calibration, local_execution)
    model.set_weights({**model.get_weights(), **weights})
    measured, model.training_domain = _conditions_and_domain(scan, calibration)
    options = _fit_options(model, writer, previous, metrics, callbacks)
    claim, signals = (writer.claimed(), options.stop.on_signals()) if writer else (nullcontext(), nullcontext())
    with claim, recording(metrics, training, execution), signals:
        history = backend.fit(model, fitted, held_out, local_execution, on_event, options)
    duration = {"training_seconds": time.perf_counter() - started}
    summary = duration | refinement | _fit_quality(model, held_out or fitted)
    monitor = resolve_monitor(execution.monitor, loss_names_of(training), held_out is not None)
    return Run(model, training, execution, history, monitor, summary, {**provenance, **measured})


@preserved_global_state()
def reconstruct(
    scan: Scan,
    model: Model | None = None,
    inference: InferenceConfig | None = None,
    on_event: OnEvent = ignore,
    backend: str = "auto",
    device: str = "auto",
    **fields: Any,
) -> Image:
    """
    Reconstruct a scan, with a model or without one.

    Parameters
    ----------
    scan : Scan
    model : Model, optional
        Model of a :class:`Run` or of :func:`load_model`; its network predicts the initial object. Without a model the
        solver starts from a flat object, and needs no framework.
    inference : InferenceConfig, optional
        Options; `start` sets the initial object, with "network" also the shipped network.
    on_event : callable, optional
    backend : str
        Engine of the solver: "numpy", "pytorch", "tensorflow" or another entry point. "auto" takes the engine of the
        model, or an installed one. On a processor every engine takes the NumPy kernels, the fastest ones there.
    device : str
        Device of the solver: "auto", "cpu", "cuda" or "cuda:<index>"; "auto" takes the device of the model, or a GPU
        if there is one.
    **fields
        Fields of InferenceConfig by name; they take precedence over `inference`.

    Returns
    -------
    Image
        ``.obj`` (y, x) complex64, ``.coverage`` (y, x) float32, ``.origin_px`` (y, x).

    Raises
    ------
    ConfigError, DataError, ShapeError, DeviceError, UnknownBackendError, BackendNotInstalledError
    """
    settings = with_fields(inference or InferenceConfig(), fields)
    validate(settings)
    kernels = kernels_of(model, backend, device)
    if model is None and settings.start == "network":
        model = load_model(None, backend, ExecutionConfig(device=device))
    return prepare(scan, model, settings, kernels, on_event).image(on_event)


def evaluate(image: Image, truth: Scan | Image) -> Comparison:
    """
    Compare an image with the known object: PSNR, SSIM and FRC after registration.

    Parameters
    ----------
    image : Image
    truth : Scan with a known object, or Image

    Raises
    ------
    DataError
        If the scan has no known object.
    """
    from ptycho_backend.quality.metrics import compare

    if isinstance(truth, Image):
        covered, reference = well_covered(image), well_covered(truth)
        found = compare(covered.obj, covered.origin_px, reference.obj, reference.origin_px)
        return dataclasses.replace(found, pixel_size_m=image.pixel_size_m or truth.pixel_size_m)
    if truth.obj is None:
        raise DataError(
            "An evaluation needs a known object.",
            expected="an object in the scan ('objectGuess' in an NPZ file)",
            received=f"none in '{truth.source}'",
            fix="compare with another reconstruction instead",
        )
    # The area under the positions of the image: an orientation may have turned those of the scan.
    positions_px = truth.positions_px if image.experiment is None else image.experiment.positions_px
    found = compare(image.obj, image.origin_px, truth.obj, truth.obj_origin_px, positions_px)
    return dataclasses.replace(found, pixel_size_m=truth.pixel_size_m)


def with_fields(config: InferenceConfig, fields: dict[str, Any]) -> InferenceConfig:
    """Return a copy of a config with some fields replaced; an error for an unknown name suggests the nearest."""
    from ptycho_backend.config import from_dict, to_dict

    return from_dict(InferenceConfig, {**to_dict(config), **fields}, source="the call") if fields else config


def _with_scan_size(config: TrainingConfig, scan: Scan) -> TrainingConfig:
    training = copy.deepcopy(config)
    if training.model.N == 0:
        training.model.N = scan.N
    return training


def _backend_of(training: TrainingConfig) -> Backend:
    """Return the engine of a configuration, and replace "auto" by its name."""
    backend = network_backend(training.backend)
    training.backend = backend.name
    return backend


def _checked_execution(config: ExecutionConfig | None) -> ExecutionConfig:
    execution = modern_execution(config or ExecutionConfig())
    validate(execution)
    return execution


def _previous_run(checkpoints: Path | str | None) -> Bundle:
    if checkpoints is None:
        raise ConfigError(
            "Resuming needs the folder of the checkpoints.",
            expected="checkpoints=<folder>",
            received="resume=True alone",
            fix="give the folder of the stopped training",
        )
    return read_checkpoint(checkpoints)


def _local_process(execution: ExecutionConfig, backend: Backend) -> tuple[ProcessRank, ExecutionConfig]:
    """Return the rank of this process, and the options with its device."""
    devices = backend.devices()
    check_precision(execution.precision, choose_device(execution.device, devices, backend.name))
    check_processes(execution, backend.name, devices)
    process = process_rank(execution)
    return process, on_own_device(execution, devices, process)


def _logger(
    execution: ExecutionConfig, checkpoints: Path | str | None, previous: Bundle | None
) -> MetricsLogger | None:
    folder = Path(checkpoints) if checkpoints else None
    if folder and folder.name == FOLDER:
        folder = folder.parent
    return make_logger(execution.logger, folder, history=previous.history if previous else [])


def _initial_weights(training: TrainingConfig, previous: Bundle | None) -> tuple[str, Weights]:
    """Return the origin of the initial weights, and those that are not random."""
    if previous:
        return previous.provenance.get("start", "scratch"), previous.weights
    if training.start == "scratch" or training.model.architecture != "unet":
        return "scratch", {}
    weights = pretrained_weights(training.model)
    if weights is None:
        logger.info("training starts from scratch: the shipped network has other sizes than this model")
        return "scratch", {}
    logger.info("training starts from the shipped network")
    return "pretrained", weights


def _fit_options(
    model: Model,
    writer: CheckpointWriter | None,
    previous: Bundle | None,
    metrics: MetricsLogger | None,
    callbacks: Sequence[Any],
) -> FitOptions:
    if writer:
        writer.check_free_space(model)
    options = FitOptions(checkpoints=writer, logger=metrics, callbacks=callbacks)
    if previous is not None:
        options.resume, options.history = previous.state, previous.history
    return options


def _calibrate_and_refine(
    scan: Scan, training: TrainingConfig, on_event: OnEvent, previous: Bundle | None
) -> tuple[Calibration, dict[str, Any]]:
    if previous and previous.state:
        return previous.calibration, {"resumed_after_epoch": previous.state.epoch}
    calibration = calibrate(scan, training.model, training.nphotons)
    return refined_calibration(scan, calibration, training, training.probe_iterations, on_event)


def _provenance(backend: Backend, training: TrainingConfig, scan: Scan, validation: Scan | None) -> dict[str, Any]:
    made_by = provenance_of(backend.name, backend.versions(), training.seed, scan.data_hash())
    return made_by if validation is None else {**made_by, VALIDATION_HASH: validation.data_hash()}


def _groups(
    scan: Scan, validation: Scan | None, training: TrainingConfig
) -> tuple[tuple[Scan, Groups], tuple[Scan, Groups] | None]:
    """Return both scans with their groups."""

    def grouped(data: Scan, n_groups: int | None, stream: int) -> tuple[Scan, Groups]:
        rng = np.random.default_rng([training.seed, stream])
        gridsize, neighbors = training.model.gridsize, training.neighbor_count
        return data, group_positions(data.positions_px, gridsize, neighbors, n_groups, rng)

    return grouped(scan, training.n_groups, 6), None if validation is None else grouped(validation, None, 7)


def _samples(
    groups: tuple[Scan, Groups],
    validation_groups: tuple[Scan, Groups] | None,
    training: TrainingConfig,
    calibration: Calibration,
) -> tuple[Samples, Samples | None]:
    """Return the samples for training and for validation: a separate scan, or a part of the training scan."""
    with_labels = training.model.model_type == "supervised" or training.realspace_mae_weight > 0
    samples = Samples(*groups, calibration, with_labels)
    if validation_groups is not None:
        return samples, Samples(*validation_groups, calibration, with_labels)
    fitted, held_out = split(len(samples), training.validation_fraction, training.seed)
    return samples.subset(fitted), samples.subset(held_out) if len(held_out) else None


def _conditions_and_domain(scan: Scan, calibration: Calibration) -> tuple[dict[str, Any], Conditions]:
    """Return the conditions of a scan for the provenance, and the training domain of a network for this scan."""
    conditions = scan_conditions(scan, calibration.probe, calibration.photons_per_pattern)
    measured = {SCAN_CONDITIONS: conditions.to_dict()}
    return measured, training_domain_of(measured, calibration)


def _fit_quality(model: Model, samples: Samples) -> dict[str, Any]:
    """Return the mean half-deviance of some groups, the shot-noise floor, and whether the loss fits the noise."""
    batches = list(samples.subset(np.arange(min(FLOOR_GROUPS, len(samples)))).batches(16))
    constrained = constraint_share(model.training) > 0  # the patches of the loss
    expected = np.concatenate([model.expected_counts(batch, amplitude_constraint=constrained) for batch in batches])
    scale = model.calibration.counts_per_intensity
    counts = np.concatenate([batch.x for batch in batches]).astype(np.float64) ** 2 * scale
    loss, floor = poisson(expected, counts, samples.mask), shot_noise_floor(expected, samples.mask)
    overfitted = loss < OVERFITTED * floor
    if overfitted:
        logger.info("half-deviance %.3g lies below the shot-noise floor %.3g: the noise was fitted", loss, floor)
    return {"half_deviance": loss, "shot_noise_floor": floor, "overfitted": bool(overfitted)}
