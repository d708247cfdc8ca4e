"""Rules for several options together: required combinations, and options without effect (spec: config 7)."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from ptycho_backend.config import ModelConfig, TrainingConfig, validate
from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import ConfigError, InertOptionWarning, ShapeError

logger = logging.getLogger(__name__)


def check_training(training: TrainingConfig, scan: Scan, validation: Scan | None = None) -> None:
    """
    Check a training configuration against its scans.

    Raises
    ------
    ShapeError
        If patterns and model have different side lengths.
    ConfigError
        If all weights of the loss are 0.

    Warns
    -----
    InertOptionWarning
        For every option without effect.
    """
    check_size(training.model, scan)
    if validation is not None:
        check_size(training.model, validation)
    weights = (training.nll_weight, training.mae_weight, training.realspace_mae_weight)
    if training.model.model_type == "pinn" and not any(weights):
        raise ConfigError(
            "Training needs a loss.",
            expected="nll_weight, mae_weight or realspace_mae_weight above 0",
            received="all three are 0",
            fix="set nll_weight=1.0",
        )
    for message in inert_options(training):
        warnings.warn(message, InertOptionWarning, stacklevel=3)


def check_size(model: ModelConfig, scan: Scan) -> None:
    """
    Check that patterns and model have the same side length.

    Raises
    ------
    ShapeError
    """
    if model.N != scan.N:
        raise ShapeError.of_patterns(
            "Model and diffraction patterns must have the same side length.",
            f"patterns of {model.N}×{model.N} px, because N={model.N}",
            scan.N,
            scan.source,
            f"set model.N={scan.N}, or load with load_scan(path, N={model.N}) to crop or pad",
        )


def check_network_side(scan: Scan) -> None:
    """
    Check that a network can take the patterns of a scan, before any work.

    Raises
    ------
    ShapeError
    """
    try:
        validate(ModelConfig(N=scan.N))
    except ConfigError as error:
        nearest = min(512, max(32, round(scan.N / 16) * 16))
        raise ShapeError.of_patterns(
            "The side length of the patterns must suit the network.",
            "a multiple of 16, from 32 to 512 px",
            scan.N,
            scan.source,
            f"N={nearest} in load_scan, --resize {nearest} on the command line, crops or zero-pads the detector; "
            "the start 'flat' takes any side",
        ) from error


def inert_options(training: TrainingConfig) -> list[str]:
    """Return one sentence for every option that differs from its default without any effect."""
    model = training.model
    messages = []
    if model.architecture == "unet":
        heads = ("amp_activation", "decoder_outputs", "pad_object", "probe_big")
        messages += _inert(model, heads, "architecture='unet' has no such head")
    if model.architecture == "cnn":
        messages += _inert(model, ("unrolled_steps", "initial_iterations"), "architecture='cnn' is not unrolled")
        messages += _inert(training, ("constraint_share",), "architecture='cnn' has no such step")
        if not model.pad_object:
            messages += _inert(model, ("probe_big",), "pad_object=False already predicts the whole window")
    if model.gridsize == 1:
        messages += _inert(model, ("object_big",), "gridsize=1 has nothing to merge")
        messages += _inert(training, ("neighbor_count",), "gridsize=1 has no neighbours")
    if model.model_type == "supervised":
        weights = ("nll_weight", "mae_weight", "realspace_mae_weight")
        messages += _inert(training, weights, "model_type='supervised' is fitted to labels")
    return messages


def _inert(config: Any, names: tuple[str, ...], reason: str) -> list[str]:
    default = type(config)()
    return [f"{name} has no effect: {reason}" for name in names if getattr(config, name) != getattr(default, name)]
