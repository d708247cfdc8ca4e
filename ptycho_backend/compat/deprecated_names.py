"""Earlier deprecated_names of execution settings: accepted everywhere, with a DeprecationWarning (spec: config 8)."""

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
    Return execution settings under their present names, with their present values.

    Warns
    -----
    DeprecatedNameWarning
        A DeprecationWarning for every earlier spelling, with the present one.
    """
    modern: dict[str, Any] = {}
    for name, value in values.items():
        if name in FIELDS and FIELDS[name] in values:
            continue  # who gives both means the present one
        new = modern_name(name)
        modern[new] = modern_value(new, value)
    return modern


def modern_name(name: str) -> str:
    """Return the present spelling of a field, with a warning where it has changed."""
    if name not in FIELDS:
        return name
    _warn(name, FIELDS[name])
    return FIELDS[name]


def modern_flag(flag: str) -> str:
    """Return the present spelling of a flag ("_" and "-" are the same), with a warning where it has changed."""
    known = flag.replace("_", "-")
    if known not in FLAGS:
        return flag
    _warn(flag, FLAGS[known])
    return FLAGS[known]


def modern_value(name: str, value: Any) -> Any:
    """Return the present spelling of a field's value."""
    known: Mapping[Any, Any] = VALUES.get(name, {})
    if not isinstance(value, (str, int, type(None))) or value not in known or isinstance(value, bool):
        return value
    _warn(f"{name}={value!r}", f"{name}={known[value]!r}")
    return known[value]


def modern_execution(execution: Config) -> Config:
    """Return a copy of a configuration with the present spelling of every value."""
    modern = copy.deepcopy(execution)
    for field in dataclasses.fields(modern):  # type: ignore[arg-type]
        setattr(modern, field.name, modern_value(field.name, getattr(modern, field.name)))
    return modern


def _warn(old: str, new: str) -> None:
    warnings.warn(f"'{old}' is now '{new}'", DeprecatedNameWarning, stacklevel=4)
