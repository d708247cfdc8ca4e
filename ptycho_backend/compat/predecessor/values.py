"""Values of PtychoPINN's options as the fields of this package take them (spec: config 10)."""

from __future__ import annotations

import math
from typing import Any

from ptycho_backend.compat.deprecated_names import VALUES
from ptycho_backend.config import ExecutionConfig, InferenceConfig, TrainingConfig, from_dict
from ptycho_backend.errors import ConfigError

CONFIGS = {"training": TrainingConfig, "execution": ExecutionConfig, "inference": InferenceConfig}
LOSSES = ("torch_loss_mode", "loss_function")  # the choice of one loss is two weights here
MODES = {"unsupervised": "pinn", "supervised": "supervised"}


def translated(name: str, new: str, value: Any) -> Any:
    """Return a value as its new field takes it."""
    if name == "architecture" and value != "cnn":
        raise _refused("network", "cnn", value)
    if name in LOSSES:
        return _nll_weight(value)
    if name == "C":
        return _root(value)
    if name == "grid_size":
        return _square_side(value)
    if name == "mode":
        return MODES.get(str(value).lower(), value)
    if name == "orchestrator":
        return "mlflow" if str(value).lower() == "mlflow" else "csv"
    plain = VALUES.get(new.rpartition(".")[2], {})
    if isinstance(value, (str, int)) and not isinstance(value, bool) and value in plain:
        return plain[value]
    return _number(new, value)


def _number(new: str, value: Any) -> Any:
    """Return numbers that YAML reads as text (1e9), or as a float where a whole one is meant."""
    probe = value
    if isinstance(value, str):
        try:
            probe = float(value)
        except ValueError:
            return value
    if isinstance(probe, float) and math.isfinite(probe) and probe.is_integer() and _accepts(new, int(probe)):
        return int(probe) if not _accepts(new, probe) else probe
    return probe if _accepts(new, probe) else value


def _accepts(new: str, value: Any) -> bool:
    try:
        check(new, value)
    except ConfigError:
        return False
    return True


def check(new: str, value: Any) -> None:
    """Refuse a value that its field does not take."""
    section, _, rest = new.partition(".")
    values: dict[str, Any] = {rest: value}
    if rest.startswith("model."):
        values = {"model": {rest.removeprefix("model."): value}}
    from_dict(CONFIGS[section], values, source="the given file")


def _nll_weight(value: Any) -> float:
    weights = {"poisson": 1.0, "mae": 0.0}
    if str(value).lower() not in weights:
        raise _refused("loss", "poisson or mae", value)
    return weights[str(value).lower()]


def _root(value: Any) -> int:
    if not isinstance(value, int) or value < 1 or math.isqrt(value) ** 2 != value:
        raise _refused("number of patterns per group", "a square number", value)
    return math.isqrt(value)


def _square_side(value: Any) -> int:
    sides = list(value) if isinstance(value, (list, tuple)) else [value]
    if not sides or any(side != sides[0] for side in sides) or not isinstance(sides[0], int):
        raise _refused("group", "as many positions along y as along x", value)
    return int(sides[0])


def _refused(what: str, expected: str, value: Any) -> ConfigError:
    return ConfigError(
        f"This {what} is not here.", expected=f"no such {what} here, only {expected}", received=repr(value)
    )
