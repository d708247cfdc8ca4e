"""
Preset of NeXus files with the application definition NXcxi_ptycho or NXptycho (spec: data 12).

Convention: the axes are those of CXI, with z downstream, y up, and x to the left looking downstream. The sample moves,
so the beam moves by +t_y along the rows and +t_x along the columns. All units are SI unless an attribute ``units`` says
otherwise; ``source_1/energy`` is that of the machine. NXptycho leaves the numbers of the groups out, and has the
positions as axes with a ``vector``. Source: NeXus contributed_definitions/NXcxi_ptycho; NX-cxi-ptycho, ``NXCreator``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_backend.data.fields import opened_hdf5
from ptycho_backend.errors import DataError
from ptycho_backend.importing.description import ImportConfig
from ptycho_backend.importing.presets.base import Filled, Found, Preset, completed
from ptycho_backend.importing.presets.cxi import photon_energy_kev
from ptycho_backend.importing.presets.values import METRES, address, first, positive, required, single, text, unit_of

DEFINITIONS = ("NXcxi_ptycho", "NXptycho")
FINE = "_fine_translation"
DETECTOR = "instrument_1/detector_1"
BEAM = "instrument_1/beam_1"
DATA = ("data_1/data", f"{DETECTOR}/data")
TRANSLATION = ("data_1/translation", "sample_1/geometry_1/translation", f"{DETECTOR}/translation")
AXES = tuple((f"sample_1/transformations/y{name}", f"sample_1/transformations/x{name}") for name in ("", FINE))
POSITIONERS = ("sample_1/positioner_2", "sample_1/positioner_1")
NUMBERED = ("instrument", "detector", "beam", "data", "sample", "geometry")  # groups with _1 in NXcxi_ptycho
ENERGY = (f"{BEAM}/incident_beam_energy", f"{BEAM}/energy", f"{BEAM}/incident_energy")
WAVELENGTH = f"{BEAM}/incident_wavelength"
MASK = (f"{DETECTOR}/pixel_mask", f"{DETECTOR}/mask")
UNITS = {1.0: "m", 1e-3: "mm", 1e-6: "um", 1e-9: "nm", 1e-10: "angstrom"}


def recognises(paths: Sequence[Path]) -> bool:
    """Return whether the file has an entry with the definition and with patterns."""
    return single(paths, lambda file: _entry(file) is not None)


def fill(paths: Sequence[Path], given: ImportConfig) -> Filled:
    """
    Return the description of an NXcxi_ptycho file.

    Raises
    ------
    DataError
        If the file lacks patterns or positions, or if a value is invalid.
    """
    (path,) = paths
    source = str(path)
    with opened_hdf5(path) as file:
        entry = _entry(file) or "entry_1"
        data = given.patterns.dataset or required(file, _names(entry, DATA), "the diffraction patterns", source, (3, 4))
        mask = first(file, _names(entry, MASK), (2,))
        found: Found = {
            "patterns": {"dataset": data, "unit": "counts"},
            "positions": _positions(file, entry, path),
            "geometry": _geometry(file, entry, source),
            "detector": _centre(file, entry, source) | ({"mask": address(path, mask)} if mask else {}),
        }
    return Filled(completed(given, found), [address(path, data)])


def _entry(file: Any) -> str | None:
    """Return the first entry of the definition that holds patterns."""
    for name in file:
        definition = text(file, f"{name}/definition")
        if definition in DEFINITIONS and first(file, _names(name, DATA), (3, 4)):
            return str(name)
    return None


def _positions(file: Any, entry: str, path: Path) -> dict[str, Any]:
    name = first(file, _names(entry, TRANSLATION), (2,))
    if name is not None:
        return {"y": address(path, name), "columns": "1,0", "unit": _length_unit(file[name], name, str(path))}
    for motors in (*AXES, _positioners(file, entry)):
        y, x = (first(file, _names(entry, [motor]), (1, 2)) for motor in motors)
        if y and x:
            unit, signs = (
                _length_unit(file[y], y, str(path)),
                {"y_sign": _sign(file[y], 1), "x_sign": _sign(file[x], 0)},
            )
            if _length_unit(file[x], x, str(path)) == unit:
                return {"y": address(path, y), "x": address(path, x), "unit": unit, **signs}
    return {}


def _positioners(file: Any, entry: str) -> tuple[str, str]:
    """Return the positioners of y and x: the second and the first, unless their names say otherwise."""
    y, x = POSITIONERS
    called = [text(file, name) for name in _names(entry, [f"{y}/name"])]
    if "horizontal" in called:
        y, x = x, y
    return f"{y}/raw_value", f"{x}/raw_value"


def _sign(item: Any, axis: int) -> int:
    """Return -1 for a motor along the negative axis (x, y, z), by its attribute ``vector``; 1 without one."""
    vector = np.ravel(item.attrs.get("vector", (1.0, 1.0, 1.0)))
    return -1 if vector.size == 3 and vector.dtype.kind in "iuf" and vector[axis] < 0 else 1


def _length_unit(item: Any, name: str, source: str) -> str:
    unit = unit_of(item) or "m"
    if METRES.get(unit) not in UNITS:
        rule, fix = "Positions have a unit of length.", "use --preset none, and give --positions.unit"
        known = ", ".join(each for each, metres in METRES.items() if metres in UNITS)
        raise DataError.in_field(rule, f"one of {known}", f"the unit '{unit}'", fix, name, source)
    return UNITS[METRES[unit]]


def _geometry(file: Any, entry: str, source: str) -> dict[str, float | None]:
    y, x = (_metres(file, entry, f"{DETECTOR}/{side}_pixel_size", source) for side in "yx")
    energy = photon_energy_kev(file, _names(entry, ENERGY), source)
    return {
        "energy_kev": energy,
        "wavelength_m": None if energy else _metres(file, entry, WAVELENGTH, source),
        "distance_m": _metres(file, entry, f"{DETECTOR}/distance", source),
        "detector_pixel_m": y or x,
        "detector_pixel_x_m": None if x == y else x,
    }


def _metres(file: Any, entry: str, name: str, source: str) -> float | None:
    return positive(file, first(file, _names(entry, [name])), source, METRES, "m")


def _names(entry: str, names: Iterable[str]) -> list[str]:
    """Return the names in an entry, with numbered groups first, then without numbers."""
    plain_names = []
    for name in names:
        for group in NUMBERED:
            name = name.replace(f"{group}_1/", f"{group}/")
        plain_names.append(name)
    return [f"{entry}/{name}" for name in (*names, *plain_names)]


def _centre(file: Any, entry: str, source: str) -> dict[str, float]:
    """Return the centre of the beam, detector pixels, if the file gives its unit."""
    names = [first(file, _names(entry, [f"{DETECTOR}/beam_center_{side}"]), (0, 1)) for side in "yx"]
    if not all(name and unit_of(file[name]) for name in names):
        return {}
    centre = {}
    for field, name, side in zip(("centre_y_px", "centre_x_px"), names, "yx", strict=True):
        pixel_m = _metres(file, entry, f"{DETECTOR}/{side}_pixel_size", source)
        units = {"pixel": 1.0, "pixels": 1.0, "px": 1.0}
        units |= {unit: metres / pixel_m for unit, metres in METRES.items()} if pixel_m else {}
        value = positive(file, name, source, units)
        if value is not None:
            centre[field] = value
    return centre


PRESET = Preset(
    "nxcxi_ptycho", "NeXus application definitions NXcxi_ptycho and NXptycho (.nxs, .cxi)", recognises, fill
)
