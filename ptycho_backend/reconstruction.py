"""From a model and a scan to an image: predict, align phases, stitch, polish (spec: physics 7)."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from ptycho_backend.config import InferenceConfig, ModelConfig, TrainingConfig
from ptycho_backend.data.image import Image
from ptycho_backend.data.scan import Scan
from ptycho_backend.engines.model import Model
from ptycho_backend.errors import ConfigError, ShapeError
from ptycho_backend.events import OnEvent, ignore, without_images
from ptycho_backend.network.prediction import Predicted, predict
from ptycho_backend.physics.calibration import Calibration, calibrate, probe_hash
from ptycho_backend.solver.epie import polish
from ptycho_backend.solver.initial_estimate import baseline_image
from ptycho_backend.solver.probe_refinement import refined_calibration
from ptycho_backend.solver.solver import solve


def reconstruct_scan(scan: Scan, model: Model, inference: InferenceConfig, on_event: OnEvent = ignore) -> Image:
    """
    Reconstruct a scan with a model.

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
    """Return the image that predicted patches make together, and passes over all patterns improve."""
    image = predicted.stitched(scan, inference, on_event)
    return improved(scan, model.trained_calibration(), image, inference, on_event)


def improved(
    scan: Scan, calibration: Calibration, image: Image, inference: InferenceConfig, on_event: OnEvent = ignore
) -> Image:
    """Return a stitched image after the passes over all patterns that a configuration asks for."""
    image = solve(scan, calibration, image, inference.iterations, on_event)
    rng = np.random.default_rng([inference.seed, 4])
    return polish(scan, calibration, image, inference.epie_iterations, rng, on_event)


def without_network(
    scan: Scan,
    calibration: Calibration,
    config: ModelConfig,
    inference: InferenceConfig,
    on_event: OnEvent = ignore,
) -> Image:
    """
    Reconstruct a scan as a model would that has no network: the same physics before it and after it.

    Parameters
    ----------
    scan : Scan
    calibration : Calibration
        The model's own, so that both start from the same knowledge.
    config : ModelConfig
        Of the model that this is compared with.
    inference : InferenceConfig
        Passes over all patterns that follow.
    on_event : callable
        Receives StageEvents.
    """
    iterations = config.initial_iterations if config.architecture == "unet" else 0
    told = without_images(on_event)
    return improved(scan, calibration, baseline_image(scan, calibration, told, iterations), inference, told)


def fit_to_scan(model: Model, scan: Scan, inference: InferenceConfig, on_event: OnEvent = ignore) -> Model:
    """
    Return the model with the calibration that suits a scan; the same model where it suits already.

    "auto" keeps the model's probe where the scan carries the probe guess it was made from, and else takes
    the scan's; the scale always follows the scan's photons. Passes of probe refinement follow.
    """
    before = _suited_to_scan(model, scan, inference)
    calibration, _ = refined_calibration(scan, before, model.training, _refinement_passes(model, inference), on_event)
    # Another model would have to be built, and compiled, only to compute the same numbers.
    return model if _equal(calibration, model.trained_calibration()) else model.with_calibration(calibration)


def _refinement_passes(model: Model, inference: InferenceConfig) -> int:
    if inference.probe_iterations is not None:
        return inference.probe_iterations
    return 0 if model.calibration.probe_guess_sha256 else TrainingConfig().probe_iterations


def _suited_to_scan(model: Model, scan: Scan, inference: InferenceConfig) -> Calibration:
    same_probe = model.calibration.probe_guess_sha256 == probe_hash(scan.probe)
    if inference.calibration == "model" and not model.calibration.probe_guess_sha256:
        raise _no_calibration()
    if inference.calibration == "model" or (inference.calibration == "auto" and same_probe):
        if model.config.N != scan.N:
            raise _wrong_size(model, scan)
        probe = model.trained_calibration().probe
        if inference.calibration == "model":
            return model.trained_calibration()
    else:
        probe = None
    if model.config.architecture == "cnn" and model.config.N != scan.N:
        raise _wrong_size(model, scan)
    config = dataclasses.replace(model.config, N=scan.N)
    return calibrate(scan, config, model.training.nphotons, probe)


def _equal(one: Calibration, other: Calibration) -> bool:
    """Return whether two calibrations differ by rounding alone."""
    return (
        one.N == other.N
        and one.probe.shape == other.probe.shape
        and math.isclose(one.rms_input_scale, other.rms_input_scale, rel_tol=1e-6)
        and math.isclose(one.photon_scale, other.photon_scale, rel_tol=1e-6)
        and bool(np.allclose(one.probe, other.probe, rtol=0, atol=1e-6 * float(np.abs(one.probe).max())))
    )


def _wrong_size(model: Model, scan: Scan) -> ShapeError:
    return ShapeError(
        "This model reconstructs patterns of one size only.",
        expected=f"patterns of {model.config.N}×{model.config.N} ({model.config.architecture})",
        received=f"patterns of {scan.N}×{scan.N} in '{scan.source}'",
        fix=f"load the scan with N={model.config.N} to crop or pad it",
    )


def _no_calibration() -> ConfigError:
    return ConfigError(
        "A model that was trained on no scan has no calibration of its own.",
        expected="calibration='auto' or 'scan'",
        received="calibration='model' for the network that ships with the package",
        fix="leave the option out",
    )
