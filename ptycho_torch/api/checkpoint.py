"""
Reader and writer of ``.ckpt`` files: torch files of plain values and tensors (spec: ptychodus_api_spec 4.12).

They hold no pickled class. The model file of `ptycho_backend` is written beside them and works on every engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor

from ptycho_backend._version import __version__
from ptycho_backend.config import TrainingConfig, from_dict, to_dict
from ptycho_backend.data.output import atomic_path
from ptycho_backend.errors import ConfigError, ModelFileError, first_line
from ptycho_backend.model_file.hdf5_weights import CALIBRATION_NUMBERS
from ptycho_backend.physics.calibration import Calibration
from ptycho_torch.api.configs import plain
from ptycho_torch.api.rules import PARTS

SECTION = "ptychopinn"  # key that marks checkpoints of this package
VERSION = 2


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """
    Content of a checkpoint.

    Parameters
    ----------
    path : Path
    configs : dict
        Data, model, training and inference configuration, as plain values.
    training : TrainingConfig
        Translation of `configs`.
    calibration : Calibration
    state_dict : dict
    """

    path: Path
    configs: dict[str, dict[str, Any]]
    training: TrainingConfig
    calibration: Calibration
    state_dict: Mapping[str, Tensor]


def write_checkpoint(path: Path, module: Any, epoch: int, global_step: int) -> None:
    """Write a trained module atomically; `epoch` counts from 0."""
    calibration = module.trained.trained_calibration()
    numbers = {name: float(getattr(calibration, name)) for name in CALIBRATION_NUMBERS}
    content = {
        "state_dict": {name: value.detach().cpu() for name, value in module.state_dict().items()},
        "hyper_parameters": {part: plain(getattr(module, part)) for part in PARTS},
        "pytorch-lightning_version": lightning.__version__,
        "epoch": epoch,
        "global_step": global_step,
        SECTION: {
            "format_version": VERSION,
            "package_version": __version__,
            "training": to_dict(module.trained.training),
            "calibration": {
                **numbers,
                "probe": torch.from_numpy(calibration.probe),
                "probe_guess_sha256": calibration.probe_guess_sha256,
            },
        },
    }
    with atomic_path(path) as unfinished:
        torch.save(content, unfinished)


def read_checkpoint(path: Path | str) -> Checkpoint:
    """
    Read a checkpoint into CPU memory without executing anything in it.

    Raises
    ------
    ModelFileError
        If the file is missing, damaged, or from another program.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zipfile and the unpickler raise many types for invalid files
        raise _invalid(path, first_line(error, type(error).__name__)) from None
    section = content.get(SECTION) if isinstance(content, dict) else None
    if not isinstance(section, dict):
        raise _invalid(path, "written by another program")
    if section.get("format_version") != VERSION:
        raise _invalid(path, f"format version {section.get('format_version')!r}, not {VERSION}")
    try:
        return Checkpoint(
            path=Path(path),
            configs={part: dict(content["hyper_parameters"][part]) for part in PARTS},
            training=from_dict(TrainingConfig, section["training"], source=f"'{path}'"),
            calibration=_calibration(section["calibration"]),
            state_dict=dict(content["state_dict"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
        raise _invalid(path, f"{type(error).__name__}: {error}") from error


def load_weights(module: Any, checkpoint: Checkpoint) -> None:
    """
    Load the weights of a checkpoint into a module.

    Raises
    ------
    ModelFileError
        If a weight is missing, unknown, or of another shape.
    """
    try:
        module.load_state_dict(checkpoint.state_dict)
    except RuntimeError as error:
        raise _invalid(checkpoint.path, str(error)) from None


def _calibration(values: Mapping[str, Any]) -> Calibration:
    return Calibration(
        probe=np.asarray(values["probe"].numpy(), dtype=np.complex64),
        probe_guess_sha256=str(values["probe_guess_sha256"]),
        **{name: float(values[name]) for name in CALIBRATION_NUMBERS},
    )


def _invalid(path: Path | str, problem: str) -> ModelFileError:
    return ModelFileError(
        "A checkpoint must be a complete file from a training of this package.",
        expected="a .ckpt file with the model's weights, configuration and calibration",
        received=f"'{path}': {problem}",
        fix="train again, or copy the file again from its run folder",
    )
