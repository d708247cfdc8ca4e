"""Formats of files with arrays, recognised by their first bytes; readers of NumPy files."""

from __future__ import annotations

import functools
from pathlib import Path

from ptycho_backend.data.npy import DAMAGE, ArrayHeader, mapped, read_header
from ptycho_backend.data.npz import npz_array, npz_members
from ptycho_backend.errors import DataError
from ptycho_backend.importing.hdf5_arrays import HDF5
from ptycho_backend.importing.matlab import MATLAB
from ptycho_backend.importing.opened import ArrayInfo, Format, Opened, damaged, of_array, require_numbers
from ptycho_backend.importing.tiff import TIFF

NPY_KIND = "an NPY file"


def format_of(path: Path) -> Format:
    """
    Return the format of a file by its first bytes; by its suffix if these name none.

    Raises
    ------
    DataError
        If neither names a format.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(520)
    except OSError as error:
        raise damaged(path, "a file", error) from error
    if _is_hdf5(path):
        return HDF5
    for signature, found in SIGNATURES:
        if head.startswith(signature):
            return found
    by_suffix = SUFFIXES.get(path.suffix.lower())
    if by_suffix is not None:
        return by_suffix
    raise DataError(
        "The first bytes of a file give its format.",
        expected=f"HDF5, NPY, NPZ, MATLAB or TIFF, with suffixes such as {', '.join(SUFFIXES)}",
        received=f"'{path}', of an unknown format",
        fix="declare a raw file: --patterns.raw_shape 1000x256x256 --patterns.raw_dtype '<u2'; or convert the file",
    )


def _is_hdf5(path: Path) -> bool:
    import h5py

    try:
        return bool(h5py.is_hdf5(path))
    except (OSError, ValueError, RuntimeError):
        return False


def _npy_header(path: Path) -> ArrayHeader:
    try:
        with path.open("rb") as stream:
            return read_header(stream, path.stat().st_size)
    except DAMAGE as error:
        raise damaged(path, NPY_KIND, error) from error


def _npy_infos(path: Path, complete: bool) -> list[ArrayInfo]:
    header = _npy_header(path)
    return [ArrayInfo("", header.shape, header.dtype)] if header.dtype.kind in "biufc" else []


def _npy_array(path: Path, name: str) -> Opened | None:
    header = _npy_header(path)
    require_numbers(header.dtype, name, path)
    try:
        return of_array(mapped(path, header.n_bytes, header))
    except DAMAGE as error:
        raise damaged(path, NPY_KIND, error) from error


def _npz_infos(path: Path, complete: bool) -> list[ArrayInfo]:
    headers = npz_members(path)
    return [ArrayInfo(name, at.shape, at.dtype) for name, at in headers.items() if at.dtype.kind in "biufc"]


def _npz_array(path: Path, name: str) -> Opened | None:
    header = npz_members(path).get(name)
    if header is None:
        return None
    require_numbers(header.dtype, name, path)

    @functools.cache
    def load() -> Opened:
        values = npz_array(path, name)
        assert values is not None  # the name is among the members
        return of_array(values)

    return Opened(header.shape, header.dtype, lambda rows: load().read(rows))


NPY = Format(_npy_infos, _npy_array, named=False)
NPZ = Format(_npz_infos, _npz_array)
SIGNATURES = (
    *((b"\x93NUMPY", NPY), (b"PK\x03\x04", NPZ), (b"PK\x05\x06", NPZ), (b"MATLAB 5", MATLAB)),
    *((b"II*\0", TIFF), (b"MM\0*", TIFF), (b"II+\0", TIFF), (b"MM\0+", TIFF)),
)
SUFFIXES = {
    **dict.fromkeys((".h5", ".hdf5", ".hdf", ".cxi", ".nxs", ".ptyd", ".emd", ".hspy"), HDF5),
    **{".npy": NPY, ".npz": NPZ, ".mat": MATLAB, ".tif": TIFF, ".tiff": TIFF},
}
