"""Options of PtychoPINN as a configuration of this package, and a report on every one of them (spec: config 10)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from ptycho_backend.compat.predecessor.names import RENAMED, SECTIONS, WITHOUT, reason, target, undotted
from ptycho_backend.compat.predecessor.values import LOSSES, check, translated
from ptycho_backend.config import fields_of
from ptycho_backend.errors import ConfigError, nearest_name

SCALED = ("tv_weight", "realspace_mae_weight")  # by `realspace_weight`
MAX_DEPTH, MAX_OPTIONS = 8, 1000  # of nested sections, and altogether: YAML can refer to itself


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

    Raises
    ------
    ConfigError
        If there is no end of options.
    """
    result = Migration()
    options = sorted(islice(_flattened(old), MAX_OPTIONS + 1), key=_precedence)
    if len(options) > MAX_OPTIONS:
        raise ConfigError(
            "A configuration holds a manageable number of options.",
            expected=f"at most {MAX_OPTIONS}",
            received="more, perhaps because the file refers to itself",
            fix="correct the file",
        )
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
    if not any(undotted(fate.old.rpartition(".")[2]) == "architecture" for fate in result.fates):
        model["architecture"] = "cnn"
        result.fates.append(Fate("", "cnn", "training.model.architecture", "the network that such files mean"))
    return result


def _flattened(old: Mapping[str, Any], section: str = "", depth: int = 0) -> Iterator[tuple[str, str, Any]]:
    for key, value in old.items():
        if isinstance(value, Mapping) and depth < MAX_DEPTH:
            yield from _flattened(value, str(key), depth + 1)
        else:
            yield section, str(key), value


def _precedence(option: tuple[str, str, Any]) -> int:
    """Sort options so that the later ones win as they did there: "mae" over weights, weights over "poisson"."""
    _, name, value = option
    if name in LOSSES:
        return 2 if str(value).lower() == "mae" else 0
    return 0 if name == "n_images" else 1


def _fate(section: str, name: str, value: Any, scale: float) -> Fate:
    old = f"{section}.{name}" if section else name
    new = target(name, section)
    if new is None:
        return Fate(old, value, None, reason(name) or _unknown(name))
    if value is None:
        return Fate(old, value, None, "not set")
    try:
        found = value * scale if name in SCALED else translated(undotted(name), new, value)
        check(new, found)
    except (ConfigError, TypeError) as error:
        return Fate(old, value, None, getattr(error, "expected", "") or str(error))
    note = "" if found == value and type(found) is type(value) else f"was {value!r}"
    return Fate(old, found, new, note)


def _unknown(name: str) -> str:
    known = [*WITHOUT, *RENAMED, *(option for config in SECTIONS.values() for option in fields_of(config))]
    nearest = nearest_name(name, known)
    return "unknown here and there" + (f"; '{nearest}' was meant?" if nearest else "")


def _fields(fate: Fate) -> Iterator[tuple[str, Any]]:
    """Yield every field that an option sets: the choice of a loss is two weights here."""
    assert fate.new is not None
    yield fate.new, fate.value
    if fate.old.rpartition(".")[2] in LOSSES and fate.value == 0.0:
        yield "training.mae_weight", 1.0


def _put(values: dict[str, dict[str, Any]], name: str, value: Any) -> None:
    *path, last = name.split(".")
    place: dict[str, Any] = values
    for part in path:
        place = place.setdefault(part, {})
    place[last] = value


def _float(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
