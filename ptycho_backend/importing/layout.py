"""
Files of a scan with their description, completed by the preset of a known layout.

Notes
-----
Spec: data 12.1, 12.2.
"""

from __future__ import annotations

import glob
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ptycho_backend.config import to_dict, validate
from ptycho_backend.data.readers import existing_file
from ptycho_backend.errors import ConfigError, DataError
from ptycho_backend.importing.arrays import split_address
from ptycho_backend.importing.description import ImportConfig
from ptycho_backend.importing.presets import Filled, Preset, preset, recognised

logger = logging.getLogger(__name__)

AUTO, NONE = "auto", "none"


@dataclass(frozen=True, eq=False)
class Layout:
    """
    Files of a scan, and their completed description.

    Parameters
    ----------
    paths : list of path
    config : ImportConfig
        Description, completed by the preset.
    filled : Filled, optional
        Result of the preset; None without one.
    preset : Preset, optional
    """

    paths: list[Path]
    config: ImportConfig
    filled: Filled | None = None
    preset: Preset | None = None

    @property
    def source(self) -> str:
        """Files in words: the first, and the number of the others."""
        return _names(self.paths)

    @property
    def by_load_scan(self) -> bool:
        """Whether ``load_scan`` reads the files as they are."""
        return self.preset is not None and self.preset.by_load_scan


def layout_of(files: Path | str | Sequence[Path | str], config: ImportConfig | None = None) -> Layout:
    """
    Return files with a description that a preset completes (parameters and errors of :func:`import_scan`).

    Notes
    -----
    Spec: data 12.1, 12.2.
    """
    config = ImportConfig() if config is None else config
    validate(config)
    paths = _expanded([files] if isinstance(files, str | Path) else list(files))
    if config.preset == NONE:
        return Layout(paths, config)
    chosen = recognised(paths) if config.preset == AUTO else preset(config.preset)
    if chosen is None:
        return Layout(paths, config)
    if config.preset != AUTO and not chosen.recognises(paths):
        raise _other_layout(chosen, paths)
    if chosen.by_load_scan and (config.preset != AUTO or not _described(config)):
        _refuse_description(chosen, config)
        return Layout(paths, config, chosen.fill(paths, config), chosen)
    if chosen.by_load_scan:  # the user describes the arrays: the layout has no part in it
        return Layout(paths, config)
    filled = chosen.fill(paths, config)
    logger.info("layout '%s': %s", chosen.name, chosen.title)
    return Layout(paths, replace(filled.config, preset=chosen.name), filled, chosen)


def _expanded(files: Sequence[Path | str]) -> list[Path]:
    """Return existing files; a name with wildcards stands for all that fit, in the order of their names."""
    paths: list[Path] = []
    for file in files:
        address = str(file)
        if glob.has_magic(address) and not Path(address).exists():
            paths += [Path(path) for path in sorted(glob.glob(address))] or [existing_file(address)]
        else:
            paths.append(Path(address))
    if not paths:
        raise ConfigError("An import needs files.", "the files with the patterns", "no file", "name one file or more")
    for path in paths:
        existing_file(split_address(str(path))[0])
    return paths


def _described(config: ImportConfig) -> bool:
    """Return whether a description differs from the default in more than its preset."""
    return to_dict(replace(config, preset=AUTO)) != to_dict(ImportConfig())


def _refuse_description(chosen: Preset, config: ImportConfig) -> None:
    if _described(config):
        raise ConfigError(
            f"The layout '{chosen.name}' needs no description.",
            expected="no options beside --preset",
            received=f"--preset {chosen.name} with further options",
            fix="leave them out, or take --preset none and describe the arrays",
        )


def _other_layout(chosen: Preset, paths: Sequence[Path]) -> DataError:
    return DataError(
        f"The preset '{chosen.name}' reads files of one layout.",
        expected=chosen.title,
        received=f"{_names(paths)} of another layout",
        fix="--preset auto recognises a layout; --preset none takes the description alone",
    )


def _names(paths: Sequence[Path]) -> str:
    """Return the files in words: the first, and the number of all."""
    return str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
