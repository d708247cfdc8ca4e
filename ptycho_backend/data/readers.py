"""Reader of scan files of every format, chosen by the suffix (spec: data 3.1)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ptycho_backend.data.fields import Fields, unexpected_patterns
from ptycho_backend.data.resize import resized
from ptycho_backend.data.run_folder import after_swap
from ptycho_backend.data.scan import Scan
from ptycho_backend.data.selection import PIXELS, Rows, Search, searched, without_bad_pixels, without_rows
from ptycho_backend.errors import DataError, nearest_name

NPZ = (".npz",)
HDF5 = (".h5", ".hdf5", ".hdf")
CXI = (".cxi",)
SUFFIXES = (*NPZ, *HDF5, *CXI)


def load_scan(
    path: Path | str,
    N: int | None = None,
    patterns: Path | str | None = None,
    *,
    exclude: Rows = (),
    bad_pixels: Search = "auto",
    odd_patterns: Search = "auto",
) -> Scan:
    """
    Read a scan from a file.

    Parameters
    ----------
    path : path
        An NPZ file, a ptychodus training file or product (HDF5), or a CXI file. A file without a probe gets a guess
        from its patterns, with a warning.
    N : int, optional
        Crop or zero-pad the detector to N×N pixels about ``[N//2, N//2]``. The object pixel changes by old side / N,
        so positions, pixel size and probe are converted, and a known object is dropped. None keeps the detector.
    patterns : path, optional
        HDF5 file with the patterns of a product.
    exclude : int, shape (pattern,)
        Numbers of patterns that are left out, from 0 in the order of the file.
    bad_pixels : {"auto", "off"}
        "auto" masks hot and dead pixels, stripes, gaps and markers that the patterns show, with a warning that names
        them. "off" keeps the mask of the file.
    odd_patterns : {"auto", "off"}
        "auto" leaves out empty, saturated and mad patterns when the scan is reconstructed or trained on, with a warning
        that names them. "off" keeps all.

    Returns
    -------
    Scan
        Scan with the dtype of the file; large uncompressed patterns are memory-mapped.

    Raises
    ------
    DataError
        If the file is missing, damaged, of an unknown kind, or breaks a rule; the message names file and field.
    ConfigError
        If `bad_pixels` or `odd_patterns` is another word.

    Notes
    -----
    Spec: data 2.11, 3.1, 3.7, 3.8, 9.8.
    """
    file = existing_file(path)
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            "The suffix of a scan file gives its format.",
            expected=f"one of {', '.join(SUFFIXES)}",
            received=f"{suffix or 'no suffix'!r}, file '{path}'",
            fix=f"convert the file; the nearest suffix is '{nearest_name(suffix, SUFFIXES) or '.npz'}'",
        )
    fields = without_rows(_read(file, suffix, patterns), exclude)
    fields = fields if N is None else _resized(fields, N)
    unwanted = searched(bad_pixels, odd_patterns)
    if PIXELS not in unwanted:
        fields, unwanted = without_bad_pixels(fields), (*unwanted, PIXELS)
    return Scan(**fields, searched=unwanted)


def _resized(fields: Fields, N: int) -> Fields:
    if fields["probe"] is not None:
        return resized(fields, N)
    stand_in = np.ones(fields["patterns"].shape[-2:])  # far field at zero frequency alone: no crop takes light of it
    return {**resized({**fields, "probe": stand_in}, N), "probe": None}


def existing_file(path: Path | str) -> Path:
    """Return the path of an existing file; a missing file or a folder is an error."""
    file = after_swap(path)
    try:
        is_file, is_folder, is_other = file.is_file(), file.is_dir(), file.exists()
    except (OSError, ValueError) as error:  # a name that the system refuses
        reason = getattr(error, "strerror", None) or str(error)
        received, fix = f"'{file.name[:40]}': {reason}", "check the path"
        raise DataError("A scan file must exist.", "the path of a file", received, fix) from error
    if is_file:
        return file
    if is_folder:
        scan_files = sorted(item.name for item in file.iterdir() if item.suffix.lower() in SUFFIXES)
        raise DataError(
            "A scan is one file.",
            expected="the path of a file",
            received=f"'{path}', a folder",
            fix=f"name one file in it: {', '.join(scan_files[:5]) or 'it holds no scan file'}",
        )
    if is_other:  # reading a pipe waits for its writer
        received, fix = f"'{path}', a pipe, socket or device", "write its content to a file, and name that file"
        raise DataError("A scan is one file.", "the path of a file", received, fix)
    siblings = [item.name for item in file.parent.iterdir()] if file.parent.is_dir() else []
    nearest = nearest_name(file.name, siblings)
    raise DataError(
        "A scan file must exist.",
        expected="the path of a file",
        received=f"'{path}', which does not exist" + ("" if siblings else f"; nor does folder '{file.parent}'"),
        fix=f"did you mean '{nearest}'?" if nearest else "check the path",
    )


def _read(file: Path, suffix: str, patterns: Path | str | None) -> Fields:
    if suffix in HDF5:
        from ptycho_backend.data.hdf5 import hdf5_fields

        return hdf5_fields(file, None if patterns is None else existing_file(patterns))
    if patterns is not None:
        raise unexpected_patterns(file, patterns)
    if suffix in NPZ:
        from ptycho_backend.data.npz import npz_fields

        return npz_fields(file)
    from ptycho_backend.data.cxi import cxi_fields

    return cxi_fields(file)
