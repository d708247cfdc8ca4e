"""
Presets: known layouts of files, in the order of their particularity.

A beamline adds its own as an entry point of the group ``ptycho_backend.readers``. The object of the entry point is a
:class:`Preset`, or a function without arguments that returns one.

Notes
-----
Spec: data 12.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType

from ptycho_backend.errors import ConfigError, first_line
from ptycho_backend.importing.presets import (
    cxi,
    eiger,
    nxcxi_ptycho,
    ptychi,
    ptychoshelves,
    ptyd,
    ptylab,
    ptyrad,
    py4dstem,
)
from ptycho_backend.importing.presets.base import Filled, Preset, completed
from ptycho_backend.importing.presets.own import NPZ, PTYCHODUS

__all__ = ["PRESETS", "Filled", "Preset", "completed", "preset", "presets", "recognised"]

logger = logging.getLogger(__name__)

GROUP = "ptycho_backend.readers"
# The more particular layout first: an NXcxi_ptycho file is a CXI file too.
BUILT_IN = (
    *(PTYCHODUS, NPZ, nxcxi_ptycho.PRESET, cxi.PRESET, eiger.PRESET, ptyd.PRESET, ptylab.PRESET),
    *(py4dstem.PRESET, ptychoshelves.PRESET, ptychi.PRESET, ptyrad.PRESET),
)
PRESETS: Mapping[str, Preset] = MappingProxyType({each.name: each for each in BUILT_IN})


def presets() -> dict[str, Preset]:
    """
    Return all presets by name: those of entry points, then the built-in ones.

    An entry point that cannot be loaded, or that has the name of another preset, is left out with a warning.
    """
    added: dict[str, Preset] = {}
    for entry in entry_points(group=GROUP):
        found = _loaded(entry)
        if found is not None and found.name in {**PRESETS, **added}:
            logger.warning(
                "the preset '%s' of the entry point '%s' is left out: its name exists", found.name, entry.value
            )
        elif found is not None:
            added[found.name] = found
    return {**added, **PRESETS}


def preset(name: str) -> Preset:
    """
    Return the preset with a name.

    Raises
    ------
    ConfigError
        If there is none.
    """
    known = presets()
    if name not in known:
        raise ConfigError.unknown("preset", name, ("auto", "none", *known), f"--preset {name}")
    return known[name]


def recognised(paths: Sequence[Path | str]) -> Preset | None:
    """
    Return the preset of the layout of files, the more particular one if several fit, or None.

    Parameters
    ----------
    paths : sequence of path

    Notes
    -----
    Spec: data 12. Reads no arrays. A preset of an entry point that fails here is left out with a warning.
    """
    files = [Path(path) for path in paths]
    return next((each for each in presets().values() if _fits(each, files)), None)


def _fits(candidate: Preset, files: Sequence[Path]) -> bool:
    if candidate.name in PRESETS:
        return candidate.recognises(files)
    try:
        return bool(candidate.recognises(files))
    except Exception as error:  # code of others: its fault does not stop the import of a known layout
        logger.warning("the preset '%s' is left out: %s", candidate.name, first_line(error))
        return False


def _loaded(entry: EntryPoint) -> Preset | None:
    """Return the preset of an entry point; None with a warning if it cannot be loaded."""
    try:
        value = entry.load()
        value = value if isinstance(value, Preset) else value()
    except Exception as error:  # code of others: its fault does not stop the import of a known layout
        logger.warning("the preset '%s' (%s) cannot be loaded: %s", entry.name, entry.value, first_line(error))
        return None
    if not isinstance(value, Preset):
        logger.warning("the preset '%s' (%s) is left out: it is no Preset", entry.name, entry.value)
        return None
    return value
