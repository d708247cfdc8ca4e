"""Reconstruction pipeline: problem, initial object, solver, image (spec: physics 7, 8)."""

from __future__ import annotations

import dataclasses
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.checks import check_network_side
from ptycho_backend.config import InferenceConfig, ModelConfig, TrainingConfig, to_dict
from ptycho_backend.data.image import Image
from ptycho_backend.data.orientation import AS_GIVEN, NAMES, better_orientation_text, oriented
from ptycho_backend.data.scan import Scan
from ptycho_backend.data.selection import examined
from ptycho_backend.engines.model import Model
from ptycho_backend.engines.numpy.solver import NumpyKernels
from ptycho_backend.engines.registry import registered_backends, solver_kernels
from ptycho_backend.engines.solver_contract import SolverKernels
from ptycho_backend.errors import ConfigError, ShapeError
from ptycho_backend.events import OnEvent, ignore, with_image
from ptycho_backend.model_file.run import core_versions
from ptycho_backend.network.loading import load_model
from ptycho_backend.network.prediction import Predicted, predict
from ptycho_backend.physics.calibration import Calibration, calibrate, probe_hash
from ptycho_backend.runtime.forks import require_own_process
from ptycho_backend.runtime.plain_values import to_plain
from ptycho_backend.solver.affine_search import affine_correction, corrected
from ptycho_backend.solver.canvas import check_canvas
from ptycho_backend.solver.initial_estimate import baseline_image
from ptycho_backend.solver.orientation import best_orientation
from ptycho_backend.solver.pattern_fits import Fits
from ptycho_backend.solver.probe_refinement import SUSPECT, refined_calibration
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.solver import SolverOptions, solve

logger = logging.getLogger(__name__)

Start = Literal["flat", "physics", "network"]
GIVEN = "given"


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """
    A scan with all that determines its image.

    Parameters
    ----------
    scan : Scan
    calibration : Calibration
        Scale and probe.
    start : {"flat", "physics", "network"}
        Initial object.
    inference : InferenceConfig
        Options of the steps; its `start`, `calibration` and `probe_iterations` are already applied.
    model : Model, optional
        Model with this calibration; required by the start "network".
    kernels : SolverKernels
        Kernels of an engine on a device.
    update_probe : bool
        Update the probe with the object; set where its refinement explained other patterns better.
    better_orientation : str
        Orientation that explains the patterns clearly better than the given one; "" for none.
    orientation : str
        Orientation of the scan's positions against those that were given.
    given_px : float64, shape (position, 2), (y, x), optional
        Positions before the correction of an affine error, in this orientation; None without one.
    """

    scan: Scan
    calibration: Calibration
    start: Start
    inference: InferenceConfig
    model: Model | None = None
    kernels: SolverKernels = field(default_factory=NumpyKernels)
    update_probe: bool = False
    better_orientation: str = ""
    orientation: str = AS_GIVEN
    given_px: NDArray[np.float64] | None = None

    @property
    def given_scan(self) -> Scan:
        """Scan before the correction of an affine error of its positions."""
        return self.scan if self.given_px is None else self.scan.changed(positions_px=self.given_px)

    def part(self, rows: NDArray[np.intp] | slice, on_event: OnEvent = ignore) -> Reconstruction:
        """
        Return the reconstruction of some patterns.

        A probe that was refined on all patterns is refined on these alone, from the guess: two parts then share nothing
        that they measured.
        """
        scan, calibration, refined = self.scan.subset(rows), self.calibration, self.update_probe
        if refined:
            calibration, record = _refined(scan, None, self.inference, on_event, self.kernels)
            refined = bool(record["probe_refined"])
        given_px = None if self.given_px is None else self.given_px[rows]
        return dataclasses.replace(self, scan=scan, calibration=calibration, update_probe=refined, given_px=given_px)

    def image(self, on_event: OnEvent = ignore, predicted: Predicted | None = None) -> Image:
        """
        Reconstruct the image: initial object, then solver.

        Parameters
        ----------
        on_event : callable
            Receives StageEvents.
        predicted : Predicted, optional
            Patches of the network for this scan; None predicts them.
        """
        initial = self._initial_object(on_event, predicted)
        problem = Problem.of(self.scan, self.calibration)
        inference = self.inference
        fits = Fits(inference.fit_positions, inference.fit_flux, inference.fit_background)
        options = SolverOptions(inference.iterations, self.update_probe, fits=fits)
        solution = solve(problem, self.kernels, initial, options, with_image(on_event, self._described))
        return self._described(dataclasses.replace(solution.image, errors=tuple(solution.errors)))

    def predict(self, on_event: OnEvent = ignore, stage: str = "reconstruction") -> Predicted | None:
        """Return the patches of the network for this scan; None for another start."""
        return None if self.model is None else predict(self.scan, self.model, self.inference, on_event, stage)

    def _described(self, image: Image) -> Image:
        """Return an image with its scan, orientation and provenance."""
        origin: dict[str, Any] = {
            "inference": to_dict(self.inference),
            "start": self.start,
            "solver_device": self.kernels.device,
            "versions": core_versions(),
            "seed": self.inference.seed,
        }
        if self.model is not None:
            origin |= {"model": to_dict(self.model.config), "backend": self.model.backend}
        experiment = image.experiment and dataclasses.replace(image.experiment, orientation=self.orientation)
        image = dataclasses.replace(image, experiment=experiment, provenance=origin)
        return described(image, self.scan, self.calibration)

    def _initial_object(self, on_event: OnEvent, predicted: Predicted | None) -> Image | None:
        """Return the initial object; None for 1 everywhere."""
        if self.start == "physics":
            return baseline_image(self.scan, self.calibration, on_event, ModelConfig.initial_iterations)
        predicted = predicted or self.predict(on_event)
        return predicted.stitched(self.scan, self.inference, on_event) if predicted else None


