"""
Preset of the prepared data of ptypy (spec: data 12).

Convention: positions are (y, x) of the beam on the sample in metres, and the rows and columns of the object grow with
them; ptypy crops, turns (``orientation``) and bins before it stores the patterns in ``chunks`` and their geometry in
``meta``. ``info`` holds the values from before. The weights of a chunk are those of its patterns; a weight of 0 is a
bad pixel. Energy in keV. Source: ptypy, ``core.data.PtyScan``, and its documentation, *Ptypy data structure*.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.fields import hdf5_array, opened_hdf5
from ptycho_backend.errors import DataError
from ptycho_backend.importing.arrays import open_array
from ptycho_backend.importing.description import ImportConfig, PositionsDescription
from ptycho_backend.importing.presets.base import Filled, Found, Preset, completed
from ptycho_backend.importing.presets.values import address, first, positive, required, single, text

logger = logging.getLogger(__name__)

CHUNKS = "chunks"
COMMON = ("info/positions_theory", "info/positions_scan", "common/positions_scan")  # as ptypy: theory first
MASKS = ("meta/weight2d", "common/weight2d")


def recognises(paths: Sequence[Path]) -> bool:
    """Return whether the file holds a chunk of patterns."""
    return single(paths, lambda file: bool(_chunks(file)))


def fill(paths: Sequence[Path], given: ImportConfig) -> Filled:
    """
    Return the description of a ptyd file; patterns of several chunks follow each other.

    Raises
    ------
    DataError
        If a value is invalid, or the detector is in the near field. If the positions stand in several arrays, or in
        another order than the patterns.
    """
    (path,) = paths
    source = str(path)
    with opened_hdf5(path) as file:
        _refuse_near_field(file, source)
        names = [f"{CHUNKS}/{chunk}/data" for chunk in _chunks(file)]
        if given.patterns.dataset or not names:
            names = [given.patterns.dataset or required(file, [f"{CHUNKS}/0/data"], "patterns", source)]
        positions = _positions(file, names, path) if given.positions == PositionsDescription() else {}
        found: Found = {
            "patterns": {"dataset": names[0] if len(names) == 1 else "", "unit": "counts"},
            "positions": positions,
            "geometry": _geometry(file, source),
            "detector": _centre(file, source) | _mask(file, names, path),
        }
    return Filled(completed(given, found), [address(path, name) for name in names])


def _chunks(file: Any) -> list[str]:
    """Return the names of the chunks with patterns, by number."""
    import h5py

    group = file.get(CHUNKS)
    numbers = sorted(int(name) for name in group if name.isdecimal()) if isinstance(group, h5py.Group) else []
    return [str(number) for number in numbers if first(file, [f"{CHUNKS}/{number}/data"], (3,))]


def _positions(file: Any, names: Sequence[str], path: Path) -> dict[str, Any]:
    n_patterns = sum(file[name].shape[0] for name in names)
    places = [f"{CHUNKS}/{_chunks(file)[0]}/positions"] if len(names) == 1 else []
    for name in (*places, *COMMON):
        if first(file, [name], (2,)) and file[name].shape[0] >= n_patterns and file[name].shape[1] == 2:
            if name in COMMON:
                _refuse_other_order(file, names, str(path))
            return {"y": address(path, name), "columns": "0,1", "unit": "m"}
    raise DataError(
        "The positions of a ptyd file stand in one array.",
        expected=f"{' or '.join((*places, *COMMON))}, shape ({n_patterns}, 2)",
        received=f"{len(names)} chunk(s) in '{path}' without such an array",
        fix="give the positions of all patterns as --positions.y or --positions.text",
    )


def _refuse_other_order(file: Any, names: Sequence[str], source: str) -> None:
    """Raise an error for patterns that are not those of the first positions, one after the other."""
    places = [name.replace("/data", "/indices") for name in names]
    if not all(first(file, [place], (1,)) for place in places):
        return
    indices = np.concatenate([hdf5_array(file, place, source) for place in places])
    if not np.array_equal(indices, np.arange(len(indices))):
        rule, fix = "Patterns of several chunks follow the positions.", "give the positions of all patterns in order"
        received = f"indices {', '.join(map(str, indices[:6]))}, ..."
        raise DataError.in_field(
            rule, "indices 0, 1, 2, ...", received, f"{fix}, as --positions.text", places[0], source
        )


def _geometry(file: Any, source: str) -> dict[str, float | None]:
    y, x = _pair(file, _meta(file, "psize"), source)
    return {
        "energy_kev": positive(file, _meta(file, "energy"), source),
        "distance_m": positive(file, _meta(file, "distance"), source),
        "detector_pixel_m": y,
        "detector_pixel_x_m": None if x == y else x,
    }


def _meta(file: Any, key: str) -> str | None:
    """Return the name of a numeric value of `meta` or `info`; ptypy writes an unset one as text."""
    names = [name for name in (f"meta/{key}", f"info/{key}") if first(file, [name], (0, 1))]
    return next((name for name in names if file[name].dtype.kind in "fiu" and file[name].size in (1, 2)), None)


def _pair(file: Any, name: str | None, source: str) -> tuple[float | None, float | None]:
    """Return (y, x) of one or two numbers."""
    if name is None:
        return None, None
    values: NDArray[np.float64] = np.resize(hdf5_array(file, name, source).astype(np.float64), 2)
    if not (np.isfinite(values) & (values > 0)).all():
        rule, fix = "Pixels and centres are above zero.", "give the value as an option"
        raise DataError.in_field(rule, "numbers > 0", f"{values.tolist()}", fix, name, source)
    return float(values[0]), float(values[1])


def _centre(file: Any, source: str) -> dict[str, float | None]:
    y, x = _pair(file, _meta(file, "center"), source)
    return {"centre_y_px": y, "centre_x_px": x}


def _mask(file: Any, names: Sequence[str], path: Path) -> dict[str, str]:
    """Return the fields of the mask: that of the detector, or of the patterns of the first chunk."""
    name = first(file, MASKS, (2,))
    if name is None or not file[name].size:
        weights = [name.replace("/data", "/weights") for name in names]
        if not all(first(file, [each], (3,)) and file[each].size for each in weights):
            return {}
        name, *others = weights
        bad = _first_mask(path, name)
        if any(not np.array_equal(_first_mask(path, other), bad) for other in others):
            logger.warning("'%s' has other masks in other chunks: those of '%s' are taken", path, name)
    return {"mask": address(path, name), "mask_convention": "good"}


def _first_mask(path: Path, name: str) -> NDArray[np.bool_]:
    return np.asarray(open_array(address(path, name)).read(slice(1))[0] == 0)


def _refuse_near_field(file: Any, source: str) -> None:
    for name in ("meta/propagation", "info/propagation"):
        if text(file, name) == "nearfield":
            rule, fix = "The detector stands in the far field.", "reconstruct near-field scans with ptypy"
            raise DataError.in_field(rule, "propagation 'farfield'", "'nearfield'", fix, name, source)


PRESET = Preset("ptyd", "ptypy (.ptyd)", recognises, fill)
