"""Translation between a Scan and the fields of a RawData (spec: ptychodus_api_spec 4.14.1, 4.14.2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.fields import from_window_middles, numbers, single_layer, stacked
from ptycho_backend.data.npz import npz_array
from ptycho_backend.data.scan import Measurement, Scan
from ptycho_backend.errors import ConfigError

UNUSED = ("dataset_path", "sequential_sampling", "enable_oversampling", "neighbor_pool_size")


@dataclass(eq=False)
class RawFields:
    """
    Unchecked patterns, coordinates and probe.

    Parameters
    ----------
    xcoords, ycoords : float, shape (position,), pixels of the object grid
        Positions; `middles` selects their reference point.
    xcoords_start, ycoords_start : float, shape (position,), pixels
        Positions before a correction; stored, not used.
    diff3d : any real dtype, shape (position, y, x)
    probeGuess : complex, shape (mode, y, x), (y, x) or (y, x, 1)
    scan_index : int, shape (position,), optional
    objectGuess : complex, shape (y, x), optional
    bad_pixels : bool, shape (y, x), optional
    measurement : {"counts", "amplitude"}, optional
        None selects "counts" if all values are integers, and "amplitude" otherwise.
    obj_origin_px : (float, float), (y, x)
        Scan coordinates of the object's pixel (0, 0).
    source : str
    middles : bool
        Reference point of coordinates: the window's middle, (N − 1)/2, or pixel ``[N//2, N//2]`` as in a Scan.
    """

    xcoords: NDArray[Any]
    ycoords: NDArray[Any]
    xcoords_start: NDArray[Any]
    ycoords_start: NDArray[Any]
    diff3d: NDArray[Any]
    probeGuess: NDArray[Any]
    scan_index: NDArray[Any] | None = None
    objectGuess: NDArray[Any] | None = None
    bad_pixels: NDArray[Any] | None = None
    measurement: Measurement | None = None
    obj_origin_px: tuple[float, float] = (0.0, 0.0)
    source: str = "memory"
    middles: bool = True


def fields_of(scan: Scan) -> dict[str, Any]:
    """Return the fields of a RawData for a scan."""
    y, x = scan.positions_px.T
    return {
        **{"xcoords": x, "ycoords": y, "xcoords_start": x, "ycoords_start": y},
        "diff3d": scan.patterns,
        "probeGuess": scan.probe,
        "scan_index": np.zeros(len(scan), dtype=int),
        "objectGuess": scan.obj,
        "bad_pixels": ~scan.mask,
        "measurement": scan.measurement,
        "obj_origin_px": scan.obj_origin_px,
        "source": scan.source,
        "middles": False,
    }


def to_scan(raw: RawFields) -> Scan:
    """Return the checked scan of a RawData."""
    obj = None if raw.objectGuess is None else single_layer(raw.objectGuess, "objectGuess", raw.source)
    coordinates = stacked(raw.ycoords, raw.xcoords, ("ycoords", "xcoords"), raw.source)
    return Scan(
        patterns=raw.diff3d,
        positions_px=from_window_middles(coordinates, np.shape(raw.diff3d)[-1]) if raw.middles else coordinates,
        probe=raw.probeGuess,
        measurement=raw.measurement,  # type: ignore[arg-type]
        mask=None if raw.bad_pixels is None else ~np.asarray(raw.bad_pixels, dtype=bool),  # type: ignore[arg-type]
        obj=obj,
        obj_origin_px=raw.obj_origin_px,
        source=raw.source,
    )


def npz_extras(path: Path, n: int) -> dict[str, Any]:
    """
    Return the fields of a RawData that an NPZ file of n positions holds in addition to its scan.

    This package always writes the key "measurement", other programs never do. ptychodus always writes "bad_pixels".
    """
    found = {name: npz_array(path, name) for name in ("xcoords_start", "ycoords_start", "scan_index")}
    extras: dict[str, Any] = {
        name: numbers(array, name, str(path)).ravel()[:n]
        for name, array in found.items()
        if array is not None and array.size >= n
    }
    foreign = npz_array(path, "measurement") is None
    extras["middles"] = foreign
    if foreign and npz_array(path, "bad_pixels") is not None:
        extras["measurement"] = "counts"
    return extras


def check_options(options: dict[str, Any]) -> None:
    """Raise a ConfigError for options of `generate_grouped_data` that no release has."""
    unknown = [name for name in options if name not in UNUSED]
    if unknown:
        options_of_any_release = ("N", "K", "nsamples", "gridsize", "seed", *UNUSED)
        raise ConfigError.unknown(
            "option of generate_grouped_data()", unknown[0], options_of_any_release, ", ".join(unknown)
        )
