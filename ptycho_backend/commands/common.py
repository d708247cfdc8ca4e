"""Options that several commands share, and YAML of configurations."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ptycho_backend.commands.help import descriptions
from ptycho_backend.config import Config, from_dict, to_dict

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from ptycho_backend.commands.command_line import CommandLine

COMMENT_COLUMN = 42


def add_output_options(line: CommandLine, description: str) -> None:
    """Add the path of the results and the permission to replace earlier ones."""
    line.add("--output", "-o", metavar="PATH", help=f"{description}.")
    line.add("--overwrite", action="store_true", help="Replace earlier results.")


def add_compare_option(line: CommandLine) -> None:
    """Add the request for a second image from another start."""
    line.add("--compare", action="store_true", help="Reconstruct once more without the network, or with it; compare.")


def add_json_option(line: CommandLine) -> None:
    """Add the request for one JSON document in place of tables."""
    text = "Print one JSON document with all figures, files and warnings, and no other text on standard output."
    line.add("--json", action="store_true", help=text)


def add_message_options(line: CommandLine) -> None:
    """Add the options for the amount of messages."""
    line.add("--quiet", action="store_true", help="Show warnings and errors only.")
    line.add("--debug", action="store_true", help="Show debug messages, and a traceback with every error.")


def add_config_options(line: CommandLine) -> None:
    """Add the options for settings files."""
    line.add("--config", metavar="FILE", help="YAML file with settings; options of the command line take precedence.")
    line.add("--print-config", action="store_true", help="Print all settings as a YAML file, and stop.")


def sections(options: Namespace, config_types: Mapping[str, type[Any]]) -> dict[str, Any]:
    """Return the validated configurations of a command by section."""
    return {key: section(options, key, config_type) for key, config_type in config_types.items()}


def section(options: Namespace, key: str, config_type: type[Config]) -> Config:
    """
    Return a validated configuration.

    Raises
    ------
    ConfigError
        One error that lists all violations.
    """
    return from_dict(config_type, options[key].as_dict(), source=options.source)


def yaml_text(configs: Any) -> str:
    """Return one configuration, or several by section, as YAML with a comment beside every field."""
    if dataclasses.is_dataclass(configs):
        return "\n".join(_yaml_lines(configs, ""))
    return "\n".join(line for key, config in configs.items() for line in [f"{key}:", *_yaml_lines(config, "  ")])


def _yaml_lines(config: Any, indent: str) -> Iterator[str]:
    import yaml

    texts = descriptions(type(config))
    for name, value in to_dict(config).items():
        if dataclasses.is_dataclass(nested := getattr(config, name)):
            yield f"{indent}{name}:"
            yield from _yaml_lines(nested, indent + "  ")
        else:
            entry = yaml.safe_dump({name: value}, default_flow_style=True, width=math.inf).strip()[1:-1]
            comment = f"  # {texts[name]}" if texts[name] else ""  # none with python -OO
            yield f"{indent}{entry}".ljust(COMMENT_COLUMN if comment else 0) + comment