def described(image: Image, scan: Scan, calibration: Calibration) -> Image:
    """Return an image with the name, pixel size and attributes of its scan, and its dose."""
    origin = {"source": scan.source, "scan": to_plain(scan.attributes)}
    return dataclasses.replace(
        image,
        pixel_size_m=scan.pixel_size_m,
        name=Path(scan.source).name,
        photons_per_pattern=calibration.photons_per_pattern or None,
        counts_per_intensity=calibration.counts_per_intensity,
        provenance={**origin, **image.provenance},
    )


def prepare(
    scan: Scan,
    model: Model | None,
    inference: InferenceConfig,
    kernels: SolverKernels | None = None,
    on_event: OnEvent = ignore,
) -> Reconstruction:
    """
    Examine and calibrate a scan, refine its probe, and choose the initial object.

    Parameters
    ----------
    scan : Scan
        Bad pixels are masked and odd patterns left out, unless this is done.
    model : Model, optional
        The starts "flat" and "physics" use its calibration only. Without a model, "network" takes the shipped network.
    inference : InferenceConfig
    kernels : SolverKernels, optional
        None takes those of the model's engine and device, or of any engine (:func:`kernels_of`).
    on_event : callable
        Receives StageEvents of the probe refinement.
    """
    start: Start = ("network" if model else "flat") if inference.start == "auto" else inference.start
    if start == "network":
        check_network_side(scan)
        model = model or load_model()
    kernels = kernels or kernels_of(model)
    scan, calibration, record = _examined_and_refined(scan, model, inference, on_event, kernels)
    if start == "network" and model is not None:
        model = _calibrated(model, calibration)
        calibration, refined = model.trained_calibration(), False
    else:
        model, refined = None, bool(record["probe_refined"])
    better, orientation = str(record.get("better_orientation", "")), str(record.get("orientation", AS_GIVEN))
    given_px = record.get("given_px")
    return Reconstruction(scan, calibration, start, inference, model, kernels, refined, better, orientation, given_px)


def _examined_and_refined(
    scan: Scan, model: Model | None, inference: InferenceConfig, on_event: OnEvent, kernels: SolverKernels
) -> tuple[Scan, Calibration, dict[str, Any]]:
    """Return a scan that is examined and oriented, its calibration, and a record of the refinement."""
    scan = examined(scan)
    check_canvas(scan)  # before the probe refinement, which takes minutes for a large scan
    if model is not None:
        check_size_of(model, scan)
    orientation: str = AS_GIVEN if inference.orientation == GIVEN else inference.orientation
    if orientation == "auto":
        orientation = best_orientation(scan, calibrate(scan, ModelConfig(N=scan.N)), on_event)
        logger.info("'%s': orientation '%s', %s", scan.source, orientation, NAMES[orientation])
    scan = oriented(scan, orientation)
    calibration, record = _refined(scan, model, inference, on_event, kernels)
    record |= {"orientation": orientation}
    if inference.orientation == GIVEN and record.get("held_out_over_noise", 0.0) > SUSPECT:
        better = best_orientation(scan, calibrate(scan, ModelConfig(N=scan.N)), on_event)
        if better != AS_GIVEN:
            logger.warning("'%s': %s", scan.source, better_orientation_text(better))
            record |= {"better_orientation": better}
            return scan, calibration, record
    if inference.fit_positions != "off" and "held_out_over_noise" in record:
        correction = affine_correction(scan, calibration, on_event)
        if not np.array_equal(correction, np.eye(2)):
            given_px, scan = scan.positions_px, corrected(scan, correction)
            calibration, again = _refined(scan, model, inference, on_event, kernels)
            record |= again | {"given_px": given_px}
    return scan, calibration, record


def other_start(reconstruction: Reconstruction, network: Model | None = None) -> Reconstruction:
    """
    Return a reconstruction for comparison, with the same calibration and kernels.

    It starts from a flat object if the given one starts from a network, and else from `network`.
    """
    if reconstruction.start == "network" or network is None:
        return dataclasses.replace(reconstruction, start="flat", model=None)
    check_network_side(reconstruction.scan)
    check_size_of(network, reconstruction.scan)
    model = _calibrated(network, reconstruction.calibration)
    return dataclasses.replace(reconstruction, start="network", model=model)


