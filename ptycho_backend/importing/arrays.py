"""
Arrays in files of every supported format, read by blocks of rows.

The content of a file gives its format: HDF5 under any suffix (.h5, .cxi, .nxs, .ptyd, .emd, .hspy, MATLAB 7.3), NumPy
(.npy, .npz), MATLAB 4 and 5, TIFF, and raw numbers with a declared shape. An address is the path of a file, or
``file.h5:/entry/data`` for one array of several.

Notes
-----
MATLAB 7.3 is HDF5, in which the axes of an array stand in reverse order: an array of size (y, x, n) in MATLAB has the
shape (n, x, y) here. Files of MATLAB 5 keep the order of MATLAB. Nothing is transposed: the axes are declared.

Spec: data 12.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.readers import existing_file
from ptycho_backend.errors import DataError, ShapeError, nearest_name
from ptycho_backend.importing.array_formats import format_of
from ptycho_backend.importing.description import PatternsDescription
from ptycho_backend.importing.opened import ArrayInfo, Format, Opened
from ptycho_backend.importing.raw import raw_array

MAX_BYTES = 2**32  # of an array that is read whole
MAX_LISTED = 20  # arrays in a message


@dataclass(frozen=True)
class ArraySource:
    """
    Array in one or several files.

    Parameters
    ----------
    name : str
        Address, for messages.
    shape : tuple of int
    dtype : dtype
    _read : callable
        Function from a slice with a positive step to an array of these rows of the first axis.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    _read: Callable[[slice], NDArray[Any]]

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 1

    def read(self, rows: slice = slice(None)) -> NDArray[Any]:
        """
        Read rows of the first axis.

        Parameters
        ----------
        rows : slice
            Rows, with a positive step.

        Returns
        -------
        numbers of `dtype`, shape (row, ...)

        Raises
        ------
        DataError
            If the file is damaged or changed.
        """
        values = self._read(slice(*rows.indices(len(self))))
        expected = (len(range(*rows.indices(len(self)))), *self.shape[1:]) if self.shape else ()
        if values.shape != expected or values.dtype != self.dtype:
            raise DataError(
                "A file stays as it is during its import.",
                expected=f"shape {expected}, dtype {self.dtype}",
                received=f"shape {values.shape}, dtype {values.dtype} in '{self.name}'",
                fix="import the file again when it is complete",
            )
        return values

    def all(self) -> NDArray[Any]:
        """
        Read the whole array: positions, an image or a probe.

        Raises
        ------
        DataError
            If it has more than 4 GiB, or the file is damaged.
        """
        n_bytes = math.prod(self.shape) * self.dtype.itemsize
        if n_bytes > MAX_BYTES:
            raise DataError(
                "Only patterns are larger than the memory.",
                expected="at most 4 GiB of positions, image or probe",
                received=f"{n_bytes / 2**30:.3g} GiB of shape {self.shape} in '{self.name}'",
                fix="name the array of the positions, image or probe, not that of the patterns",
            )
        return self.read()


def open_array(address: str, raw: PatternsDescription | None = None, axes_at_least: int = 0) -> ArraySource:
    """
    Open an array; its values are read later.

    Parameters
    ----------
    address : str
        Path, or path and name: ``file.h5:/entry/data``, ``file.npz:key``, ``file.mat:dp``, ``stack.tif``. Without a
        name, the only array with enough axes.
    raw : PatternsDescription, optional
        Shape and dtype of a raw file.
    axes_at_least : int
        Least number of axes.

    Returns
    -------
    ArraySource
        Array in the dtype of the file; compounds of real and imaginary part are complex.

    Raises
    ------
    DataError
        If the file is missing, damaged or of an unknown format; if a file or filter that the array needs is missing;
        if the array holds no numbers; or if the choice is not clear, with a list of all arrays.
    ConfigError
        If shape or dtype of a raw file are no shape or dtype.

    Notes
    -----
    Spec: data 12.
    """
    path, name = split_address(address)
    existing_file(path)
    if raw is not None and raw.raw_shape:
        opened = raw_array(path, raw)
        return _with_axes(ArraySource(str(path), opened.shape, opened.dtype, opened.read), axes_at_least)
    reader = format_of(path)
    if not name and reader.named:
        name = _only_array(path, reader.infos(path, True), axes_at_least)
    elif name and not reader.named:
        raise _without_names(path, name)
    opened = _opened(reader, path, name)
    text = f"{path}:{name}" if name else str(path)
    return _with_axes(ArraySource(text, opened.shape, opened.dtype, opened.read), axes_at_least)


def arrays_in(path: Path | str) -> list[ArrayInfo]:
    """
    Return name, shape and dtype of every array of numbers in a file; no values are read.

    Raises
    ------
    DataError
        If the file is missing, damaged or of an unknown format.
    """
    file = existing_file(path)
    return format_of(file).infos(file, False)


