"""Rules that need more than one field: what fits together, and what has no effect (spec: config 7)."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from ptycho_backend.config import ModelConfig, TrainingConfig
from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import ConfigError, InertOptionWarning, ShapeError

logger = logging.getLogger(__name__)


def check_training(training: TrainingConfig, scan: Scan, validation: Scan | None = None) -> None:
    """
    Refuse a training configuration that does not fit the scans, and warn of options without effect.

    Raises
    ------
    ShapeError
        If a scan's patterns have another side than the model.
    ConfigError
        If no loss is left to minimise.
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
    """Refuse a scan whose patterns have another side than the model."""
    if model.N != scan.N:
        raise ShapeError(
            "Model and diffraction patterns must have the same side length.",
            expected=f"patterns of {model.N}×{model.N}, because N={model.N}",
            received=f"patterns of {scan.N}×{scan.N} in '{scan.source}'",
            fix=f"set model.N={scan.N}, or load with load_scan(path, N={model.N}) to crop or pad",
        )


def inert_options(training: TrainingConfig) -> list[str]:
    """Return one sentence for every option that was set but has no effect in this combination."""
    model, default = training.model, TrainingConfig()
    messages = []
    if model.architecture == "unet":
        messages += _set_without_effect(
            model,
            ("amp_activation", "decoder_outputs", "pad_object", "probe_big"),
            "architecture='unet' has no such head",
        )
    if model.architecture == "cnn":
        messages += _set_without_effect(
            model, ("unrolled_steps", "initial_iterations"), "architecture='cnn' is not unrolled"
        )
        messages += _set_without_effect(training, ("constraint_share",), "architecture='cnn' has no such step")
        if not model.pad_object and model.probe_big != default.model.probe_big:
            messages.append("probe_big has no effect: pad_object=False already predicts the whole window")
    if model.gridsize == 1:
        messages += _set_without_effect(model, ("object_big",), "gridsize=1 has nothing to merge")
        if training.neighbor_count != default.neighbor_count:
            messages.append("neighbor_count has no effect: gridsize=1 has no neighbours")
    if model.model_type == "supervised":
        for name in ("nll_weight", "mae_weight", "realspace_mae_weight"):
            if getattr(training, name) != getattr(default, name):
                messages.append(f"{name} has no effect: model_type='supervised' is fitted to labels")
    return messages


def _set_without_effect(config: Any, names: tuple[str, ...], why: str) -> list[str]:
    default = type(config)()
    return [f"{name} has no effect: {why}" for name in names if getattr(config, name) != getattr(default, name)]
