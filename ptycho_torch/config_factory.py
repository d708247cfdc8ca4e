"""Factory of a training's scan and configuration, with the order of precedence of the earlier PyTorch package."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptycho_backend.compat import legacy
from ptycho_backend.compat.deprecated_names import modern_execution, modern_fields
from ptycho_backend.config import ExecutionConfig, ModelConfig, TrainingConfig, fields_of, from_dict, to_dict
from ptycho_backend.data.readers import load_scan
from ptycho_backend.data.scan import Scan


@dataclass(eq=False)
class TrainingPayload:
    """
    Input of a training.

    Parameters
    ----------
    scan : Scan
    training : TrainingConfig
        Training settings; the engine is "pytorch".
    execution : ExecutionConfig
    output_dir : Path
    """

    scan: Scan
    training: TrainingConfig
    execution: ExecutionConfig
    output_dir: Path


def create_training_payload(
    train_data_file: Path | str,
    output_dir: Path | str,
    execution_config: ExecutionConfig | None = None,
    cli_execution: ExecutionConfig | None = None,
    **overrides: Any,
) -> TrainingPayload:
    """
    Load the data and set every option.

    An explicit argument takes precedence over the execution configuration, that over the command line's, and that over
    the default. A field of a configuration is set if it differs from the default.

    Parameters
    ----------
    train_data_file : path
        Scan in any format of :func:`ptycho_backend.load_scan`.
    output_dir : path
        Folder of the run.
    execution_config, cli_execution : ExecutionConfig, optional
    **overrides
        Fields of ModelConfig, TrainingConfig and ExecutionConfig by name; deprecated names are allowed.

    Raises
    ------
    ConfigError, DataError
    """
    scan = load_scan(train_data_file)
    model_fields = {field.name for field in dataclasses.fields(ModelConfig)}
    training_fields = set(fields_of(TrainingConfig)) - {"model"}
    model = {"N": scan.N, **_selected(overrides, model_fields)}
    training = {"backend": "pytorch", **_selected(overrides, training_fields), "model": model}
    config = from_dict(TrainingConfig, training, source="the arguments")
    execution_fields = set(overrides) - model_fields - training_fields
    execution = resolve_execution(_selected(overrides, execution_fields), execution_config, cli_execution)
    # Modules with older names read these globals.
    legacy.update_legacy_dict(legacy.cfg, config)
    return TrainingPayload(scan, config, execution, Path(output_dir))


def resolve_execution(
    explicit: Mapping[str, Any],
    execution_config: ExecutionConfig | None = None,
    cli_execution: ExecutionConfig | None = None,
) -> ExecutionConfig:
    """Return the execution settings by precedence of their fields; the arguments stay unchanged."""
    values: dict[str, Any] = {}
    for config in (cli_execution, execution_config):
        values |= _changed_fields(modern_execution(config)) if config is not None else {}
    return from_dict(ExecutionConfig, {**values, **modern_fields(explicit)}, source="the arguments")


def _changed_fields(config: ExecutionConfig) -> dict[str, Any]:
    default = to_dict(type(config)())
    return {name: value for name, value in to_dict(config).items() if value != default[name]}


def _selected(overrides: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in overrides.items() if name in names}
