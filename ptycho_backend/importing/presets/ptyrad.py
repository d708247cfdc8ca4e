"""
Preset of four-dimensional stacks ``dp`` in HDF5, as PtyRAD reads them (spec: data 12).

Convention: axes are (scan row, scan column, detector row, detector column), as Python writes them; the format holds
neither steps nor calibration, which the user gives. Matlab files are not recognised: their order of axes is not fixed.
Source: PtyRAD, documentation of ``meas_permute``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ptycho_backend.importing.description import ImportConfig
from ptycho_backend.importing.presets.base import Filled, Found, Preset, completed
from ptycho_backend.importing.presets.values import address, first, single

PATTERNS = "dp"
SUFFIXES = (".h5", ".hdf5", ".hdf")


def recognises(paths: Sequence[Path]) -> bool:
    """Return whether the file is HDF5, not of Matlab, with `dp` of four axes."""
    return single(paths, lambda file: first(file, [PATTERNS], (4,)) is not None) and paths[0].suffix.lower() in SUFFIXES


def fill(paths: Sequence[Path], given: ImportConfig) -> Filled:
    """Return the description of the stack; step and calibration remain to be given."""
    (path,) = paths
    name = given.patterns.dataset or PATTERNS
    found: Found = {"patterns": {"dataset": name, "axes": "YXyx", "unit": "counts"}}
    return Filled(completed(given, found), [address(path, name)])


PRESET = Preset("ptyrad", "PtyRAD, four-dimensional HDF5 (dp)", recognises, fill)
