"""Options that several commands share."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ptycho_backend.commands.help import documented
from ptycho_backend.config import Config, fields_of, from_dict, to_dict

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from ptycho_backend.commands.command_line import CommandLine

DEFAULT_SIZE = 64  # stands in for the size of a scan that is not loaded yet


def add_output_options(line: CommandLine, kind: str) -> None:
    """Add where results go, and whether they may replace others."""
    line.add("--output", "-o", metavar="PATH", help=f"{kind}.")
    line.add("--overwrite", action="store_true", help="Replace results that are there already.")


def add_message_options(line: CommandLine) -> None:
    """Add how much is said."""
    line.add("--quiet", action="store_true", help="Say nothing but warnings and errors.")
    line.add("--debug", action="store_true", help="Log more, and show where an error came from.")


def add_config_options(line: CommandLine) -> None:
    """Add configuration files."""
    line.add("--config", metavar="FILE", help="YAML file with settings; what the command line says comes first.")
    line.add("--print_config", action="store_true", help="Print all settings as a YAML file, and stop.")


def sections(options: Namespace, config_types: Mapping[str, type[Any]]) -> dict[str, Any]:
    """Return the configurations of a command by name, checked."""
    return {key: section(options, key, config_type) for key, config_type in config_types.items()}


def section(options: Namespace, key: str, config_type: type[Config]) -> Config:
    """
    Return a configuration, checked; a model size of 0 stands for the scan's and stays.

    Raises
    ------
    ConfigError
        One error that lists all violations.
    """
    values: dict[str, Any] = options[key].as_dict()
    model = values.get("model", {})
    unknown_size = model.get("N") == 0
    if unknown_size:
        model["N"] = DEFAULT_SIZE
    config: Any = from_dict(config_type, values, source=options.config)
    if unknown_size:
        config.model.N = 0
    return typing.cast(Config, config)


def yaml_text(configs: Any) -> str:
    """Return one configuration, or several by name, as YAML with the meaning of every field beside it."""
    if dataclasses.is_dataclass(configs):
        return "\n".join(_yaml_lines(configs, ""))
    return "\n".join(line for key, config in configs.items() for line in [f"{key}:", *_yaml_lines(config, "  ")])


def _yaml_lines(config: Any, indent: str) -> list[str]:
    import yaml

    texts, values = documented(type(config)), to_dict(config)
    lines: list[str] = []
    for name in fields_of(type(config)):
        value = getattr(config, name)
        if dataclasses.is_dataclass(value):
            lines += [f"{indent}{name}:", *_yaml_lines(value, indent + "  ")]
            continue
        entry = yaml.safe_dump({name: values[name]}).strip()
        lines.append(f"{indent}{entry}".ljust(42) + f"  # {texts[name].text}")
    return lines
