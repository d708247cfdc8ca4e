"""
Configuration classes of the earlier TensorFlow package (spec: ptychodus_api_spec 4.13).

They are plain, mutable and picklable. Constructors check nothing, because clients set the pattern size later. The
table in ``specs/ptychodus_api_spec.md`` lists every keyword; :mod:`ptycho.config.translation` translates them.
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
    Model settings; fields are those of :class:`ptycho_backend.ModelConfig` with the same name.

    Parameters
    ----------
    N : int
        Side of a diffraction pattern, pixels; 0 selects the side of the data.
    probe_scale : float
        No effect: the probe is normalised by its energy.
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
    Training settings; fields are those of :class:`ptycho_backend.TrainingConfig` with the same name.

    Parameters
    ----------
    model : ModelConfig
    train_data_file, test_data_file, output_dir : path
        Stored for scripts that read them; the functions of `ptycho.workflows.components` take data, not files.
    nphotons : float, optional
        Photons per pattern for data in amplitudes; no effect for counts.
    n_groups, n_images : int, optional
        Number of training groups (two names); None selects one group per position.
    positions_provided, debug : bool
        No effect.
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
        _convert_paths(self)


@dataclass
class InferenceConfig:
    """
    Inference settings; the model's own settings come from its file.

    Parameters
    ----------
    model : ModelConfig
        Clients read its `N` and `gridsize`.
    model_path, test_data_file, output_dir : path
        Stored for scripts that read them.
    debug : bool
        No effect.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    model_path: Path = field(default_factory=Path)
    test_data_file: Path = field(default_factory=Path)
    debug: bool = False
    output_dir: Path = field(default_factory=lambda: Path("inference_outputs"))
    backend: str = "tensorflow"

    def __post_init__(self) -> None:
        _convert_paths(self)


def _convert_paths(config: Any) -> None:
    """Convert text fields of type Path to paths."""
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if "Path" in str(item.type) and value is not None:
            setattr(config, item.name, Path(value))
