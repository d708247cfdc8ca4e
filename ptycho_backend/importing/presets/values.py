"""Values of HDF5 files that presets look at: places, scalars with units, and texts (spec: data 12)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ptycho_backend.data.cxi import JOULE_PER_EV
from ptycho_backend.data.fields import hdf5_array, positive_number
from ptycho_backend.errors import DataError

METRES: Mapping[str, float] = {
    **{"m": 1.0, "meter": 1.0, "metre": 1.0, "meters": 1.0, "metres": 1.0, "cm": 1e-2, "mm": 1e-3, "nm": 1e-9},
    **{"um": 1e-6, "µm": 1e-6, "μm": 1e-6, "micron": 1e-6, "microns": 1e-6},
    **{"angstrom": 1e-10, "angstroms": 1e-10, "a": 1e-10, "å": 1e-10},
}
KEV: Mapping[str, float] = {"kev": 1.0, "ev": 1e-3, "j": 1e-3 / JOULE_PER_EV, "joule": 1e-3 / JOULE_PER_EV}


def address(path: Path, name: str) -> str:
    """Return the address of an array in a file, as ``file.h5:/entry/data``."""
    return f"{path}:/{name.lstrip('/')}"


def single(paths: Sequence[Path], test: Callable[[Any], bool]) -> bool:
    """Return whether the files are one HDF5 file that has the layout of `test`."""
    return len(paths) == 1 and holds(paths[0], test)


def holds(path: Path, test: Callable[[Any], bool]) -> bool:
    """Return whether an HDF5 file has the layout of `test`; False for a file of another format."""
    import h5py

    try:
        if not h5py.is_hdf5(path):
            return False
        with h5py.File(path, "r") as file:
            return bool(test(file))
    except (OSError, RuntimeError, KeyError, ValueError, TypeError):  # TypeError: attributes of an unknown type
        return False


def is_array(file: Any, name: str, axes: Iterable[int] = (3,)) -> bool:
    """Return whether an HDF5 file has a dataset of this name with one of the numbers of axes."""
    import h5py

    item = file.get(name)
    return isinstance(item, h5py.Dataset) and item.ndim in axes


def first(file: Any, names: Iterable[str], axes: Iterable[int] = (0, 1, 2, 3, 4)) -> str | None:
    """Return the first of several names that is a dataset with one of the numbers of axes; None without one."""
    axes = tuple(axes)
    return next((name for name in names if is_array(file, name, axes)), None)


def required(file: Any, names: Sequence[str], quantity: str, source: str, axes: Iterable[int] = (1, 2, 3, 4)) -> str:
    """
    Return the first of several names that is a dataset.

    Raises
    ------
    DataError
        If there is none.
    """
    name = first(file, names, axes)
    if name is None:
        raise DataError(
            f"The layout of the preset holds {quantity}.",
            expected=f"the dataset {' or '.join(repr(each) for each in names)}",
            received=f"none of these in '{source}'",
            fix="choose another --preset, or --preset none with a description of the file",
        )
    return name


def positive(
    file: Any, name: str | None, source: str, units: Mapping[str, float] | None = None, otherwise: str = ""
) -> float | None:
    """
    Return a number above zero, in the unit that `units` converts to.

    Parameters
    ----------
    file : h5py.File
    name : str or None
        Dataset; None and a missing dataset return None.
    source : str
        File for messages.
    units : mapping of float, optional
        Factors by the unit in lower case; None leaves the number as it is.
    otherwise : str
        Unit of a dataset without the attribute ``units``.

    Raises
    ------
    DataError
        If the dataset is no positive number or has an unknown unit.
    """
    if name is None or first(file, [name]) is None:
        return None
    value = positive_number(hdf5_array(file, name, source), name, source)
    return value if units is None else value * _factor(unit_of(file[name]) or otherwise, units, name, source)


def unit_of(item: Any) -> str:
    """Return the attribute ``units`` of a dataset in lower case; empty without one."""
    return plain(item.attrs.get("units", "")).strip().lower()


def plain(value: Any) -> str:
    """Return a text of HDF5, which may be bytes, an array of one element, or a number, as str."""
    value = value.ravel()[0] if getattr(value, "size", 0) == 1 and hasattr(value, "ravel") else value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def text(file: Any, name: str) -> str:
    """Return a text dataset; empty without one."""
    return plain(file[name][()]) if first(file, [name], (0, 1)) else ""


def _factor(unit: str, units: Mapping[str, float], name: str, source: str) -> float:
    if unit not in units:
        rule, fix = "Lengths and energies have a known unit.", "give the value as an option, for example --geometry"
        raise DataError.in_field(rule, f"one of {', '.join(units)}", f"the unit '{unit}'", fix, name, source)
    return units[unit]
