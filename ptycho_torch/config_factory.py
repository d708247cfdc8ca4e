"""One place where a training's configuration comes together, whoever asks for it."""

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
    Everything a training needs.

    Parameters
    ----------
    scan : Scan
    training : TrainingConfig
        With the engine "pytorch".
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
    Load the data and settle every option.

    Of two answers to one question an explicit argument wins over the execution configuration, that over the command
    line's, and that over the default; a field of a configuration counts as an answer where it differs from the default.

    Parameters
    ----------
    train_data_file : path
        A scan in any format that :func:`ptycho_backend.load_scan` reads.
    output_dir : path
        Folder of the run.
    execution_config, cli_execution : ExecutionConfig, optional
    **overrides
        Fields of ModelConfig, TrainingConfig and ExecutionConfig by name, earlier deprecated_names too.

    Raises
    ------
    ConfigError, DataError
    """
    scan = load_scan(train_data_file)
    model, training, rest = _sorted(overrides)
    settled = {"N": scan.N, **model}
    config = from_dict(TrainingConfig, {"backend": "pytorch", **training, "model": settled}, source="the arguments")
    execution = resolve_execution(rest, execution_config, cli_execution)
    # Before any module under an older name can read its globals.
    legacy.update_legacy_dict(legacy.cfg, config)
    return TrainingPayload(scan, config, execution, Path(output_dir))


def resolve_execution(
    explicit: Mapping[str, Any],
    execution_config: ExecutionConfig | None = None,
    cli_execution: ExecutionConfig | None = None,
) -> ExecutionConfig:
    """Return the execution that wins, field by field; the arguments stay as they are."""
    values: dict[str, Any] = {}
    for config in (cli_execution, execution_config):
        values |= _answers(modern_execution(config)) if config is not None else {}
    return from_dict(ExecutionConfig, {**values, **modern_fields(explicit)}, source="the arguments")


def _answers(config: ExecutionConfig) -> dict[str, Any]:
    default = to_dict(type(config)())
    return {name: value for name, value in to_dict(config).items() if value != default[name]}


def _sorted(overrides: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return overrides of the model, of the training and of the execution; the last refuse what nobody knows."""
    model_fields = {field.name for field in dataclasses.fields(ModelConfig)}
    training_fields = set(fields_of(TrainingConfig)) - {"model"}
    model = {name: value for name, value in overrides.items() if name in model_fields}
    training = {name: value for name, value in overrides.items() if name in training_fields}
    rest = {name: value for name, value in overrides.items() if name not in model_fields | training_fields}
    return model, training, rest
