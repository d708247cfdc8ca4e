"""Reconstruction pipeline: initial object by a network or without one, then iterations (spec: physics 7, 8)."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from ptycho_backend.config import InferenceConfig, ModelConfig, TrainingConfig
from ptycho_backend.data.image import Image
from ptycho_backend.data.scan import Scan
from ptycho_backend.engines.model import Model
from ptycho_backend.engines.numpy.solver import NumpyKernels
from ptycho_backend.errors import ConfigError, ShapeError
from ptycho_backend.events import OnEvent, ignore, without_images
from ptycho_backend.network.prediction import Predicted, predict
from ptycho_backend.physics.calibration import Calibration, calibrate, probe_hash
from ptycho_backend.solver.epie import refine_by_epie
from ptycho_backend.solver.initial_estimate import baseline_image
from ptycho_backend.solver.probe_refinement import refined_calibration
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.solver import SolverOptions, solve


def reconstruct_scan(scan: Scan, model: Model, inference: InferenceConfig, on_event: OnEvent = ignore) -> Image:
    """
    Reconstruct a scan: calibrate the model, predict patches, stitch, iterate.

    Parameters
    ----------
    scan : Scan
    model : Model
    inference : InferenceConfig
    on_event : callable
        Receives StageEvents.
    """
    fitted = fit_to_scan(model, scan, inference, on_event)
    return image_of(scan, fitted, predict(scan, fitted, inference, on_event), inference, on_event)


def image_of(
    scan: Scan, model: Model, predicted: Predicted, inference: InferenceConfig, on_event: OnEvent = ignore
) -> Image:
    """Stitch predicted patches, then iterate over all patterns."""
    image = predicted.stitched(scan, inference, on_event)
    return _iterate(scan, model.trained_calibration(), image, inference, on_event)


def _iterate(
    scan: Scan, calibration: Calibration, image: Image, inference: InferenceConfig, on_event: OnEvent
) -> Image:
    """Run the solver on all patterns, then ePIE; the configuration sets both numbers of iterations."""
    problem = Problem.of(scan, calibration)
    image = solve(problem, NumpyKernels(), image, SolverOptions(inference.iterations), on_event).image
    rng = np.random.default_rng([inference.seed, 4])
    return refine_by_epie(scan, calibration, image, inference.epie_iterations, rng, on_event)


def without_network(
    scan: Scan,
    calibration: Calibration,
    config: ModelConfig,
    inference: InferenceConfig,
    on_event: OnEvent = ignore,
) -> Image:
    """
    Reconstruct a scan without a network: initial estimate from physics, then the same iterations.

    Parameters
    ----------
    scan : Scan
    calibration : Calibration
        Calibration of the model in the comparison.
    config : ModelConfig
        Its configuration.
    inference : InferenceConfig
        Sets the iterations.
    on_event : callable
        Receives StageEvents.
    """
    iterations = config.initial_iterations if config.architecture == "unet" else 0
    on_event = without_images(on_event)
    return _iterate(scan, calibration, baseline_image(scan, calibration, on_event, iterations), inference, on_event)


def fit_to_scan(model: Model, scan: Scan, inference: InferenceConfig, on_event: OnEvent = ignore) -> Model:
    """
    Return the model with the calibration of a scan, its probe refined; the same model if nothing changes.

    "auto" keeps the model's probe if it was made from the probe guess of this scan, and else takes the guess.
    The scale always follows the scan's photons.
    """
    calibration = _initial_calibration(model, scan, inference)
    calibration, _ = refined_calibration(
        scan, calibration, model.training, _probe_iterations(model, inference), on_event
    )
    # A new model is built and compiled again, which takes seconds.
    return model if _equal(calibration, model.trained_calibration()) else model.with_calibration(calibration)


def _probe_iterations(model: Model, inference: InferenceConfig) -> int:
    if inference.probe_iterations is not None:
        return inference.probe_iterations
    return 0 if model.calibration.probe_guess_sha256 else TrainingConfig().probe_iterations


def _initial_calibration(model: Model, scan: Scan, inference: InferenceConfig) -> Calibration:
    use_model = inference.calibration == "model"
    if use_model and not model.calibration.probe_guess_sha256:
        raise _no_calibration()
    same_guess = model.calibration.probe_guess_sha256 == probe_hash(scan.probe)
    keep_probe = use_model or (inference.calibration == "auto" and same_guess)
    if model.config.N != scan.N and (keep_probe or model.config.architecture == "cnn"):
        raise _wrong_size(model, scan)
    if use_model:
        return model.trained_calibration()
    probe = model.trained_calibration().probe if keep_probe else None
    return calibrate(scan, dataclasses.replace(model.config, N=scan.N), model.training.nphotons, probe)


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


def _no_calibration() -> ConfigError:
    return ConfigError(
        "Only a model trained on a scan has its own calibration.",
        expected="calibration='auto' or 'scan'",
        received="calibration='model' for the shipped network",
        fix="leave the option out",
    )
