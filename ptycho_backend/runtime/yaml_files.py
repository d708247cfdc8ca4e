"""YAML files, read safely (spec: config 4.1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ptycho_backend.errors import ConfigError, first_line


def read_yaml(path: Path | str) -> dict[str, Any]:
    """
    Read a YAML mapping with the safe loader.

    Raises
    ------
    ConfigError
    """
    import yaml

    complete = "correct the file; 'ptychopinn train --print_config' prints a complete one"
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            "The configuration file cannot be read.",
            expected="a readable YAML file",
            received=f"'{path}': {error.strerror}",
            fix="check the path and its permissions",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:  # RecursionError: brackets without end
        raise ConfigError(
            "The configuration file is not valid YAML.",
            expected="key: value lines",
            received=f"'{path}': {first_line(error)}",
            fix=complete,
        ) from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            "A configuration file holds a mapping.",
            expected="key: value lines",
            received=f"'{path}': a {type(values).__name__}",
            fix=complete,
        )
    return values
