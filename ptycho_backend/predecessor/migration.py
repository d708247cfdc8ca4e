"""Options of PtychoPINN as a configuration of this package, and a report on every one of them (spec: config 10)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ptycho_backend.config import ExecutionConfig, InferenceConfig, TrainingConfig, fields_of, from_dict
from ptycho_backend.errors import ConfigError, nearest_name
from ptycho_backend.predecessor.names import RENAMED, SECTIONS, WITHOUT, modern_name, reason, target
from ptycho_backend.spellings import VALUES

CONFIGS = {"training": TrainingConfig, "execution": ExecutionConfig, "inference": InferenceConfig}
SCALED = ("tv_weight", "realspace_mae_weight")  # by `realspace_weight`
MODES = {"unsupervised": "pinn", "supervised": "supervised"}
MAX_DEPTH = 8  # of nested sections


@dataclass(frozen=True)
class Fate:
    """What became of one option: its new name and value, or None and why."""

    old: str
    value: Any
    new: str | None
    note: str = ""


@dataclass
class Migration:
    """
    A configuration in the making.

    Parameters
    ----------
    values : dict
        Sections "training", "execution", "inference", as `ptychopinn train --config` reads them.
    fates : list of Fate
        One for each option, in the file's order.
    """

    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    fates: list[Fate] = field(default_factory=list)

    @property
    def left_out(self) -> list[Fate]:
        """Options without a counterpart."""
        return [fate for fate in self.fates if fate.new is None]


def migrate(old: Mapping[str, Any]) -> Migration:
    """
    Translate options of PtychoPINN.

    Parameters
    ----------
    old : mapping
        Flat, with dotted keys, or nested in sections.

    Returns
    -------
    Migration
        Its values are valid, and take the published network where `old` names no other.
    """
    result = Migration()
    options = list(_flattened(old))
    scale = next((_float(value) for _, name, value in options if name == "realspace_weight"), 0.0)
    for section, name, value in options:
        fate = _fate(section, name, value, scale)
        if fate.new in {earlier.new for earlier in result.fates if earlier.new}:
            fate = replace(fate, note="given twice: the later one counts")
        result.fates.append(fate)
        if fate.new is not None:
            for field_name, new_value in _fields(fate):
                _put(result.values, field_name, new_value)
    model = result.values.setdefault("training", {}).setdefault("model", {})
    if not any(modern_name(fate.old.rpartition(".")[2]) == "architecture" for fate in result.fates):
        model["architecture"] = "cnn"
        result.fates.append(Fate("", "cnn", "training.model.architecture", "the network that such files mean"))
    return result


def _flattened(old: Mapping[str, Any], section: str = "", depth: int = 0) -> Iterator[tuple[str, str, Any]]:
    for key, value in old.items():
        if isinstance(value, Mapping) and depth < MAX_DEPTH:
            yield from _flattened(value, str(key), depth + 1)
        else:
            yield section, str(key), value


def _fate(section: str, name: str, value: Any, scale: float) -> Fate:
    old = f"{section}.{name}" if section else name
    new = target(name, section)
    if new is None:
        return Fate(old, value, None, reason(name) or _unknown(name))
    if value is None:
        return Fate(old, value, None, "not set")
    try:
        translated = value * scale if name in SCALED else _translated(modern_name(name), new, value)
        _check(new, translated)
    except (ConfigError, TypeError) as error:
        return Fate(old, value, None, getattr(error, "expected", "") or str(error))
    note = "" if translated == value and type(translated) is type(value) else f"was {value!r}"
    return Fate(old, translated, new, note)


def _unknown(name: str) -> str:
    known = [*WITHOUT, *RENAMED, *(option for config in SECTIONS.values() for option in fields_of(config))]
    nearest = nearest_name(name, known)
    return "unknown here and there" + (f"; '{nearest}' was meant?" if nearest else "")


def _translated(name: str, new: str, value: Any) -> Any:
    """Return a value as its new field takes it."""
    if name == "architecture" and value != "cnn":
        raise _refused("network", "cnn", value)
    if name in ("torch_loss_mode", "loss_function"):
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
        _check(new, value)
    except ConfigError:
        return False
    return True


def _check(new: str, value: Any) -> None:
    """Refuse a value that its field does not take."""
    section, _, rest = new.partition(".")
    values: dict[str, Any] = {rest: value}
    if rest.startswith("model."):
        values = {"model": {rest.removeprefix("model."): value}}
    from_dict(CONFIGS[section], values, source="the given file")  # type: ignore[type-var]


def _fields(fate: Fate) -> Iterator[tuple[str, Any]]:
    """Yield every field that an option sets: the choice of a loss is two weights here."""
    assert fate.new is not None
    yield fate.new, fate.value
    if modern_name(fate.old.rpartition(".")[2]) in ("torch_loss_mode", "loss_function"):
        yield "training.mae_weight", 1.0 - fate.value


def _put(values: dict[str, dict[str, Any]], name: str, value: Any) -> None:
    *path, last = name.split(".")
    place: dict[str, Any] = values
    for part in path:
        place = place.setdefault(part, {})
    place[last] = value


def _nll_weight(value: Any) -> float:
    weights = {"poisson": 1.0, "mae": 0.0}
    if str(value).lower() not in weights:
        raise _refused("loss", "poisson or mae", value)
    return weights[str(value).lower()]


def _float(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


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
