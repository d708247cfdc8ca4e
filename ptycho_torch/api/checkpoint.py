"""
The checkpoint that clients keep: one torch file of plain values and tensors, no pickled class (spec:
ptychodus_api_spec 4.12).

The ordinary model file stands beside it in the run folder, and moves to the other engine.
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

OWN = "ptychopinn"  # what no other tool's checkpoint holds
VERSION = 1


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """
    What a checkpoint says.

    Parameters
    ----------
    path : Path
    configs : dict
        The client's four configurations, as plain values.
    training : TrainingConfig
        What they were settled to.
    calibration : Calibration
    state_dict : dict
    """

    path: Path
    configs: dict[str, dict[str, Any]]
    training: TrainingConfig
    calibration: Calibration
    state_dict: Mapping[str, Tensor]


def write_checkpoint(path: Path, module: Any, epoch: int, global_step: int) -> None:
    """Write a trained module, whole or not at all; `epoch` counts from 0."""
    calibration = module.trained.trained_calibration()
    numbers = {name: float(getattr(calibration, name)) for name in CALIBRATION_NUMBERS}
    content = {
        "state_dict": {name: value.detach().cpu() for name, value in module.state_dict().items()},
        "hyper_parameters": {part: plain(getattr(module, part)) for part in PARTS},
        "pytorch-lightning_version": lightning.__version__,
        "epoch": epoch,
        "global_step": global_step,
        OWN: {
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
    Read a checkpoint, onto the processor; nothing in it is executed.

    Raises
    ------
    ModelFileError
        If it is missing, damaged, or another tool's.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zipfile and the unpickler raise many kinds for a file that is none
        raise _not_ours(path, first_line(error, type(error).__name__)) from None
    own = content.get(OWN) if isinstance(content, dict) else None
    if not isinstance(own, dict):
        raise _not_ours(path, "written by another tool")
    if own.get("format_version") != VERSION:
        raise _not_ours(path, f"format version {own.get('format_version')!r}, not {VERSION}")
    try:
        return Checkpoint(
            path=Path(path),
            configs={part: dict(content["hyper_parameters"][part]) for part in PARTS},
            training=from_dict(TrainingConfig, own["training"], source=f"'{path}'"),
            calibration=_calibration(own["calibration"]),
            state_dict=dict(content["state_dict"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
        raise _not_ours(path, f"{type(error).__name__}: {error}") from error


def load_weights(module: Any, checkpoint: Checkpoint) -> None:
    """
    Give a module the weights of a checkpoint.

    Raises
    ------
    ModelFileError
        If one is missing, unknown, or of another shape.
    """
    try:
        module.load_state_dict(checkpoint.state_dict)
    except RuntimeError as error:
        raise _not_ours(checkpoint.path, str(error)) from None


def _calibration(values: Mapping[str, Any]) -> Calibration:
    return Calibration(
        probe=np.asarray(values["probe"].numpy(), dtype=np.complex64),
        probe_guess_sha256=str(values["probe_guess_sha256"]),
        **{name: float(values[name]) for name in CALIBRATION_NUMBERS},
    )


def _not_ours(path: Path | str, why: str) -> ModelFileError:
    return ModelFileError(
        "A checkpoint is a whole file that a training of this package has written.",
        expected="a .ckpt file with the model's weights, configuration and calibration",
        received=f"'{path}': {why}",
        fix="train again, or copy the file again from its run folder",
    )
