"""Array in a file that is opened: shape and dtype, and a function that reads rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.errors import DataError, first_line
from ptycho_backend.runtime.memory_map import release

Rows = Callable[[slice], NDArray[Any]]


class ArrayInfo(NamedTuple):
    """
    Array of numbers in a file.

    Parameters
    ----------
    name : str
        Name in the file; empty for the array of a file with only one.
    shape : tuple of int
    dtype : dtype
        MATLAB 4 and 5: dtype of the variable's class, which the stored numbers may undercut.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Opened(NamedTuple):
    """
    Array whose rows are read on demand.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype
    read : callable
        Function from a slice with a positive step to these rows of the first axis.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Rows


@dataclass(frozen=True)
class Format:
    """
    Reader of a file format.

    Parameters
    ----------
    infos : callable
        Function from a path to all arrays of numbers. Its second argument is True if the list must be complete: a
        link to a missing file is then an error.
    open : callable
        Function from a path and a name to the opened array; None for an unknown name.
    named : bool
        True for files that hold several arrays by name.
    """

    infos: Callable[[Path, bool], list[ArrayInfo]]
    open: Callable[[Path, str], Opened | None]
    named: bool = True


def of_array(values: NDArray[Any]) -> Opened:
    """Return a loaded or memory-mapped array as an opened one; pages of a map are released after each read."""

    def read(rows: slice) -> NDArray[Any]:
        part = np.array(values[rows] if values.ndim else values)
        release(values)
        return part

    return Opened(values.shape, values.dtype, read)


def require_numbers(dtype: np.dtype[Any], name: str, path: Path) -> None:
    """Raise an error for text, Python objects and records."""
    if dtype.kind not in "biufc":
        rule, fix = "Arrays of a scan are plain numbers.", "write the array as a plain numeric array"
        received = "Python objects" if dtype.hasobject else f"dtype {dtype}"
        raise DataError.in_field(rule, "numbers", received, fix, name or "the array", str(path))


def damaged(path: Path, kind: str, error: Exception, name: str = "") -> DataError:
    """Return the error of a file that its library cannot read; `kind` is the format, such as "a TIFF file"."""
    reason = getattr(error, "strerror", None) or first_line(error, type(error).__name__)
    return DataError(
        "A file is whole, and of the format that its first bytes name.",
        expected=f"{kind} that was written completely",
        received=f"'{path}'" + (f", array '{name}'" if name else "") + f": {reason}",
        fix="copy or export the file again; check that it was written completely",
    )
