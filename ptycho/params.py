"""
The settings that older scripts share: `cfg`, one dictionary for the process.

`update_legacy_dict` and `load_inference_bundle` write it. What a function is given as an argument always counts more.

Notes
-----
Spec: config 9.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

from ptycho_backend.compat.legacy import KEYS, cfg
from ptycho_backend.config import ModelConfig, TrainingConfig
from ptycho_backend.config import validate as validate_config
from ptycho_backend.errors import PtychoError, nearest_name

__all__ = ["MissingParameterError", "cfg", "get", "params", "set", "validate"]

logger = logging.getLogger(__name__)


class MissingParameterError(PtychoError, KeyError):
    """A setting was asked for that nothing has written."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show the text in quotes, on one line


def get(key: str, *default: Any) -> Any:
    """
    Return a setting, or the default where one is given.

    Raises
    ------
    MissingParameterError
        A KeyError, if there is neither.
    """
    if key in cfg:
        return cfg[key]
    if default:
        return default[0]
    near = nearest_name(key, cfg)
    raise MissingParameterError(
        "A setting is read after it has been written.",
        expected=f"one of {', '.join(sorted(cfg)) or 'none: nothing has been written yet'}",
        received=f"{key!r}, in params.cfg",
        fix=f"did you mean {near!r}?" if near else "call update_legacy_dict or load_inference_bundle first",
    )


def set(key: str, value: Any) -> None:
    """Write a setting."""
    cfg[key] = value


def params() -> dict[str, Any]:
    """Return a copy of all settings."""
    return dict(cfg)


def validate() -> None:
    """
    Check the settings that say what a model is and how it is trained.

    `realspace_mae_weight` counts by itself here, whatever `realspace_weight` is.

    Raises
    ------
    ConfigError
        One error that lists every violation.
    """
    model, training = _written(ModelConfig), _written(TrainingConfig)
    if model.get("N") == 0:  # to be filled in from the data
        del model["N"]
    validate_config(TrainingConfig(model=ModelConfig(**model), **training), source="params.cfg")
    if training.get("realspace_mae_weight") and not training.get("realspace_weight"):
        logger.info("realspace_mae_weight counts by itself: realspace_weight=0 only leaves out the total variation")


def _written(config_type: type[Any]) -> dict[str, Any]:
    """Return the settings in `cfg` that are fields of a configuration class."""
    names = {field.name: KEYS.get(field.name, field.name) for field in dataclasses.fields(config_type)}
    return {name: cfg[key] for name, key in names.items() if name != "model" and key in cfg}
