"""Presets of the layouts that ``load_scan`` reads by itself: ptychodus and the NPZ of this package (spec: data 3)."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ptycho_backend.data.hdf5 import TRAINING_POSITIONS
from ptycho_backend.data.product import POSITIONS as PRODUCT_POSITIONS
from ptycho_backend.importing.description import ImportConfig
from ptycho_backend.importing.presets.base import Filled, Preset
from ptycho_backend.importing.presets.values import first, holds

COORDINATES = ("xcoords", "ycoords")
STACKS = ("diff3d", "diffraction")


def is_ptychodus(paths: Sequence[Path]) -> bool:
    """Return whether the files are a training file, or a product and the file of its patterns."""
    if len(paths) == 1:
        return holds(paths[0], lambda file: _has_patterns(file) and _has(file, TRAINING_POSITIONS))
    if len(paths) != 2:
        return False
    product = [path for path in paths if holds(path, _is_product)]
    patterns = [path for path in paths if holds(path, _has_patterns)]
    return len(product) == 1 and bool(set(patterns) - set(product))


def is_npz(paths: Sequence[Path]) -> bool:
    """Return whether the file is an NPZ file with coordinates and patterns under the names of this package."""
    if len(paths) != 1 or not zipfile.is_zipfile(paths[0]):
        return False
    try:
        with zipfile.ZipFile(paths[0]) as archive:
            keys = {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return False
    return keys.issuperset(COORDINATES) and not keys.isdisjoint(STACKS)


def unchanged(paths: Sequence[Path], given: ImportConfig) -> Filled:
    """Return the description as it is, with the files in the order of ``load_scan``: a product, then its patterns."""
    with_positions = [path for path in paths if len(paths) > 1 and holds(path, _is_product)]
    others = [path for path in paths if path not in with_positions]
    return Filled(given, [str(path) for path in (*with_positions, *others)])


def _is_product(file: Any) -> bool:
    return _has(file, PRODUCT_POSITIONS)


def _has_patterns(file: Any) -> bool:
    return first(file, ["patterns"], (3,)) is not None


def _has(file: Any, names: Sequence[str]) -> bool:
    return all(first(file, [name]) for name in names)


PTYCHODUS = Preset("ptychodus", "ptychodus (training file, or product and patterns)", is_ptychodus, unchanged, True)
NPZ = Preset("npz", "NPZ of this package (diff3d, xcoords, ycoords)", is_npz, unchanged, True)
