"""
Translation of configurations to the global dictionary `params.cfg` of earlier packages (spec: config 9).

:func:`update_legacy_dict` writes it. Only modules with names of earlier packages read it; no engine does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ptycho_backend.config import ExecutionConfig
from ptycho_backend.errors import ConfigError

cfg: dict[str, Any] = {}

KEYS: Mapping[str, str] = MappingProxyType(
    {
        "object_big": "object.big",
        "probe_big": "probe.big",
        "probe_mask": "probe.mask",
        "probe_trainable": "probe.trainable",
        "intensity_scale_trainable": "intensity_scale.trainable",
        "positions_provided": "positions.provided",
        "output_dir": "output_prefix",
        "train_data_file": "train_data_file_path",
        "test_data_file": "test_data_file_path",
    }
)


def update_legacy_dict(target: MutableMapping[str, Any], config: Any) -> None:
    """
    Write a model, training or inference configuration into a dictionary under the older keys.

    Fields that are None are skipped; paths become text.

    Raises
    ------
    ConfigError
        For an ExecutionConfig, which describes a run and not a model.
    """
    if isinstance(config, ExecutionConfig):
        raise ConfigError(
            "The dictionary of model settings holds no execution settings.",
            expected="a ModelConfig, TrainingConfig or InferenceConfig",
            received="an ExecutionConfig",
            fix="pass it to train() as 'execution'",
        )
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            update_legacy_dict(target, value)
        elif value is not None:
            target[KEYS.get(field.name, field.name)] = str(value) if isinstance(value, Path) else value
