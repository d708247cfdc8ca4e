"""
Preset of the HDF5 files of PtychoShelves and fold_slice (spec: data 12).

Convention: Matlab stores ``dp`` as (y, x, n), which HDF5 shows as (n, x, y), so rows and columns are exchanged; ppX and
ppY are in metres, and the beam moves by −ppY along the rows and −ppX along the columns. Files that other programs write
as (n, y, x) need ``--patterns.axes nyx``. Source: fold_slice, ``scans.positions.hdf5_pos`` and
``detector.prep_data.matlab_aps.load_data``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ptycho_backend.data.fields import opened_hdf5
from ptycho_backend.errors import DataError
from ptycho_backend.importing.description import ImportConfig
from ptycho_backend.importing.presets.base import Filled, Found, Preset, completed
from ptycho_backend.importing.presets.values import address, first, holds, positive

PATTERNS = "dp"
POSITIONS = ("ppY", "ppX")
WAVELENGTH, OBJECT_PIXEL = "lambda", "dx"
ANGSTROM_M = 1e-10
SUFFIXES = ("_dp", "_para")  # of the file with patterns, and of the file with positions


def recognises(paths: Sequence[Path]) -> bool:
    """Return whether the files hold `dp` with three axes and the positions, or are a ``_dp`` file alone."""
    if len(paths) > 2:
        return False
    with_patterns = [path for path in paths if holds(path, _has_patterns)]
    with_positions = [path for path in paths if holds(path, _has_positions)]
    if len(with_patterns) != 1 or set(paths) != {*with_patterns, *with_positions}:
        return False
    return bool(with_positions) or paths[0].stem.endswith(SUFFIXES[0])


def fill(paths: Sequence[Path], given: ImportConfig) -> Filled:
    """
    Return the description of one or two files of PtychoShelves.

    Raises
    ------
    DataError
        If the file of the positions stands next to the patterns and is not among the files.
    """
    patterns = next((path for path in paths if holds(path, _has_patterns)), paths[0])
    positions = next((path for path in paths if holds(path, _has_positions)), None)
    if positions is None:
        _refuse_forgotten(patterns)
    y, x = (address(positions, name) if positions else None for name in POSITIONS)
    name = given.patterns.dataset or PATTERNS
    found: Found = {
        "patterns": {"dataset": name, "axes": "nxy", "unit": "counts"},
        "positions": {"y": y, "x": x, "unit": "m", "y_sign": -1, "x_sign": -1} if positions else {},
        "geometry": _geometry(patterns, positions) if positions else {},
    }
    return Filled(completed(given, found), [address(patterns, name)])


def _has_patterns(file: Any) -> bool:
    return first(file, [PATTERNS], (3,)) is not None


def _has_positions(file: Any) -> bool:
    return all(first(file, [name], (1, 2)) for name in POSITIONS)


def _refuse_forgotten(patterns: Path) -> None:
    """Raise an error if the file of the positions lies next to the patterns; no file is read without its name."""
    sibling = patterns.with_name(patterns.name.replace(*SUFFIXES))
    if sibling != patterns and sibling.is_file():
        raise DataError(
            "Positions of PtychoShelves stand in a file of their own.",
            expected=f"'{patterns}' and '{sibling}'",
            received=f"'{patterns}' alone",
            fix=f"add '{sibling}' to the files",
        )


def _geometry(patterns: Path, positions: Path) -> dict[str, float | None]:
    """Return wavelength and reciprocal step; `dx` is the object's pixel for the stored side of the patterns."""
    with opened_hdf5(positions) as file:
        wavelength = positive(file, WAVELENGTH, str(positions))
        pixel_m = positive(file, OBJECT_PIXEL, str(positions))
    with opened_hdf5(patterns) as file:
        sides = file[PATTERNS].shape[1:]
    if pixel_m is None or sides[0] != sides[1]:
        return {"wavelength_m": wavelength}
    return {"wavelength_m": wavelength, "reciprocal_step_per_angstrom": ANGSTROM_M / (sides[0] * pixel_m)}


PRESET = Preset("ptychoshelves", "PtychoShelves and fold_slice (_dp.hdf5 with _para.hdf5)", recognises, fill)
