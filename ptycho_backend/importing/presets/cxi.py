"""
Preset of CXI files (CXI Data Bank, cdtools), with or without illumination (spec: data 3.6, 11).

Convention: translations are those of the sample, with x to the left looking downstream, and y up. Without basis
vectors, the beam moves by +t_y along the rows and +t_x along the columns of the detector. Source: CXI file format 1.6;
cdtools, ``data.get_ptycho_translations`` and ``data.get_detector_geometry``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.cxi import (
    BASIS,
    DATA,
    DISTANCE,
    ENERGY,
    ILLUMINATION,
    MASK,
    PIXEL,
    TRANSLATION,
    WAVELENGTH,
)
from ptycho_backend.data.fields import hdf5_array, opened_hdf5
from ptycho_backend.errors import DataError
from ptycho_backend.importing.description import ImportConfig
from ptycho_backend.importing.presets.base import Filled, Found, Preset, completed
from ptycho_backend.importing.presets.values import KEV, METRES, address, first, positive, required, single

ALONG_AN_AXIS = 1 - 1e-9  # cosine of a vector that is parallel to an axis
MAX_PHOTON_KEV = 1e3  # far above coherent sources; larger numbers are in another unit


def recognises(paths: Sequence[Path]) -> bool:
    """Return whether the file is a CXI file with patterns and translations."""
    return single(paths, lambda file: bool(first(file, DATA, (3,)) and first(file, TRANSLATION, (2,))))


def fill(paths: Sequence[Path], given: ImportConfig) -> Filled:
    """
    Return the description of a CXI file.

    Raises
    ------
    DataError
        If the file lacks patterns or translations, or if a value is invalid.
    """
    (path,) = paths
    source = str(path)
    with opened_hdf5(path) as file:
        data = given.patterns.dataset or required(file, DATA, "the diffraction patterns", source, (3,))
        translation = required(file, TRANSLATION, "the translation of the sample", source, (2,))
        found: Found = {
            "patterns": {"dataset": data, "unit": "counts"},
            "positions": {"y": address(path, translation), "columns": "1,0", "unit": "m"} | _orientation(file, source),
            "geometry": _geometry(file, source),
            "detector": _mask(file, path) if not given.detector.mask else {},
        }
        found = {**found, **_illumination(file, path, data, given)}
    return Filled(completed(given, found), [address(path, data)])


def photon_energy_kev(file: Any, names: Sequence[str], source: str) -> float | None:
    """
    Return the energy of the photons, keV; joule is the unit of a dataset without the attribute ``units``.

    Raises
    ------
    DataError
        If the number is above 1 MeV: its unit is not the declared one.
    """
    name = first(file, names)
    energy = positive(file, name, source, KEV, "j")
    if energy is not None and energy > MAX_PHOTON_KEV:
        rule, fix = "A CXI file gives the photon energy in joules.", "give the energy as --geometry.energy_kev"
        raise DataError.in_field(rule, "less than 1 MeV", f"{energy:g} keV", fix, str(name), source)
    return energy


def _geometry(file: Any, source: str) -> dict[str, float | None]:
    energy = photon_energy_kev(file, ENERGY, source)
    y, x = _pixel_m(file, source)
    return {
        "energy_kev": energy,
        "wavelength_m": None if energy else positive(file, WAVELENGTH[0], source, METRES, "m"),
        "distance_m": positive(file, DISTANCE[0], source, METRES, "m"),
        "detector_pixel_m": y,
        "detector_pixel_x_m": None if x == y else x,
    }


def _pixel_m(file: Any, source: str) -> tuple[float | None, float | None]:
    basis = _basis(file, source)
    if basis is not None:
        y, x = np.linalg.norm(basis, axis=1)
        return float(y), float(x)
    y, x = (positive(file, name, source, METRES, "m") for name in PIXEL)
    return y or x, x or y


def _basis(file: Any, source: str) -> NDArray[np.float64] | None:
    """Return the steps along the rows and columns of the detector, shape (2, 3): (x, y, z) in metres."""
    name = first(file, BASIS, (2,))
    if name is None:
        return None
    basis = hdf5_array(file, name, source).astype(np.float64)
    basis = basis.T if basis.shape == (3, 2) else basis
    length = np.linalg.norm(basis, axis=-1) if basis.shape == (2, 3) else np.zeros(2)
    across = length.min() > 0 and np.abs(basis[:, 2]).max() < 1e-3 * length.min()
    if not across or abs(basis[0] @ basis[1]) > 1e-3 * length.prod():
        rule = "The detector is perpendicular to the beam, with orthogonal axes."
        expected, fix = "two orthogonal vectors across the beam, shape (2, 3)", "project the patterns first"
        raise DataError.in_field(rule, expected, f"{basis.tolist()}", fix, name, source)
    return basis


def _orientation(file: Any, source: str) -> dict[str, Any]:
    """
    Return the fields that turn translations (y, x) of the sample into positions along rows and columns.

    A position is −t · b̂ for the unit vectors b̂ of rows and columns. In the order (y, x) this is a product with an
    orthogonal matrix: an exchange or a change of signs, and a rotation for a detector that stands askew.
    """
    basis = _basis(file, source)
    if basis is None:
        return {}
    unit = basis / np.linalg.norm(basis, axis=1, keepdims=True)
    matrix = -unit[:, 1::-1]  # rows and columns of the position, from (t_y, t_x)
    for swap, (y, x) in ((False, np.diag(matrix)), (True, np.diag(matrix[:, ::-1]))):
        if min(abs(y), abs(x)) > ALONG_AN_AXIS:
            return {"swap": swap, "y_sign": 1 if y > 0 else -1, "x_sign": 1 if x > 0 else -1}
    x_sign = 1 if np.linalg.det(matrix) > 0 else -1
    angle = math.atan2(x_sign * matrix[0, 1], matrix[0, 0])
    return {"x_sign": x_sign, "rotation_deg": math.degrees(angle)}


def _illumination(file: Any, path: Path, data: str, given: ImportConfig) -> dict[str, Any]:
    """Return the fields of a probe on the grid of the patterns; it has no place on a smaller or binned detector."""
    name = first(file, ILLUMINATION, (2, 3))
    changed = (given.detector.size_px, given.detector.bin) != (None, 1)
    if name is None or changed or file[name].shape[-2:] != file[data].shape[-2:]:
        return {}
    return {"probe": {"array": address(path, name)}}


def _mask(file: Any, path: Path) -> dict[str, Any]:
    """Return the fields of the mask: every bit but 0x1000 (has signal) marks a bad pixel."""
    name = first(file, MASK, (2, 3))
    if name is None:
        return {}
    return {"mask": address(path, name), "mask_convention": "cxi"}


PRESET = Preset("cxi", "CXI Data Bank and cdtools (.cxi)", recognises, fill)
