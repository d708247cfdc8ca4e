"""
Global settings of the earlier TensorFlow package: the dictionary `cfg` (spec: config 9).

`update_legacy_dict` and `load_inference_bundle` write it. Function arguments take precedence over it.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

from ptycho_backend.compat.legacy import KEYS, cfg
from ptycho_backend.config import ModelConfig, TrainingConfig
from ptycho_backend.config import validate as validate_config
from ptycho_backend.errors import PtychoError

__all__ = ["MissingParameterError", "cfg", "get", "params", "set", "validate"]

logger = logging.getLogger(__name__)


class MissingParameterError(PtychoError, KeyError):
    """The setting has no value in `cfg`."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError shows its text in quotes, on one line


def get(key: str, *default: Any) -> Any:
    """
    Return a setting, or the default if there is one.

    Raises
    ------
    MissingParameterError
        A KeyError, if the setting is missing and there is no default.
    """
    if key in cfg:
        return cfg[key]
    if default:
        return default[0]
    fix = "call update_legacy_dict or load_inference_bundle first"
    raise MissingParameterError.unknown("setting", key, sorted(cfg), f"{key!r}, in params.cfg", fix)


def set(key: str, value: Any) -> None:
    """Write a setting."""
    cfg[key] = value


def params() -> dict[str, Any]:
    """Return a copy of all settings."""
    return dict(cfg)


def validate() -> None:
    """
    Check the settings of the model and its training.

    `realspace_mae_weight` is independent of `realspace_weight`.

    Raises
    ------
    ConfigError
        One error that lists every violation.
    """
    model, training = _settings_of(ModelConfig), _settings_of(TrainingConfig)
    if model.get("N") == 0:  # the side of the data
        del model["N"]
    validate_config(TrainingConfig(model=ModelConfig(**model), **training), source="params.cfg")
    if training.get("realspace_mae_weight") and not training.get("realspace_weight"):
        logger.info("realspace_mae_weight is independent of realspace_weight=0, the weight of the total variation")


def _settings_of(config_type: type[Any]) -> dict[str, Any]:
    """Return the settings in `cfg` for the fields of a configuration class."""
    names = {field.name: KEYS.get(field.name, field.name) for field in dataclasses.fields(config_type)}
    return {name: cfg[key] for name, key in names.items() if name != "model" and key in cfg}
