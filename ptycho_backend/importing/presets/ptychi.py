"""
Preset of a stack ``dp`` with a product of ptychodus, the files that pty-chi is tested on (spec: data 12).

Convention: patterns are (n, y, x); positions are (y, x) of the beam on the sample in metres, and the rows and columns
of the object grow with them. The pixel of the object is an attribute of ``object``. Source: pty-chi,
``tests/test_utils.py``; ptychodus, ``api.io``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_backend.data.fields import hdf5_array, opened_hdf5, positive_number
from ptycho_backend.data.product import EARLIER_ENERGY, PIXEL, POSITIONS
from ptycho_backend.errors import DataError
from ptycho_backend.importing.description import ImportConfig
from ptycho_backend.importing.presets.base import Filled, Found, Preset, completed
from ptycho_backend.importing.presets.values import address, first, holds

PATTERNS, PROBE, OBJECT, INDICES = "dp", "probe", "object", "probe_position_indexes"
FAR_FIELD = "far_field"  # attribute of a product
ENERGIES = ("photon_energy_eV", EARLIER_ENERGY)  # 0 for an unknown one
ANGSTROM_M, KEV_PER_EV = 1e-10, 1e-3
SQUARE = 1e-6  # largest relative difference of the sides of a square pixel


def recognises(paths: Sequence[Path]) -> bool:
    """Return whether the files are one with `dp` of three axes, and one with the positions of a product."""
    if len(paths) > 2:
        return False
    with_patterns = [path for path in paths if holds(path, _has_patterns)]
    with_positions = [path for path in paths if holds(path, _has_positions)]
    one_of_each = len(with_patterns) == len(with_positions) == 1
    return one_of_each and set(paths) == {*with_patterns, *with_positions}


def fill(paths: Sequence[Path], given: ImportConfig) -> Filled:
    """
    Return the description of the stack and the product.

    Raises
    ------
    DataError
        If a value is invalid, the positions are in another order than the patterns, or the detector is in the near
        field.
    """
    patterns = next(path for path in paths if holds(path, _has_patterns))
    product = next(path for path in paths if holds(path, _has_positions))
    name = given.patterns.dataset or PATTERNS
    with opened_hdf5(patterns) as file:
        sides: tuple[int, ...] = file[PATTERNS].shape[1:]
    with opened_hdf5(product) as file:
        _refuse_near_field(file, str(product))
        _refuse_other_order(file, str(product))
        y, x = (address(product, each) for each in POSITIONS)
        found: Found = {
            "patterns": {"dataset": name, "axes": "nyx", "unit": "counts"},
            "positions": {"y": y, "x": x, "unit": "m"},
            "geometry": _energy(file, str(product)) | _reciprocal_step(file, sides, str(product)),
            "probe": _probe(file, sides, product, given),
        }
    return Filled(completed(given, found), [address(patterns, name)])


def _has_patterns(file: Any) -> bool:
    return first(file, [PATTERNS], (3,)) is not None


def _has_positions(file: Any) -> bool:
    return all(first(file, [name], (1,)) for name in POSITIONS)


def _refuse_near_field(file: Any, source: str) -> None:
    if FAR_FIELD in file.attrs and not np.all(file.attrs[FAR_FIELD]):
        rule, fix = "The detector stands in the far field.", "reconstruct near-field scans with another program"
        raise DataError.in_field(rule, "far_field true", "far_field false", fix, FAR_FIELD, source)


def _refuse_other_order(file: Any, source: str) -> None:
    if first(file, [INDICES], (1,)) is None:
        return
    indices = hdf5_array(file, INDICES, source)
    if not np.array_equal(indices, np.arange(len(indices))):
        rule, fix = "The positions follow the patterns.", "give positions in the order of the patterns"
        received = f"{', '.join(map(str, indices[:6]))}, ..."
        raise DataError.in_field(rule, "0, 1, 2, ...", received, f"{fix}, as --positions.text", INDICES, source)


def _energy(file: Any, source: str) -> dict[str, float]:
    name = next((name for name in ENERGIES if name in file.attrs and np.any(file.attrs[name] != 0)), None)
    return {"energy_kev": positive_number(file.attrs[name], name, source) * KEV_PER_EV} if name else {}


def _reciprocal_step(file: Any, sides: tuple[int, ...], source: str) -> dict[str, float]:
    """Return the reciprocal step, for square pixels of the object and of the detector."""
    attributes = file[OBJECT].attrs if first(file, [OBJECT], (2, 3)) else {}
    if not all(name in attributes for name in PIXEL):
        return {}
    y, x = (positive_number(attributes[name], name, source) for name in PIXEL)
    if abs(y - x) > SQUARE * y or sides[0] != sides[1]:
        return {}
    return {"reciprocal_step_per_angstrom": ANGSTROM_M / (sides[0] * y)}


def _probe(file: Any, sides: tuple[int, ...], product: Path, given: ImportConfig) -> dict[str, str]:
    """Return the fields of a probe on the grid of the patterns; variable probes have no place."""
    name = first(file, [PROBE], (2, 3, 4))
    changed = (given.detector.size_px, given.detector.bin) != (None, 1)
    if name is None or changed or file[name].shape[-2:] != sides or (file[name].ndim == 4 and len(file[name]) != 1):
        return {}
    return {"array": address(product, name)}


PRESET = Preset("ptychi", "pty-chi (dp, with a ptychodus product)", recognises, fill)
