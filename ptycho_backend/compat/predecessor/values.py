"""Translation of option values of PtychoPINN to values of this package's fields (spec: config 10)."""

from __future__ import annotations

import math
from typing import Any

from ptycho_backend.compat.deprecated_names import VALUES
from ptycho_backend.config import ExecutionConfig, InferenceConfig, TrainingConfig, from_dict
from ptycho_backend.errors import ConfigError

CONFIGS = {"training": TrainingConfig, "execution": ExecutionConfig, "inference": InferenceConfig}
LOSSES = ("torch_loss_mode", "loss_function")  # the choice of one loss becomes two weights
MODES = {"unsupervised": "pinn", "supervised": "supervised"}
NLL_WEIGHTS = {"poisson": 1.0, "mae": 0.0}


def translated(name: str, new: str, value: Any) -> Any:
    """Return the value of the field `new` for the value of the option `name`."""
    if name == "architecture" and value != "cnn":
        raise _not_available("network", "cnn", value)
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
    current = VALUES.get(new.rpartition(".")[2], {})
    if isinstance(value, (str, int)) and not isinstance(value, bool) and value in current:
        return current[value]
    return _number(new, value)


def check(new: str, value: Any) -> None:
    """Raise a ConfigError if a field does not accept a value."""
    section, _, field = new.partition(".")
    values: dict[str, Any] = {field: value}
    if field.startswith("model."):
        values = {"model": {field.removeprefix("model."): value}}
    from_dict(CONFIGS[section], values, source="the given file")


def _number(new: str, value: Any) -> Any:
    """Return text as a number (YAML reads 1e9 as text), and a whole float as an int where the field needs one."""
    number = value
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return value
    if _accepts(new, number):
        return number
    if isinstance(number, float) and math.isfinite(number) and number.is_integer() and _accepts(new, int(number)):
        return int(number)
    return value


def _accepts(new: str, value: Any) -> bool:
    try:
        check(new, value)
    except ConfigError:
        return False
    return True


def _nll_weight(value: Any) -> float:
    if str(value).lower() not in NLL_WEIGHTS:
        raise _not_available("loss", "poisson or mae", value)
    return NLL_WEIGHTS[str(value).lower()]


def _root(value: Any) -> int:
    if not isinstance(value, int) or value < 1 or math.isqrt(value) ** 2 != value:
        raise _not_available("number of patterns per group", "a square number", value)
    return math.isqrt(value)


def _square_side(value: Any) -> int:
    sides = list(value) if isinstance(value, (list, tuple)) else [value]
    if not sides or any(side != sides[0] for side in sides) or not isinstance(sides[0], int):
        raise _not_available("group", "as many positions along y as along x", value)
    return int(sides[0])


def _not_available(what: str, expected: str, value: Any) -> ConfigError:
    return ConfigError(
        f"This {what} is not here.", expected=f"no such {what} here, only {expected}", received=repr(value)
    )