def kernels_of(model: Model | None, backend: str = "auto", device: str = "auto") -> SolverKernels:
    """
    Return solver kernels; "auto" stands for the engine and the device of the model, if there is one.

    Raises
    ------
    UnknownBackendError, BackendNotInstalledError, DeviceError
    ProcessError
        In a child that was made by fork after its parent had used the engine of the model.
    """
    if model is not None:
        require_own_process(model.backend)
        # A model of an engine without an entry point has no kernels of its own.
        backend = model.backend if backend == "auto" and model.backend in registered_backends() else backend
        device = model.execution.device if device == "auto" else device
    return solver_kernels(backend, device)


def reconstruct_scan(scan: Scan, model: Model | None, inference: InferenceConfig, on_event: OnEvent = ignore) -> Image:
    """Reconstruct a scan (parameters of :func:`prepare`)."""
    return prepare(scan, model, inference, on_event=on_event).image(on_event)


def fit_to_scan(model: Model, scan: Scan, inference: InferenceConfig, on_event: OnEvent = ignore) -> Model:
    """Return the model with the calibration of a scan, its probe refined; the same model if nothing changes."""
    check_size_of(model, scan)
    return _calibrated(model, calibration_of(scan, model, inference, on_event))


def check_size_of(model: Model, scan: Scan) -> None:
    """
    Check that a network with a fixed size suits the patterns of a scan.

    Raises
    ------
    ShapeError
    """
    if model.config.N != scan.N and model.config.architecture == "cnn":
        raise _wrong_size(model, scan)


def calibration_of(
    scan: Scan, model: Model | None, inference: InferenceConfig, on_event: OnEvent = ignore
) -> Calibration:
    """
    Return the calibration of a scan with a refined probe.

    "auto" keeps the model's probe if it was made from the probe guess of this scan, and else takes the guess.
    The scale always follows the scan's photons.
    """
    return _refined(scan, model, inference, on_event)[0]


def _refined(
    scan: Scan,
    model: Model | None,
    inference: InferenceConfig,
    on_event: OnEvent,
    kernels: SolverKernels | None = None,
) -> tuple[Calibration, dict[str, Any]]:
    """Return the calibration, and a record of the refinement of its probe."""
    trained = model is not None and bool(model.calibration.probe_guess_sha256)
    if inference.calibration == "model" and not trained:
        raise _no_calibration(model)
    if model is None:
        training = TrainingConfig(model=ModelConfig(N=scan.N), seed=inference.seed)
        calibration = calibrate(scan, training.model)
    else:
        training, calibration = model.training, _initial_calibration(model, scan, inference)
    iterations = inference.probe_iterations
    if iterations is None:
        iterations = 0 if trained else TrainingConfig.probe_iterations
    return refined_calibration(scan, calibration, training, iterations, on_event, kernels)


def _initial_calibration(model: Model, scan: Scan, inference: InferenceConfig) -> Calibration:
    use_model = inference.calibration == "model"
    same_guess = model.calibration.probe_guess_sha256 == probe_hash(scan.probe)
    keep_probe = use_model or (inference.calibration == "auto" and same_guess)
    if model.config.N != scan.N and keep_probe:
        raise _wrong_size(model, scan)
    if use_model:
        return model.trained_calibration()
    probe = model.trained_calibration().probe if keep_probe else None
    return calibrate(scan, dataclasses.replace(model.config, N=scan.N), model.training.nphotons, probe)


def _calibrated(model: Model, calibration: Calibration) -> Model:
    # A new model is built and compiled again, which takes seconds.
    return model if _equal(calibration, model.trained_calibration()) else model.with_calibration(calibration)


def _equal(one: Calibration, other: Calibration) -> bool:
    """Return whether two calibrations are equal up to rounding."""
    return (
        one.N == other.N
        and one.probe.shape == other.probe.shape
        and math.isclose(one.rms_input_scale, other.rms_input_scale, rel_tol=1e-6)
        and math.isclose(one.photon_scale, other.photon_scale, rel_tol=1e-6)
        and bool(np.allclose(one.probe, other.probe, rtol=0, atol=1e-6 * float(np.abs(one.probe).max())))
    )


def _wrong_size(model: Model, scan: Scan) -> ShapeError:
    return ShapeError(
        "A model with a fixed size reconstructs patterns of that size only.",
        expected=f"patterns of {model.config.N}×{model.config.N} ({model.config.architecture})",
        received=f"patterns of {scan.N}×{scan.N} in '{scan.source}'",
        fix=f"load the scan with N={model.config.N} to crop or pad it",
    )


def _no_calibration(model: Model | None) -> ConfigError:
    owner = "no model" if model is None else "the network that ships with the package"
    return ConfigError(
        "Only a model trained on a scan has its own calibration.",
        expected="calibration='auto' or 'scan'",
        received=f"calibration='model' for {owner}",
        fix="leave the option out, or give a trained model",
    )
