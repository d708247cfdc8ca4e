"""The front door: check, choose an engine, delegate."""

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
from ptycho_backend.engines.contract import Backend
from ptycho_backend.engines.model import Model, Weights, loss_names_of
from ptycho_backend.engines.registry import get_backend
from ptycho_backend.errors import ConfigError, DataError
from ptycho_backend.events import OnEvent, ignore
from ptycho_backend.model_file.bundle import Bundle, read_bundle
from ptycho_backend.model_file.run import Run, provenance_of
from ptycho_backend.network.physics_constants import constraint_share
from ptycho_backend.network.shipped import pretrained_weights, shipped_bundle
from ptycho_backend.network.training_domain import SCAN_CONDITIONS, scan_conditions, training_domain_of
from ptycho_backend.physics.calibration import Calibration, calibrate
from ptycho_backend.physics.losses import poisson, shot_noise_floor
from ptycho_backend.reconstruction import reconstruct_scan
from ptycho_backend.runtime.devices import choose_device
from ptycho_backend.runtime.precision import check_precision
from ptycho_backend.solver.probe_refinement import refined_calibration
from ptycho_backend.training.checkpoints import FOLDER, VALIDATION_HASH, Checkpoints, check_resumable, read_checkpoint
from ptycho_backend.training.loggers import MetricsLogger, make_logger, recording
from ptycho_backend.training.monitoring import resolve_monitor
from ptycho_backend.training.options import CheckpointWriter, FitOptions
from ptycho_backend.training.parallel import (
    ProcessRank,
    SilentCheckpointWriter,
    check_processes,
    on_own_device,
    process_rank,
)
from ptycho_backend.training.schedules import first_rate

if TYPE_CHECKING:
    from ptycho_backend.quality.metrics import Comparison

logger = logging.getLogger(__name__)

