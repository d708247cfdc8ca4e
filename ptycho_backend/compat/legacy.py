"""
The settings that older modules read from one dictionary, `params.cfg`.

It is written by :func:`update_legacy_dict` and read by modules under older names only; nothing in the packages' own
code looks into it (spec: config 9).
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
    Write a model, training or inference configuration into a dictionary of older keys.

    None stays out, and paths become text.

    Raises
    ------
    ConfigError
        For an ExecutionConfig: how a run is executed is no property of a model.
    """
    if isinstance(config, ExecutionConfig):
        raise ConfigError(
            "How a run is executed never enters the dictionary of model settings.",
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
