"""One way in for every scan file: `load_scan` chooses the reader by the file's suffix (spec: data 3.1)."""

from __future__ import annotations

from pathlib import Path

from ptycho_backend.data.fields import Fields
from ptycho_backend.data.resize import resized
from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import DataError, nearest_name

NPZ = (".npz",)
HDF5 = (".h5", ".hdf5", ".hdf")
CXI = (".cxi",)
SUFFIXES = (*NPZ, *HDF5, *CXI)


def load_scan(path: Path | str, N: int | None = None, patterns: Path | str | None = None) -> Scan:
    """
    Read a scan from a file.

    Parameters
    ----------
    path : path
        An NPZ file, a ptychodus training file or product (HDF5), or a CXI file.
    N : int, optional
        Crop or zero-pad the detector to N×N pixels about ``[N//2, N//2]``. The object pixel changes by
        old side / N, so positions, pixel size and probe are converted, and a known object is dropped.
        None leaves everything as measured.
    patterns : path, optional
        HDF5 file that holds the patterns, for a product, which holds none.

    Returns
    -------
    Scan
        Patterns keep the dtype of the file; large uncompressed ones are memory-mapped.

    Raises
    ------
    DataError
        If the file is missing, damaged, of an unknown kind, or breaks a rule; the message names the file
        and, where there is one, the field.

    Notes
    -----
    Spec: data 3.1.
    """
    file = existing_file(path)
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            "The kind of a scan file is told by its suffix.",
            expected=f"one of {', '.join(SUFFIXES)}",
            received=f"{suffix or 'no suffix'!r}, file '{path}'",
            fix=f"convert the file; '{nearest_name(suffix, SUFFIXES) or '.npz'}' is the nearest suffix",
        )
    fields = _read(file, suffix, patterns)
    return Scan(**(fields if N is None else resized(fields, N)))


def existing_file(path: Path | str) -> Path:
    """Return a path that leads to a file; a missing file or a folder is an error."""
    file = Path(path)
    if file.is_file():
        return file
    if file.is_dir():
        inside = [item.name for item in file.iterdir() if item.suffix.lower() in SUFFIXES]
        raise DataError(
            "A scan is one file.",
            expected="the path of a file",
            received=f"'{path}', a folder",
            fix=f"name one file in it: {', '.join(sorted(inside)[:5]) or 'it holds no scan file'}",
        )
    beside = [item.name for item in file.parent.iterdir()] if file.parent.is_dir() else []
    near = nearest_name(file.name, beside)
    raise DataError(
        "A scan file exists.",
        expected="the path of a file",
        received=f"'{path}', which does not exist" + ("" if beside else f"; nor does folder '{file.parent}'"),
        fix=f"did you mean '{near}'?" if near else "check the path",
    )


def _read(file: Path, suffix: str, patterns: Path | str | None) -> Fields:
    if suffix in HDF5:
        from ptycho_backend.data.hdf5 import hdf5_fields

        return hdf5_fields(file, None if patterns is None else existing_file(patterns))
    if patterns is not None:
        raise DataError(
            "Only a product takes its patterns from another file.",
            expected="patterns=None",
            received=f"patterns='{patterns}' for '{file}'",
            fix="leave `patterns` out",
        )
    if suffix in NPZ:
        from ptycho_backend.data.npz import npz_fields

        return npz_fields(file)
    from ptycho_backend.data.cxi import cxi_fields

    return cxi_fields(file)
