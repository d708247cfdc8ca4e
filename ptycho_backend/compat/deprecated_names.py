"""Deprecated names and values of execution settings, read with a DeprecationWarning (spec: config 8)."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from ptycho_backend.errors import DeprecatedNameWarning

Config = TypeVar("Config")

FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "accum_steps": "accumulate_grad_batches",
        "accumulation_steps": "accumulate_grad_batches",
        "accelerator": "device",
        "checkpoint_mode": "monitor_mode",
        "checkpoint_monitor_metric": "monitor",
        "checkpoint_save_top_k": "save_top_k",
        "logger_backend": "logger",
        "lr_min_ratio": "min_lr_ratio",
        "lr_warmup_epochs": "warmup_epochs",
        "n_devices": "devices",
    }
)
VALUES: Mapping[str, Mapping[Any, Any]] = MappingProxyType(
    {
        "scheduler": {
            "Adaptive": "plateau",
            "Constant": "constant",
            "Cosine": "cosine",
            "Default": "constant",
            "Exponential": "exponential",
            "MultiStage": "multistep",
            "MultiStep": "multistep",
            "ReduceLROnPlateau": "plateau",
            "WarmupCosine": "cosine",
        },
        "device": {"gpu": "cuda", "GPU": "cuda", "CPU": "cpu"},
        "logger": {None: "none", "None": "none", "CSV": "csv"},
        "precision": {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed", 32: "32-true", 16: "16-mixed"},
    }
)
FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "--checkpoint-mode": "--execution.monitor_mode",
        "--checkpoint-monitor": "--execution.monitor",
        "--checkpoint-save-top-k": "--execution.save_top_k",
        "--early-stop-patience": "--execution.early_stop_patience",
    }
)


def modern_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return execution settings with current names and values.

    A current name takes precedence over its deprecated one.

    Warns
    -----
    DeprecatedNameWarning
        Names the current form of each deprecated name or value.
    """
    modern: dict[str, Any] = {}
    for name, value in values.items():
        if FIELDS.get(name) not in values:
            current = modern_name(name)
            modern[current] = modern_value(current, value)
    return modern


def modern_name(name: str) -> str:
    """Return the current name of a field; warn if the given one is deprecated."""
    return _current(name, FIELDS.get(name))


def modern_flag(flag: str) -> str:
    """Return the current name of a flag, which may contain "_" for "-"; warn if the given one is deprecated."""
    return _current(flag, FLAGS.get(flag.replace("_", "-")))


def modern_value(name: str, value: Any) -> Any:
    """Return the current form of a field's value; warn if the given one is deprecated."""
    values: Mapping[Any, Any] = VALUES.get(name, {})
    if not isinstance(value, (str, int, type(None))) or isinstance(value, bool) or value not in values:
        return value
    _warn(f"{name}={value!r}", f"{name}={values[value]!r}")
    return values[value]


def modern_execution(execution: Config) -> Config:
    """Return a copy of a configuration with the current form of every value."""
    modern = copy.deepcopy(execution)
    for field in dataclasses.fields(modern):  # type: ignore[arg-type]
        setattr(modern, field.name, modern_value(field.name, getattr(modern, field.name)))
    return modern


def _current(given: str, current: str | None) -> str:
    if current is None:
        return given
    _warn(given, current, stacklevel=5)
    return current


def _warn(old: str, new: str, stacklevel: int = 4) -> None:
    warnings.warn(f"'{old}' is now '{new}'", DeprecatedNameWarning, stacklevel=stacklevel)
