"""
The configuration classes that existing users import, and the way into `params.cfg`.

Plain, mutable, picklable; building one checks nothing, because clients fill in the pattern size later. What becomes of
every keyword stands in ``specs/ptychodus_api_spec.md``; :mod:`ptycho.config.translation` does it.

Notes
-----
Spec: ptychodus_api_spec 4.13.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptycho_backend.compat.legacy import update_legacy_dict

__all__ = ["InferenceConfig", "ModelConfig", "TrainingConfig", "update_legacy_dict"]


@dataclass
class ModelConfig:
    """
    What the model is; see :class:`ptycho_backend.ModelConfig` for fields of the same name.

    Parameters
    ----------
    N : int
        Side of a diffraction pattern, pixels; 0 stands for that of the data.
    probe_scale : float
        Without counterpart: the probe is normalised by its energy.
    """

    N: int = 64
    gridsize: int = 1
    n_filters_scale: int = 2
    model_type: str = "pinn"
    amp_activation: str = "sigmoid"
    object_big: bool = True
    probe_big: bool = True
    probe_mask: bool = False
    pad_object: bool = True
    probe_scale: float = 4.0
    gaussian_smoothing_sigma: float = 0.0
    architecture: str = "unet"


@dataclass
class TrainingConfig:
    """
    How the model is trained; see :class:`ptycho_backend.TrainingConfig` for fields of the same name.

    Parameters
    ----------
    model : ModelConfig
    train_data_file, test_data_file, output_dir : path
        Kept for scripts that read them again; the functions of `ptycho.workflows.components` take data, not files.
    nphotons : float, optional
        Unit of data that are amplitudes; for counts the measured photons decide.
    n_groups, n_images : int, optional
        Groups to train on, under two names; None trains on one for every position.
    positions_provided, debug : bool
        Without counterpart.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    train_data_file: Path | None = None
    test_data_file: Path | None = None
    batch_size: int = 16
    nepochs: int = 50
    mae_weight: float = 0.0
    nll_weight: float = 1.0
    realspace_mae_weight: float = 0.0
    realspace_weight: float = 0.0
    nphotons: float | None = None
    n_groups: int | None = None
    n_images: int | None = None
    neighbor_count: int = 7
    positions_provided: bool = True
    probe_trainable: bool = False
    intensity_scale_trainable: bool = True
    seed: int = 0
    backend: str = "tensorflow"
    debug: bool = False
    output_dir: Path = field(default_factory=lambda: Path("training_outputs"))

    def __post_init__(self) -> None:
        _paths(self)


@dataclass
class InferenceConfig:
    """
    How a model is applied; the model file decides what the model is.

    Parameters
    ----------
    model : ModelConfig
        Its `N` and `gridsize` are read by clients.
    model_path, test_data_file, output_dir : path
        Kept for scripts that read them again.
    debug : bool
        Without counterpart.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    model_path: Path = field(default_factory=Path)
    test_data_file: Path = field(default_factory=Path)
    debug: bool = False
    output_dir: Path = field(default_factory=lambda: Path("inference_outputs"))
    backend: str = "tensorflow"

    def __post_init__(self) -> None:
        _paths(self)


def _paths(config: Any) -> None:
    """Turn text into paths."""
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if "Path" in str(item.type) and value is not None:
            setattr(config, item.name, Path(value))