FLOOR_GROUPS = 256  # groups on which the fit is compared with the shot noise
OVERFITTED = 0.9  # a loss below this share of the floor has fitted the noise


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
        What to train; None takes the defaults with the scan's pattern size, or, to resume, those of the
        checkpoint. ``model.N = 0`` also takes the scan's size.
    execution : ExecutionConfig, optional
    on_event : callable, optional
        Receives :mod:`ptycho_backend.events`.
    checkpoints : path, optional
        Folder that receives the last and the best epochs. With it, SIGINT and SIGTERM end training after its
        step, kept, and the metrics of every epoch are written while it runs: into its parent where it is called
        "checkpoints", else into the folder itself.
    resume : bool
        Go on from the last checkpoint in that folder, on either engine, as if training had never stopped.
    validation : Scan, optional
        A scan that is held out whole, in the units of `scan`: every epoch is validated on all of it, and no group
        of `scan` is held out.
    callbacks : sequence, optional
        The framework's own callbacks (Lightning's ``Callback``, Keras' ``Callback``), which join those of the engine.
        Where training takes several processes they stay in this one, and are told of every epoch.

    Returns
    -------
    Run

    Raises
    ------
    ConfigError, DataError, ShapeError, DeviceError, BackendNotInstalledError, ModelFileError, OutputError
    TrainingError
        If a loss is not finite.
    TrainingStopped
        If it was stopped by a signal.
    """
    started = time.perf_counter()
    earlier = _earlier(checkpoints) if resume else None
    training = _own_copy(config or (earlier.training if earlier else TrainingConfig()), scan)
    execution = _checked_execution(execution)
    validate(training)
    check_training(training, scan, validation)
    backend = _backend_for(training)
    # What can be refused is refused before any work is done.
    resolve_monitor(execution.monitor, loss_names_of(training))
    rank, own = _place(execution, backend)
    provenance = _provenance(backend, training, scan, validation)
    training, provenance["start"], weights = _started(training, earlier)
    if earlier:
        check_resumable(earlier, training, provenance)
    metrics = _logger(execution, checkpoints, earlier) if rank.rank == 0 else None
    grouped = _grouped(scan, training, training.n_groups, 6)
    apart = None if validation is None else _grouped(validation, training, None, 7)
    writer = _writer(checkpoints, provenance, execution, rank) if checkpoints else None
    calibration, refinement = _calibrate_and_refine(scan, training, on_event, earlier)
    fitting, held_out = _samples(grouped, apart, training, calibration)
    model = backend.create_model(training, calibration, own)
    model.set_weights({**model.get_weights(), **weights})
    measured = {SCAN_CONDITIONS: scan_conditions(scan, calibration.probe, calibration.photons_per_pattern).to_dict()}
    model.training_domain = training_domain_of(measured, calibration)
    options = _options(model, writer, earlier, metrics, callbacks)
    with options.stop.on_signals() if writer else nullcontext(), recording(metrics, training, execution):
        history = backend.fit(model, fitting, held_out, own, on_event, options)
    summary = {"training_seconds": time.perf_counter() - started, **refinement}
    summary |= _fit_quality(model, held_out or fitting)
    monitor = resolve_monitor(execution.monitor, loss_names_of(training), held_out is not None)
    return Run(model, training, execution, history, monitor, summary, {**provenance, **measured})


def reconstruct(
    scan: Scan,
    model: Model | None = None,
    inference: InferenceConfig | None = None,
    on_event: OnEvent = ignore,
    **fields: Any,
) -> Image:
    """
    Reconstruct a scan, with a trained model or with the network that ships with the package.

    Parameters
    ----------
    scan : Scan
    model : Model, optional
        From a :class:`Run`, or from :func:`load_model`; None takes the network that ships with the package.
    inference : InferenceConfig, optional
    on_event : callable, optional
    **fields
        Fields of InferenceConfig by name; they take precedence over `inference`.

    Returns
    -------
    Image
        ``.obj`` (y, x) complex64, ``.coverage`` (y, x) float32, ``.origin_px`` (y, x).
    """
    settings = with_fields(inference or InferenceConfig(), fields)
    validate(settings)
    return reconstruct_scan(scan, model or load_model(), settings, on_event)


def load_model(
    path: Path | str | None = None, backend: str = "auto", execution: ExecutionConfig | None = None
) -> Model:
    """
    Load a model file on any engine.

    Parameters
    ----------
    path : path, optional
        ``wts.h5.zip``, a run folder, or the folder that the zip unpacks to; None is the network that ships with the
        package.
    backend : str
        "auto" takes the engine that wrote it, if it is installed, else the one that is.
    execution : ExecutionConfig, optional

    Raises
    ------
    ModelFileError, BackendNotInstalledError
    """
    bundle = shipped_bundle() if path is None else read_bundle(path)
    engine = _engine_for(bundle.training.backend, backend)
    training = dataclasses.replace(bundle.training, backend=engine.name)
    model = engine.create_model(training, bundle.calibration, execution)
    model.set_weights(bundle.weights)
    model.training_domain = training_domain_of(bundle.provenance, bundle.calibration)
    return model


def evaluate(image: Image, truth: Scan | Image) -> Comparison:
    """
    Compare an image with the truth: registered PSNR, SSIM and FRC.

    Parameters
    ----------
    image : Image
    truth : Scan with a known object, or Image

    Raises
    ------
    DataError
        If the scan knows no object.
    """
    from ptycho_backend.quality.metrics import compare

    if isinstance(truth, Image):
        seen, known = well_covered(image), well_covered(truth)
        return compare(seen.obj, seen.origin_px, known.obj, known.origin_px)
    if truth.obj is None:
        raise DataError(
            "An evaluation needs a known object.",
            expected="an object in the scan ('objectGuess' in an NPZ file)",
            received=f"none in '{truth.source}'",
            fix="compare with another reconstruction instead",
        )
    return compare(image.obj, image.origin_px, truth.obj, truth.obj_origin_px, truth.positions_px)


def with_fields(config: InferenceConfig, fields: dict[str, Any]) -> InferenceConfig:
    """Return a copy of a config with some fields replaced; unknown names are errors that name the nearest."""
    from ptycho_backend.config import from_dict, to_dict

    return from_dict(InferenceConfig, {**to_dict(config), **fields}, source="the call") if fields else config


def _own_copy(config: TrainingConfig, scan: Scan) -> TrainingConfig:
    training = copy.deepcopy(config)
    if training.model.N == 0:
        training.model.N = scan.N
    return training


def _backend_for(training: TrainingConfig) -> Backend:
    """Return the engine that a configuration asks for, and write its name into it."""
    backend = get_backend(training.backend)
    training.backend = backend.name
    return backend


def _checked_execution(config: ExecutionConfig | None) -> ExecutionConfig:
    execution = modern_execution(config or ExecutionConfig())
    validate(execution)
    return execution


def _engine_for(written_by: str, asked: str) -> Backend:
    from ptycho_backend.engines.registry import available_backends

    if asked == "auto" and written_by in available_backends():
        return get_backend(written_by)
    return get_backend(asked)


def _earlier(checkpoints: Path | str | None) -> Bundle:
    if checkpoints is None:
        raise ConfigError(
            "Resuming needs the folder of the checkpoints.",
            expected="checkpoints=<folder>",
            received="resume=True alone",
            fix="name the folder that the earlier training was given",
        )
    return read_checkpoint(checkpoints)


def _place(execution: ExecutionConfig, backend: Backend) -> tuple[ProcessRank, ExecutionConfig]:
    """Return this process's rank among those that train together, with its own device."""
    found = backend.devices()
    check_precision(execution.precision, choose_device(execution.device, found, backend.name))
    check_processes(execution, backend.name, found)
    rank = process_rank(execution)
    return rank, on_own_device(execution, found, rank)


