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
    attribute,
    finite,
    from_window_middles,
    hdf5_array,
    hdf5_probe,
    hdf5_text,
    json_mapping,
    numbers,
    opened_hdf5,
    positive_number,
    real_number,
    require_keys,
    single_layer,
    stacked,
    text_attribute,
    to_window_middles,
    whole_numbers,
    wrong_shape,
)
from ptycho_backend.data.hdf5_output import new_hdf5
from ptycho_backend.data.hdf5_sources import holds, resolved
from ptycho_backend.data.output import atomic_path, json_text
from ptycho_backend.errors import DataError
from ptycho_backend.runtime.printable import printable

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
        obj = finite(hdf5_array(file, "object", source), "object", source, kinds="biufc")
        centre_m, pixel_m = (_attribute_pair(file["object"], names, source) for names in (CENTRE, PIXEL))
        extras = Extras(file, source)
        y_m, x_m = (finite(hdf5_array(file, key, source), key, source) for key in POSITIONS)
        positions_m = stacked(y_m, x_m, POSITIONS, source)
        layer = single_layer(obj, "object", source)
        sides = (0, 0) if layer is None else layer.shape
        middle = (np.asarray(sides) - 1) / 2
        costs = _first(file, ("loss_values", EARLIER_COSTS), np.empty(0), source)
        middles_px = (positions_m - centre_m) / pixel_m + middle + extras.origin_px
        if INCOMPLETE in extras.attributes:
            logger.warning("the image of '%s' is incomplete: %s", source, extras.attributes[INCOMPLETE])
        return Product(
            positions_px=from_window_middles(middles_px, probe.shape[-1]),
            probe=probe,
            obj=layer,
            obj_origin_px=(float(extras.origin_px[0]), float(extras.origin_px[1])),
            pixel_size_m=(float(pixel_m[0]), float(pixel_m[1])) if extras.pixel_size_known else None,
            indexes=_indexes(file, len(positions_m), source),
            costs=np.asarray(numbers(costs, "loss_values", source), dtype=np.float64).ravel(),
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
    if product.obj is None:
        raise DataError(
            "A product holds an object.",
            expected="an array (y, x)",
            received=f"none, for '{path}'",
            fix="write the scan with write_npz instead",
        )
    text = json_text(product.attributes, "attributes", str(path))
    with atomic_path(path, overwrite) as unfinished, new_hdf5(unfinished) as (file, _):
        _write_head(file, product, Path(path).stem)
        _write_arrays(file, product, product.obj)
        group = file.create_group(EXTRA_GROUP)
        group.attrs["pixel_size_known"] = product.pixel_size_m is not None
        group["origin_px"] = np.asarray(product.obj_origin_px, dtype=np.float64)
        group["attributes"] = text
        for name, array in (extras or {}).items():
            group[name] = array
    return Path(path)


class Extras:
    """Data of this package in a file of ptychodus, with defaults for files of other programs."""

    def __init__(self, file: Any, source: str) -> None:
        import h5py

        self.origin_px: NDArray[Any] = np.zeros(2)
        self.pixel_size_known = True
        self.attributes: dict[str, Any] = {}
        if not holds(file, EXTRA_GROUP):
            return
        group = resolved(file, EXTRA_GROUP)
        if not isinstance(group, h5py.Group):
            rule, fix = "Values that ptychodus does not read are in a group.", "write the product again"
            raise DataError.in_field(rule, "an HDF5 group", "a dataset or a broken link", fix, EXTRA_GROUP, source)
        self.origin_px = finite(hdf5_array(group, "origin_px", source), "origin_px", source)
        if self.origin_px.shape != (2,):
            rule, fix = "This field is a (y, x) pair.", "write numpy.array([y, x])"
            raise wrong_shape(self.origin_px, "origin_px", source, rule, "two finite numbers", fix)
        known = attribute(group, "pixel_size_known", source, True)
        self.pixel_size_known = bool(real_number(known, "pixel_size_known", source))
        self.attributes = json_mapping(hdf5_text(group, "attributes", source), "attributes", source)


def _indexes(file: Any, n_positions: int, source: str) -> NDArray[np.int64]:
    """Return the index of each position's pattern."""
    key = "probe_position_indexes"
    if not holds(file, key):
        return np.arange(n_positions)
    indexes = whole_numbers(hdf5_array(file, key, source), key, source)
    if len(indexes) != n_positions:
        rule, fix = "Every position has one index.", "write one index for every position, or leave the field out"
        raise wrong_shape(indexes, key, source, rule, f"shape ({n_positions},), as the positions", fix)
    return indexes


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
    return next((hdf5_array(file, key, source) for key in keys if holds(file, key)), default)


def _attribute_pair(dataset: Any, names: tuple[str, str], source: str) -> NDArray[np.float64]:
    require_keys(names, dataset.attrs.keys(), f"{source}, attributes of '{dataset.name}'")
    check = positive_number if names == PIXEL else real_number
    return np.array([check(attribute(dataset, name, source), name, source) for name in names])


def _attributes(file: Any, source: str) -> dict[str, Any]:
    texts = {key: text_attribute(file, key, source) for key in TEXTS}
    values: dict[str, Any] = {key: text for key, text in texts.items() if text}
    for key in NUMBERS:
        earlier = attribute(file, EARLIER_ENERGY, source) if key == "photon_energy_eV" else None
        stored = attribute(file, key, source, earlier)
        if stored is not None and (number := real_number(stored, key, source)) != 0:
            values[key] = number
    return values


def _write_head(file: Any, product: Product, name: str) -> None:
    values = product.attributes
    file.attrs["name"] = printable(str(values.get("name", name)))
    file.attrs["comments"] = printable(str(values.get("comments", "")))
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
