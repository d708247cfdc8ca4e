"""Reader and writer of ptychodus products: HDF5, positions in metres, no patterns (spec: data 3.4)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.fields import (
    from_window_middles,
    hdf5_array,
    hdf5_probe,
    json_mapping,
    opened_hdf5,
    positive_number,
    real_number,
    require_keys,
    single_layer,
    stacked,
    to_window_middles,
)
from ptycho_backend.data.output import atomic_path, json_text
from ptycho_backend.errors import DataError

logger = logging.getLogger(__name__)

POSITIONS = ("probe_position_y_m", "probe_position_x_m")
PIXEL = ("pixel_height_m", "pixel_width_m")
CENTRE = ("center_y_m", "center_x_m")
DATASETS = (*POSITIONS, "probe_position_indexes", "object", "object_layer_spacing_m", "loss_epochs", "loss_values")
TEXTS = ("name", "comments")
NUMBERS = (  # 0 stands for an unknown value
    "detector_object_distance_m",
    "photon_energy_eV",
    "probe_photon_count",
    "exposure_time_s",
    "mass_attenuation_m2_per_kg",
    "tomography_angle_deg",
    "focus_object_distance_m",
    "tilt_angle_deg",
)
EARLIER_ENERGY, EARLIER_COSTS = "probe_energy_eV", "costs"  # names in earlier releases of ptychodus
EXTRA_GROUP = "ptychopinn"  # datasets that ptychodus does not read
INCOMPLETE = "incomplete"  # attribute of an image before the end of its reconstruction
UNKNOWN_PIXEL_M = 1.0  # replaces an unknown pixel size, so that metres in the file are pixels


@dataclass(frozen=True, eq=False)
class Product:
    """
    Contents of a ptychodus product: a result, or an initial guess, without patterns.

    Parameters
    ----------
    positions_px : float64, shape (position, 2), pixels, (y, x)
        Scan coordinates.
    probe : complex, shape (mode, y, x)
        No mode if a file without a probe was read with its patterns.
    obj : complex, shape (y, x), optional
    obj_origin_px : (float, float), pixels, (y, x)
        Position of the object's pixel (0, 0) in scan coordinates.
    pixel_size_m : (float, float), optional
        Object pixel, (y, x); None if unknown.
    indexes : int64, shape (position,)
        Index of each position's pattern in another file.
    costs : float64, shape (epoch,)
    attributes : dict
        Plain values: name, distance, energy and provenance.
    """

    positions_px: NDArray[np.float64]
    probe: NDArray[Any]
    obj: NDArray[Any] | None
    obj_origin_px: tuple[float, float]
    pixel_size_m: tuple[float, float] | None
    indexes: NDArray[np.int64]
    costs: NDArray[np.float64]
    attributes: dict[str, Any] = field(default_factory=dict)


def read_product(path: Path | str, N: int | None = None) -> Product:
    """
    Read a ptychodus product.

    Parameters
    ----------
    path : path
    N : int, optional
        Side of the patterns, pixels; needed for a product without a probe, whose window it is.

    Positions are converted to pixels from the object's pixel (0, 0): (m − centre) / pixel + (size − 1) / 2.
    ptychodus refers to the middle of a window, so half a pixel is added for even N. Files of this package also contain
    the origin of the scan coordinates.

    Raises
    ------
    DataError
        If the file is damaged or lacks a key.

    Notes
    -----
    Spec: data 3.4.
    """
    source = str(path)
    with opened_hdf5(Path(path)) as file:
        require_keys(("object", *POSITIONS), file.keys(), source)
        probe = hdf5_probe(file, "probe", DATASETS, source)
        if probe is None:
            probe = _no_probe(N, source)
        obj, y_m, x_m = (hdf5_array(file, key, source) for key in ("object", *POSITIONS))
        centre_m, pixel_m = (_attribute_pair(file["object"], names, source) for names in (CENTRE, PIXEL))
        extras = _Extras(file, source)
        positions_m = stacked(y_m, x_m, POSITIONS, source)
        middle = (np.asarray(obj.shape[-2:]) - 1) / 2
        indexes = _first(file, ("probe_position_indexes",), np.arange(len(positions_m)), source)
        costs = _first(file, ("loss_values", EARLIER_COSTS), np.empty(0), source)
        middles_px = (positions_m - centre_m) / pixel_m + middle + extras.origin_px
        if INCOMPLETE in extras.attributes:
            logger.warning("the image of '%s' is incomplete: %s", source, extras.attributes[INCOMPLETE])
        return Product(
            positions_px=from_window_middles(middles_px, probe.shape[-1]),
            probe=probe,
            obj=single_layer(obj, "object", source),
            obj_origin_px=(float(extras.origin_px[0]), float(extras.origin_px[1])),
            pixel_size_m=(float(pixel_m[0]), float(pixel_m[1])) if extras.pixel_size_known else None,
            indexes=indexes.astype(np.int64),
            costs=np.asarray(costs, dtype=np.float64).ravel(),
            attributes=_attributes(file, source) | extras.attributes,
        )


def write_product(
    path: Path | str,
    product: Product,
    extras: Mapping[str, NDArray[Any]] | None = None,
    overwrite: bool = False,
) -> Path:
    """
    Write a product that ptychodus reads.

    Position p of a window's middle is written as p·pixel metres. The object's centre is written such that ptychodus
    finds p at object pixel p − origin. An unknown pixel size is written as 1 m.

    Parameters
    ----------
    path : path
    product : Product
        Product with an object.
    extras : mapping of arrays, optional
        Further datasets for the group that ptychodus does not read.
    overwrite : bool
        Replace an existing file.

    Raises
    ------
    OutputError
        If the file exists or cannot be written.

    Notes
    -----
    Spec: data 3.4, 3.5, 6.3.
    """
    import h5py

    if product.obj is None:
        raise DataError(
            "A product holds an object.",
            expected="an array (y, x)",
            received=f"none, for '{path}'",
            fix="write the scan with write_npz instead",
        )
    text = json_text(product.attributes, "attributes", str(path))
    with atomic_path(path, overwrite) as unfinished:
        try:
            with h5py.File(unfinished, "w") as file:
                _write_head(file, product, Path(path).stem)
                _write_arrays(file, product, product.obj)
                group = file.create_group(EXTRA_GROUP)
                group.attrs["pixel_size_known"] = product.pixel_size_m is not None
                group["origin_px"] = np.asarray(product.obj_origin_px, dtype=np.float64)
                group["attributes"] = text
                for name, array in (extras or {}).items():
                    group[name] = array
        except RuntimeError as error:  # h5py raises it for a full disk when it closes a file
            raise OSError(str(error)) from error
    return Path(path)


class _Extras:
    """Data of this package in a product, with defaults for products of other programs."""

    def __init__(self, file: Any, source: str) -> None:
        self.origin_px: NDArray[Any] = np.zeros(2)
        self.pixel_size_known = True
        self.attributes: dict[str, Any] = {}
        if EXTRA_GROUP in file:
            group = file[EXTRA_GROUP]
            self.origin_px = hdf5_array(group, "origin_px", source)
            self.pixel_size_known = bool(group.attrs.get("pixel_size_known", True))
            self.attributes = json_mapping(group["attributes"].asstr()[()], "attributes", source)


def _no_probe(N: int | None, source: str) -> NDArray[np.complex64]:
    """Return a probe without modes, whose sides are those of the window."""
    if N is None:
        raise DataError(
            "A product without a probe is read with its patterns, whose size is that of the window.",
            expected="a 'probe' of shape (variation, mode, y, x), or the file of the patterns",
            received=f"no 'probe' in '{source}', and no patterns",
            fix=f"load_scan('{source}', patterns='diffraction.h5'), or --patterns on the command line",
        )
    return np.empty((0, N, N), dtype=np.complex64)


def _first(file: Any, keys: tuple[str, ...], default: NDArray[Any], source: str) -> NDArray[Any]:
    return next((hdf5_array(file, key, source) for key in keys if key in file), default)


def _attribute_pair(dataset: Any, names: tuple[str, str], source: str) -> NDArray[np.float64]:
    require_keys(names, dataset.attrs.keys(), f"{source}, attributes of '{dataset.name}'")
    check = positive_number if names == PIXEL else real_number
    return np.array([check(dataset.attrs[name], name, source) for name in names])


def _attributes(file: Any, source: str) -> dict[str, Any]:
    values: dict[str, Any] = {key: str(file.attrs[key]) for key in TEXTS if file.attrs.get(key)}
    for key in NUMBERS:
        earlier = file.attrs.get(EARLIER_ENERGY) if key == "photon_energy_eV" else None
        stored = file.attrs.get(key, earlier)
        if stored is not None and (number := real_number(stored, key, source)) != 0:
            values[key] = number
    return values


def _write_head(file: Any, product: Product, name: str) -> None:
    values = product.attributes
    file.attrs["name"] = str(values.get("name", name))
    file.attrs["comments"] = str(values.get("comments", ""))
    for key in NUMBERS:
        file.attrs[key] = float(values.get(key) or 0.0)
    file.attrs["far_field"] = True


def _write_arrays(file: Any, product: Product, obj: NDArray[Any]) -> None:
    pixel_m = np.asarray(product.pixel_size_m or (UNKNOWN_PIXEL_M, UNKNOWN_PIXEL_M))
    centre_m = (np.asarray(product.obj_origin_px) + (np.asarray(obj.shape) - 1) / 2) * pixel_m
    middles_px = to_window_middles(product.positions_px, product.probe.shape[-1])
    positions_m = middles_px * pixel_m
    file["probe_position_indexes"] = product.indexes
    for axis, key in enumerate(POSITIONS):
        file[key] = positions_m[:, axis]
    probe = product.probe if product.probe.ndim == 3 else product.probe[None]
    file["probe"] = probe[None].astype(np.complex64)  # (variation, mode, y, x)
    file["object"] = obj[None].astype(np.complex64, copy=False)  # (layer, y, x)
    file["object_layer_spacing_m"] = np.empty(0)
    for axis in (0, 1):
        file["object"].attrs[CENTRE[axis]] = centre_m[axis]
        for key in ("object", "probe"):
            file[key].attrs[PIXEL[axis]] = pixel_m[axis]
    file["loss_epochs"] = np.arange(len(product.costs))
    file["loss_values"] = product.costs