def _writer(
    checkpoints: Path | str, provenance: dict[str, Any], execution: ExecutionConfig, rank: ProcessRank
) -> CheckpointWriter:
    if rank.rank > 0:
        return SilentCheckpointWriter(Path(checkpoints), execution.save_top_k)
    return Checkpoints(checkpoints, provenance, execution)


def _logger(execution: ExecutionConfig, checkpoints: Path | str | None, earlier: Bundle | None) -> MetricsLogger | None:
    folder = Path(checkpoints) if checkpoints else None
    if folder and folder.name == FOLDER:
        folder = folder.parent
    return make_logger(execution.logger, folder, history=earlier.history if earlier else [])


def _started(training: TrainingConfig, earlier: Bundle | None) -> tuple[TrainingConfig, str, Weights]:
    """Return the training with its learning rate, where its first weights come from, and those not drawn at random."""
    start, weights = _start(training, earlier)
    return dataclasses.replace(training, learning_rate=first_rate(training, start)), start, weights


def _start(training: TrainingConfig, earlier: Bundle | None) -> tuple[str, Weights]:
    """Return where a training's first weights come from, and those that are not drawn at random."""
    if earlier:
        return earlier.provenance.get("start", "scratch"), earlier.weights
    if training.start == "scratch" or training.model.architecture != "unet":
        return "scratch", {}
    weights = pretrained_weights(training.model)
    if weights is None:
        logger.info("trained from scratch: the network that ships with the package has other sizes than this model")
        return "scratch", {}
    logger.info("training starts from the network that ships with the package")
    return "pretrained", weights


def _options(
    model: Model,
    writer: CheckpointWriter | None,
    earlier: Bundle | None,
    metrics: MetricsLogger | None,
    callbacks: Sequence[Any],
) -> FitOptions:
    if writer:
        writer.check_room(model)
    options = FitOptions(checkpoints=writer, logger=metrics, callbacks=callbacks)
    if earlier is not None:
        options.resume, options.history = earlier.state, earlier.history
    return options


def _calibrate_and_refine(
    scan: Scan, training: TrainingConfig, on_event: OnEvent, earlier: Bundle | None
) -> tuple[Calibration, dict[str, Any]]:
    if earlier and earlier.state:
        return earlier.calibration, {"resumed_after_epoch": earlier.state.epoch}
    calibration = calibrate(scan, training.model, training.nphotons)
    return refined_calibration(scan, calibration, training, training.probe_iterations, on_event)


def _provenance(backend: Backend, training: TrainingConfig, scan: Scan, validation: Scan | None) -> dict[str, Any]:
    made_by = provenance_of(backend.name, backend.versions(), training.seed, scan.data_hash())
    return made_by if validation is None else {**made_by, VALIDATION_HASH: validation.data_hash()}


def _grouped(scan: Scan, training: TrainingConfig, n_groups: int | None, stream: int) -> tuple[Scan, Groups]:
    rng = np.random.default_rng([training.seed, stream])
    return scan, group_positions(scan.positions_px, training.model.gridsize, training.neighbor_count, n_groups, rng)


def _samples(
    grouped: tuple[Scan, Groups],
    apart: tuple[Scan, Groups] | None,
    training: TrainingConfig,
    calibration: Calibration,
) -> tuple[Samples, Samples | None]:
    """Return what is trained on, and what is held out: a scan of its own, or a part of the one there is."""
    with_labels = training.model.model_type == "supervised" or training.realspace_mae_weight > 0
    samples = Samples(*grouped, calibration, with_labels)
    if apart is not None:
        return samples, Samples(*apart, calibration, with_labels)
    fitted, held_out = split(len(samples), training.validation_fraction, training.seed)
    return samples.subset(fitted), samples.subset(held_out) if len(held_out) else None


def _fit_quality(model: Model, samples: Samples) -> dict[str, Any]:
    """Return the mean half-deviance of some groups beside the shot-noise floor, and say which is lower."""
    batches = list(samples.subset(np.arange(min(FLOOR_GROUPS, len(samples)))).batches(16))
    judged = constraint_share(model.training) > 0  # the same patches that the loss has judged
    expected = np.concatenate([model.expected_counts(batch, amplitude_constraint=judged) for batch in batches])
    scale = model.calibration.photon_scale / model.calibration.rms_input_scale**2
    counts = np.concatenate([batch.x for batch in batches]).astype(np.float64) ** 2 * scale
    loss, floor = poisson(expected, counts, samples.mask), shot_noise_floor(expected, samples.mask)
    overfitted = loss < OVERFITTED * floor
    if overfitted:
        logger.info("half-deviance %.3g lies below the shot-noise floor %.3g: the noise was fitted", loss, floor)
    return {"half_deviance": loss, "shot_noise_floor": floor, "overfitted": bool(overfitted)}