def concatenated(sources: Sequence[ArraySource]) -> ArraySource:
    """
    Join arrays along the first axis; the values stay in their files.

    Parameters
    ----------
    sources : sequence of ArraySource
        Arrays with equal dtype, and equal shape but for the first axis.

    Raises
    ------
    ShapeError
        If there is no array, or if shapes differ.
    DataError
        If dtypes differ.
    """
    if not sources:
        raise ShapeError("Patterns come from files.", "at least one file", "none", "name the files of the scan")
    first = sources[0]
    for other in sources[1:]:
        if not first.shape or not other.shape or other.shape[1:] != first.shape[1:]:
            received = f"shape {first.shape} in '{first.name}' and {other.shape} in '{other.name}'"
            fix = "import files of one detector and one scan"
            raise ShapeError("Files in a row hold patterns of one size.", "equal shapes", received, fix)
        if other.dtype != first.dtype:
            received = f"{first.dtype} in '{first.name}' and {other.dtype} in '{other.name}'"
            fix = "write the files with one dtype"
            raise DataError("Files in a row hold numbers of one type.", "equal dtypes", received, fix)
    if len(sources) == 1:
        return first
    shape = (sum(len(source) for source in sources), *first.shape[1:])
    name = f"{first.name} and {len(sources) - 1} more"
    return ArraySource(name, shape, first.dtype, lambda rows: _joined_rows(sources, rows))


def split_address(address: str) -> tuple[Path, str]:
    """
    Split an address in the path of a file and the name of an array, empty for none.

    The path is the longest part before a colon that is a file, because paths and names may hold colons. Without such
    a file, it ends at the first colon behind a suffix.
    """
    colons = [place for place, letter in enumerate(address) if letter == ":"]
    for end in (len(address), *reversed(colons)):
        if _is_file(address[:end]):
            return Path(address[:end]), address[end + 1 :]
    for end in colons:
        if Path(address[:end]).suffix:
            return Path(address[:end]), address[end + 1 :]
    return Path(address), ""


def _is_file(text: str) -> bool:
    try:
        return bool(text) and Path(text).is_file()
    except (OSError, ValueError):  # a name that the system refuses
        return False


def _opened(reader: Format, path: Path, name: str) -> Opened:
    opened = reader.open(path, name)
    if opened is not None:
        return opened
    infos = reader.infos(path, False)
    nearest = nearest_name(name, [info.name for info in infos])
    raise DataError(
        "The name of an array is that in its file.",
        expected=f"one of the arrays {_listed(infos)}",
        received=f"no array '{name}' in '{path}'",
        fix=f"did you mean '{path}:{nearest}'?" if nearest else f"name an array, as '{path}:{_example(infos)}'",
    )


def _only_array(path: Path, infos: list[ArrayInfo], axes_at_least: int) -> str:
    """Return the name of the only array with enough axes."""
    fitting = [info for info in infos if len(info.shape) >= axes_at_least]
    if len(fitting) == 1:
        return fitting[0].name
    axes = f" with {axes_at_least} or more axes" if axes_at_least else ""
    if not fitting:
        fix = "name another file, or --patterns.dataset"
        received = f"none of them in '{path}', which holds {_listed(infos)}"
        raise ShapeError("A file holds the array that is read from it.", f"an array of numbers{axes}", received, fix)
    example = _example(fitting)
    raise DataError(
        "A file with several arrays needs the name of one.",
        expected=f"one array{axes}, or its name",
        received=f"{len(fitting)} arrays in '{path}': {_listed(fitting)}",
        fix=f"--patterns.dataset {example} for the patterns, or a name after a colon: '{path}:{example}'",
    )


def _with_axes(source: ArraySource, axes_at_least: int) -> ArraySource:
    if len(source.shape) >= axes_at_least:
        return source
    raise ShapeError(
        "An array has the axes of its meaning.",
        expected=f"{axes_at_least} or more axes",
        received=f"shape {source.shape} in '{source.name}'",
        fix="name another array, as --patterns.dataset NAME for the patterns",
    )


def _without_names(path: Path, name: str) -> DataError:
    return DataError(
        "The array of a file with only one has no name.",
        expected=f"the address '{path}'",
        received=f"'{path}:{name}'",
        fix=f"leave out the name '{name}', for the patterns --patterns.dataset",
    )


def _joined_rows(sources: Sequence[ArraySource], rows: slice) -> NDArray[Any]:
    start, stop, step = rows.indices(sum(len(source) for source in sources))
    parts, offset = [], 0
    for source in sources:
        end = offset + len(source)
        first = start if start >= offset else start + -(-(offset - start) // step) * step
        if first < min(stop, end):
            parts.append(source.read(slice(first - offset, min(stop, end) - offset, step)))
        offset = end
    if not parts:
        return np.empty((0, *sources[0].shape[1:]), sources[0].dtype)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _listed(infos: Sequence[ArrayInfo]) -> str:
    texts = [f"'{info.name}' {info.shape} {info.dtype}" for info in infos[:MAX_LISTED]]
    more = [f"and {len(infos) - MAX_LISTED} more"] if len(infos) > MAX_LISTED else []
    return "; ".join([*texts, *more]) or "no array of numbers"


def _example(infos: Sequence[ArrayInfo]) -> str:
    """Return the name of the largest array."""
    return max(infos, key=lambda info: np.prod(info.shape, dtype=float)).name if infos else "NAME"
