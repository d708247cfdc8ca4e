"""Translation of PtychoPINN's options to a configuration of this package, with a report on each (spec: config 10)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from ptycho_backend.compat.predecessor.names import RENAMED, SECTIONS, WITHOUT, reason, target, without_dot
from ptycho_backend.compat.predecessor.values import LOSSES, check, translated
from ptycho_backend.config import fields_of
from ptycho_backend.errors import ConfigError, nearest_name

SCALED = ("tv_weight", "realspace_mae_weight")  # PtychoPINN multiplies them by `realspace_weight`
MAX_DEPTH, MAX_OPTIONS = 8, 1000  # limits of nested sections and of all options, because YAML can refer to itself


@dataclass(frozen=True)
class TranslatedOption:
    """One option: old name and value, new name (None without a counterpart), and a note."""

    old: str
    value: Any
    new: str | None
    note: str = ""


@dataclass
class Migration:
    """
    A translated configuration with its report.

    Parameters
    ----------
    values : dict
        Sections "training", "execution", "inference", as `ptychopinn train --config` reads them.
    options : list of TranslatedOption
        One for each option, in the file's order.
    """

    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    options: list[TranslatedOption] = field(default_factory=list)

    @property
    def left_out(self) -> list[TranslatedOption]:
        """Options without a counterpart."""
        return [option for option in self.options if option.new is None]


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
        Its values are valid; the architecture is "cnn" unless `old` names another.

    Raises
    ------
    ConfigError
        If there are more than 1000 options.
    """
    result = Migration()
    options = sorted(islice(_flattened(old), MAX_OPTIONS + 1), key=_precedence)
    if len(options) > MAX_OPTIONS:
        raise ConfigError(
            "A configuration holds a limited number of options.",
            expected=f"at most {MAX_OPTIONS}",
            received="more, perhaps because the file refers to itself",
            fix="correct the file",
        )
    scale = next((_float(value) for _, name, value in options if name == "realspace_weight"), 0.0)
    for section, name, value in options:
        option = _translated_option(section, name, value, scale)
        if option.new in {earlier.new for earlier in result.options if earlier.new}:
            option = replace(option, note="given twice: the later one counts")
        result.options.append(option)
        for field_name, new_value in _fields(option):
            _set_nested(result.values, field_name, new_value)
    model = result.values.setdefault("training", {}).setdefault("model", {})
    if not any(without_dot(option.old.rpartition(".")[2]) == "architecture" for option in result.options):
        model["architecture"] = "cnn"
        note = "the network of such files"
        result.options.append(TranslatedOption("", "cnn", "training.model.architecture", note))
    return result


def _flattened(old: Mapping[str, Any], section: str = "", depth: int = 0) -> Iterator[tuple[str, str, Any]]:
    for key, value in old.items():
        if isinstance(value, Mapping) and depth < MAX_DEPTH:
            yield from _flattened(value, str(key), depth + 1)
        else:
            yield section, str(key), value


def _precedence(option: tuple[str, str, Any]) -> int:
    """Return the sort key of an option: later options win, "mae" over weights and weights over "poisson"."""
    _, name, value = option
    if name in LOSSES:
        return 2 if str(value).lower() == "mae" else 0
    return 0 if name == "n_images" else 1


def _translated_option(section: str, name: str, value: Any, scale: float) -> TranslatedOption:
    old = f"{section}.{name}" if section else name
    new = target(name, section)
    if new is None:
        return TranslatedOption(old, value, None, reason(name) or _unknown(name))
    if value is None:
        return TranslatedOption(old, value, None, "not set")
    try:
        new_value = value * scale if name in SCALED else translated(without_dot(name), new, value)
        check(new, new_value)
    except (ConfigError, TypeError) as error:
        return TranslatedOption(old, value, None, getattr(error, "expected", "") or str(error))
    same = new_value == value and type(new_value) is type(value)
    return TranslatedOption(old, new_value, new, "" if same else f"was {value!r}")


def _unknown(name: str) -> str:
    options = [*WITHOUT, *RENAMED, *(option for config in SECTIONS.values() for option in fields_of(config))]
    nearest = nearest_name(name, options)
    return "unknown in both packages" + (f"; '{nearest}' was meant?" if nearest else "")


def _fields(option: TranslatedOption) -> Iterator[tuple[str, Any]]:
    """Yield the fields that an option sets; the choice of a loss sets two weights."""
    if option.new is not None:
        yield option.new, option.value
        if option.old.rpartition(".")[2] in LOSSES and option.value == 0.0:
            yield "training.mae_weight", 1.0


def _set_nested(values: dict[str, dict[str, Any]], name: str, value: Any) -> None:
    *path, last = name.split(".")
    section: dict[str, Any] = values
    for part in path:
        section = section.setdefault(part, {})
    section[last] = value


def _float(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
