"""Writer of scans as training files of ptychodus: HDF5, streamed block by block (spec: data 3.3, 6.1, 8.1)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ptycho_backend.data.fields import to_window_middles
from ptycho_backend.data.hdf5 import EXPERIMENT, OBJECT_PIXEL, TRAINING_POSITIONS
from ptycho_backend.data.hdf5_output import FaultRecorder, new_hdf5
from ptycho_backend.data.output import atomic_path, json_text
from ptycho_backend.data.product import EXTRA_GROUP
from ptycho_backend.data.scan import Scan, canonical_probe
from ptycho_backend.errors import DataError, OutputError, ShapeError
from ptycho_backend.runtime.memory_map import chunks


@dataclass(frozen=True, eq=False)
class ScanFields:
    """
    Fields of a scan without its patterns, as they are written.

    Parameters
    ----------
    positions_px : float64, shape (position, 2), pixels, (y, x)
        Scan coordinates of pixel ``[N//2, N//2]`` of the window.
    mask : bool, shape (N, N)
        True marks a good pixel.
    measurement : {"counts", "amplitude"}
    probe : complex64, shape (mode, y, x), optional
    pixel_size_m : (float, float), optional
        Object pixel, (y, x), metres.
    obj : complex64, shape (y, x), optional
    obj_origin_px : (float, float), pixels, (y, x)
        Scan coordinates of the object's pixel (0, 0).
    attributes : dict
        Plain values.
    """

    positions_px: NDArray[np.float64]
    mask: NDArray[np.bool_]
    measurement: str
    probe: NDArray[np.complex64] | None = None
    pixel_size_m: tuple[float, float] | None = None
    obj: NDArray[np.complex64] | None = None
    obj_origin_px: tuple[float, float] = (0.0, 0.0)
    attributes: dict[str, Any] = field(default_factory=dict)


def write_hdf5(scan: Scan, path: Path | str, overwrite: bool = False) -> Path:
    """
    Write a scan to an HDF5 file in the training layout of ptychodus.

    Parameters
    ----------
    scan : Scan
    path : path
        Path; a file with this name is always complete.
    overwrite : bool
        Replace an existing file; otherwise an existing file is an error.

    Raises
    ------
    OutputError
        If the file exists or cannot be written.

    Notes
    -----
    Spec: data 3.3, 6.1.
    """
    fields = ScanFields(
        positions_px=scan.positions_px,
        mask=scan.mask,
        measurement=scan.measurement,
        probe=scan.probe,
        pixel_size_m=scan.pixel_size_m,
        obj=scan.obj,
        obj_origin_px=scan.obj_origin_px,
        attributes=scan.attributes,
    )
    return write_hdf5_blocks(path, chunks(scan.patterns), scan.patterns.dtype, fields, overwrite)


def write_hdf5_blocks(
    path: Path | str,
    blocks: Iterable[NDArray[Any]],
    dtype: DTypeLike,
    fields: ScanFields,
    overwrite: bool = False,
) -> Path:
    """
    Write blocks of patterns and the other fields of a scan to an HDF5 file in the training layout of ptychodus.

    Patterns are contiguous and uncompressed, so that a reader can map them. Their space on the disk is reserved
    before the first block is read. An error, or an interruption, leaves no file.

    Parameters
    ----------
    path : path
        Path; a file with this name is always complete.
    blocks : iterable of array, shape (pattern, N, N)
        Patterns in order, together one for every position; each block is taken once.
    dtype : dtype
        Numbers of the patterns in the file.
    fields : ScanFields
        Positions, mask and the rest.
    overwrite : bool
        Replace an existing file; otherwise an existing file is an error.

    Raises
    ------
    OutputError
        If the file exists or cannot be written, also for lack of space.
    ShapeError
        If the blocks do not give one pattern for every position.
    DataError
        If an attribute is no plain value.

    Notes
    -----
    Spec: data 3.3, 3.4.4 (group ``ptychopinn``), 6.1, 8.1.
    """
    text = json_text(fields.attributes, "attributes", str(path))
    probe = None if fields.probe is None else canonical_probe(fields.probe, len(fields.mask), str(path))
    shape = (len(fields.positions_px), *fields.mask.shape)
    with atomic_path(path, overwrite) as unfinished, new_hdf5(unfinished) as (file, stream):
        _write_fields(file, fields, probe, text)
        patterns = _reserved(file, shape, np.dtype(dtype), stream)
        _write_patterns(patterns, blocks, path, stream)
    return Path(path)


def _write_fields(file: Any, fields: ScanFields, probe: NDArray[np.complex64] | None, text: str) -> None:
    origin = np.asarray(fields.obj_origin_px, dtype=np.float64)
    middles = to_window_middles(fields.positions_px, len(fields.mask)) - origin  # 0 is the centre of object[0, 0]
    for axis, key in enumerate(TRAINING_POSITIONS):
        file[key] = middles[:, axis]
    file["bad_pixels"] = (~fields.mask).astype(np.uint8)
    file.attrs["measurement"] = fields.measurement
    if probe is not None:
        file["probe"] = probe
    if fields.obj is not None:
        file["object"] = np.asarray(fields.obj, dtype=np.complex64)
    for axis, key in enumerate(OBJECT_PIXEL if fields.pixel_size_m is not None else ()):
        file[key] = float((fields.pixel_size_m or (0.0, 0.0))[axis])
    for key in EXPERIMENT:
        if isinstance(fields.attributes.get(key), int | float):
            file[key] = float(fields.attributes[key])
    group = file.create_group(EXTRA_GROUP)
    group["origin_px"] = origin
    group["attributes"] = text


def _reserved(file: Any, shape: tuple[int, ...], dtype: np.dtype[Any], stream: FaultRecorder) -> Any:
    """Return a contiguous dataset whose space on the disk is reserved."""
    import h5py

    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    creation.set_layout(h5py.h5d.CONTIGUOUS)
    kind = h5py.h5t.py_create(dtype, logical=True)
    dataset = h5py.Dataset(h5py.h5d.create(file.id, b"patterns", kind, h5py.h5s.create_simple(shape), creation))
    if hasattr(os, "posix_fallocate"):
        file.flush()
        os.posix_fallocate(stream.fileno(), 0, dataset.id.get_offset() + dataset.nbytes)
    return dataset


def _write_patterns(dataset: Any, blocks: Iterable[NDArray[Any]], path: Path | str, stream: FaultRecorder) -> None:
    n, first = len(dataset), 0
    for block in _read_safely(blocks):
        if block.shape[1:] != dataset.shape[1:] or first + len(block) > n:
            raise _unpaired(n, f"a block of shape {block.shape} after {first} patterns", path)
        dataset[first : first + len(block)] = block
        stream.check()
        first += len(block)
    if first < n:
        raise _unpaired(n, f"{first} patterns", path)


def _unpaired(n: int, received: str, path: Path | str) -> ShapeError:
    fix = "check that patterns, mask and positions come from the same scan"
    return ShapeError("Every position has one pattern.", f"{n} patterns", f"{received}, for '{path}'", fix)


def _read_safely(blocks: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """Yield blocks; an error of the file they are read from is no error of the file that is written."""
    try:
        yield from blocks
    except OutputError:
        raise
    except (OSError, RuntimeError) as error:
        raise DataError(
            "Patterns are read while they are written.",
            expected="a whole file of patterns",
            received=str(error),
            fix="copy the file of the patterns again; check that it was written completely",
        ) from error
