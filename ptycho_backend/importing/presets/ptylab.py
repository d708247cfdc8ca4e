"""
Preset of the HDF5 files of PtyLab, conventional ptychography (spec: data 12).

Convention: ``encoder`` holds (y, x) of the beam in metres; the rows and columns of the object grow with them.
``dxd`` is the pixel of the stored patterns, after binning; ``orientation`` turns them as PtyLab does on loading.
Source: PtyLab.py, ``Reconstruction`` (positions) and ``ExperimentalData`` (``setOrientation``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ptycho_backend.data.fields import hdf5_array, opened_hdf5, real_number
from ptycho_backend.errors import DataError, ShapeError
from ptycho_backend.importing.description import DetectorDescription, ImportConfig
from ptycho_backend.importing.presets.base import ORIENTATION, Filled, Found, Preset, completed
from ptycho_backend.importing.presets.values import address, first, positive, single

PATTERNS, POSITIONS = "ptychogram", "encoder"
GEOMETRY = {"wavelength_m": "wavelength", "distance_m": "zo", "detector_pixel_m": "dxd"}
DIAMETER = "entrancePupilDiameter"


def recognises(paths: Sequence[Path]) -> bool:
    """Return whether the file holds patterns, encoder and the distance of conventional ptychography."""
    return single(paths, _has_layout)


def fill(paths: Sequence[Path], given: ImportConfig) -> Filled:
    """
    Return the description of a PtyLab file; the entrance pupil becomes a pinhole at the sample.

    Raises
    ------
    DataError
        If a value is invalid.
    """
    (path,) = paths
    source = str(path)
    with opened_hdf5(path) as file:
        if not given.patterns.axes:
            _refuse_other_order(file, source)
        diameter = positive(file, DIAMETER, source)
        name = given.patterns.dataset or PATTERNS
        found: Found = {
            "patterns": {"dataset": name, "unit": "counts"},
            "positions": {"y": address(path, POSITIONS), "columns": "0,1", "unit": "m"},
            "geometry": {field: positive(file, key, source) for field, key in GEOMETRY.items()},
            "detector": _orientation(file, source) if _unturned(given.detector) else {},
            "probe": {"optics": "pinhole", "diameter_m": diameter} if diameter else {},
        }
    return Filled(completed(given, found), [address(path, name)])


def _has_layout(file: Any) -> bool:
    scalars = all(first(file, [name], (0, 1, 2)) for name in GEOMETRY.values())
    return bool(first(file, [PATTERNS], (3,)) and first(file, [POSITIONS], (2,)) and scalars)


def _refuse_other_order(file: Any, source: str) -> None:
    """Raise an error for an encoder in the order of Matlab: the order of the patterns is open then."""
    name = first(file, [POSITIONS], (2,))
    shape: tuple[int, ...] = file[name].shape if name else ()
    if len(shape) != 2 or shape[1] != 2:
        rule = "The encoder holds (y, x) for every pattern."
        fix = "give --patterns.axes nxy if Matlab wrote the file, or nyx if the patterns are (n, y, x)"
        raise ShapeError.in_field(rule, "shape (n, 2)", f"shape {shape}", fix, POSITIONS, source)


def _unturned(given: DetectorDescription) -> bool:
    """Return whether the user leaves the orientation to the file."""
    return all(getattr(given, name) == getattr(DetectorDescription(), name) for name in ORIENTATION)


def _orientation(file: Any, source: str) -> dict[str, bool]:
    """Return the turns of the detector: bits of a number from 0 to 7, flip of x first, then of y, then transpose."""
    name = first(file, ["orientation"], (0, 1, 2))
    value = real_number(hdf5_array(file, name, source), name, source) if name else 0.0
    if value not in range(8):
        rule, fix = "An orientation has the numbers of PtyLab.", "correct it, or give --detector.transpose and flips"
        raise DataError.in_field(rule, "a whole number from 0 to 7", f"{value:g}", fix, "orientation", source)
    return {field: bool(int(value) & bit) for field, bit in (("transpose", 4), ("flip_y", 2), ("flip_x", 1))}


PRESET = Preset("ptylab", "PtyLab (ptychogram, encoder)", recognises, fill)
