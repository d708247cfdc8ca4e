"""
Preset of the data cubes of py4DSTEM, versions 0.12 to 0.14 (spec: data 12).

Convention: axes are (scan row, scan column, detector row, detector column), called (R_x, R_y, Q_x, Q_y); positions grow
along the first two, with the step ``R_pixel_size``. A step ``Q_pixel_size`` in 1/Å has no factor of 2π. A calibrated
rotation or exchange of the axes is left to the user, as in py4DSTEM, with a warning. Source: py4DSTEM,
``process.phase`` and ``data.calibration``; emdfile.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ptycho_backend.data.fields import opened_hdf5
from ptycho_backend.errors import DataError
from ptycho_backend.importing.description import ImportConfig
from ptycho_backend.importing.geometry import wavelength_m
from ptycho_backend.importing.presets.base import Filled, Found, Preset, completed
from ptycho_backend.importing.presets.values import address, plain, single

logger = logging.getLogger(__name__)

CLASS_ATTRIBUTES = ("python_class", "py4dstem_class")
OLD_CUBES = "4DSTEM_experiment/data/datacubes/"
LENGTHS = {"A": "angstrom", "Å": "angstrom", "angstrom": "angstrom", "nm": "nm", "um": "um", "µm": "um", "m": "m"}
PER_ANGSTROM = {"A^-1": 1.0, "Å^-1": 1.0, "1/A": 1.0, "1/Å": 1.0, "nm^-1": 0.1, "1/nm": 0.1}
ANGSTROM_M, RAD_PER_MRAD = 1e-10, 1e-3


def recognises(paths: Sequence[Path]) -> bool:
    """Return whether the file holds a data cube of py4DSTEM."""
    return single(paths, lambda file: bool(_cubes(file)))


def fill(paths: Sequence[Path], given: ImportConfig) -> Filled:
    """
    Return the description of a data cube with its calibration.

    Raises
    ------
    DataError
        If the file holds several data cubes and none is chosen.
    """
    (path,) = paths
    with opened_hdf5(path) as file:
        cube = given.patterns.dataset or _only(_cubes(file), str(path))
        calibration = _calibration(file, cube)
    _report_turned_axes(calibration, str(path))
    unit = LENGTHS.get(str(calibration.get("R_pixel_units")))
    step = _number(calibration.get("R_pixel_size")) if unit else None
    found: Found = {
        "patterns": {"dataset": cube, "axes": "YXyx", "unit": "counts"},
        "positions": {"unit": unit, "step_y": step} if step else {},
        "geometry": {"reciprocal_step_per_angstrom": _step_per_angstrom(calibration, given)},
    }
    return Filled(completed(given, found), [address(path, cube)])


def _cubes(file: Any) -> list[str]:
    """Return the names of the arrays of data cubes."""
    import h5py

    cubes: list[str] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim == 4 and name.endswith(("/data", "/datacube")):
            classes = [plain(item.parent.attrs.get(key, "")) for key in CLASS_ATTRIBUTES]
            if "DataCube" in classes or name.startswith(OLD_CUBES):
                cubes.append(name)

    file.visititems(visit)
    return cubes


def _only(cubes: Sequence[str], source: str) -> str:
    if len(cubes) != 1:
        raise DataError(
            "One data cube is imported at a time.",
            expected="one data cube, or the name of one",
            received=f"{', '.join(cubes) or 'none'} in '{source}'",
            fix=f"choose one, for example --patterns.dataset {cubes[0] if cubes else 'NAME'}",
        )
    return cubes[0]


def _calibration(file: Any, cube: str) -> dict[str, Any]:
    """Return the calibration that stands closest to a data cube: values and attributes of its group."""
    import h5py

    groups: list[str] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Group) and name.rpartition("/")[2] == "calibration":
            groups.append(name)

    file.visititems(visit)
    if not groups:
        return {}
    group = file[max(groups, key=lambda name: _n_common(name, cube))]
    small = {name: item[()] for name, item in group.items() if isinstance(item, h5py.Dataset) and item.size <= 1}
    values = {**small, **group.attrs}
    texts = {name: plain(value) for name, value in values.items() if "units" in name}
    renamed = {name.replace("K_", "Q_", 1): value for name, value in {**values, **texts}.items()}
    return {**renamed, **values, **texts}


def _n_common(name: str, other: str) -> int:
    """Return the number of groups that two places in a file share."""
    same = [a == b for a, b in zip(name.split("/"), other.split("/"), strict=False)]
    return (*same, False).index(False)


def _number(value: Any) -> float | None:
    """Return a positive number; None for an unset value, which py4DSTEM writes as text."""
    try:
        number = float(plain(value))
    except ValueError:
        return None
    return number if 0 < number < float("inf") else None


def _step_per_angstrom(calibration: dict[str, Any], given: ImportConfig) -> float | None:
    unit, size = calibration.get("Q_pixel_units"), _number(calibration.get("Q_pixel_size"))
    if size is None or unit in PER_ANGSTROM:
        return None if size is None else size * PER_ANGSTROM[str(unit)]
    wavelength = wavelength_m(given.geometry) if unit == "mrad" else None
    return None if wavelength is None else size * RAD_PER_MRAD / wavelength * ANGSTROM_M


def _report_turned_axes(calibration: dict[str, Any], source: str) -> None:
    turned = [name for name in ("QR_rotation", "QR_rotation_degrees", "QR_flip") if _number(calibration.get(name))]
    turned += ["QR_flip"] if plain(calibration.get("QR_flip", "")) == "True" else []
    if turned:
        logger.warning(
            "'%s' calibrates %s between scan and detector, which is not applied: give --positions.rotation_deg or "
            "--detector.transpose",
            *(source, ", ".join(turned)),
        )


PRESET = Preset("py4dstem", "py4DSTEM data cubes (.h5, .emd)", recognises, fill)
