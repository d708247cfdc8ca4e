"""
Arrays larger than memory: they lie in a file, and only the part in use is held (spec: data 8).

Pages of a map count as memory of the process once they are touched. So whoever goes through such an array chunk by
chunk gives them back; the values stay in the file.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ptycho_backend.errors import OutputError

IN_MEMORY_BYTES = 2**28  # smaller arrays are held in memory
BLOCK_BYTES = 2**26  # copied at a time
CHUNK = 256  # patterns visited at a time


def scratch_array(shape: tuple[int, ...], dtype: DTypeLike, order: str = "C") -> NDArray[Any]:
    """
    Return an array for values yet to come; a large one lies in a temporary file that nobody has to remove.

    The file has no name: the system frees it when the array is gone, also if the process is killed.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype
    order : {"C", "F"}
        Which axis is contiguous, the last or the first.

    Raises
    ------
    OutputError
        If the disk has no room for it. All of it is reserved at once: a full disk met later would end the process.

    Notes
    -----
    Spec: data 8.2.
    """
    n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if n_bytes < IN_MEMORY_BYTES:
        return np.empty(shape, dtype=dtype, order="F" if order == "F" else "C")
    folder = scratch_folder()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            _reserve(file.fileno(), n_bytes)
            return np.memmap(file, dtype=dtype, mode="r+", shape=shape, order="F" if order == "F" else "C")
    except OSError as error:
        raise OutputError(
            "Arrays that do not fit in memory need room on a disk.",
            expected=f"{n_bytes / 2**30:.1f} GiB free in '{folder}'",
            received=error.strerror or str(error),
            fix="free space there, or let the environment variable TMPDIR name a folder on a larger disk",
        ) from error


def scratch_folder() -> Path:
    """Return where temporary files of any size belong: TMPDIR, else /var/tmp, because /tmp is often kept in memory."""
    large = Path("/var/tmp")
    if "TMPDIR" not in os.environ and large.is_dir() and os.access(large, os.W_OK):
        return large
    return Path(tempfile.gettempdir())


def release(array: NDArray[Any]) -> None:
    """Give back the memory that the touched part of a mapped array takes; for any other array this does nothing."""
    base: Any = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap) and base.mode == "c":
            return  # changed pages of a private map exist in memory only
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def chunks(array: NDArray[Any], size: int = CHUNK) -> Iterator[NDArray[Any]]:
    """Yield an array in parts of some rows, of which one at a time is held."""
    for start in range(0, len(array), size):
        yield array[start : start + size]
        release(array)


def rows_at_a_time(array: NDArray[Any]) -> int:
    """Return how many rows of an array make a block that is worth a copy of its own."""
    return max(1, BLOCK_BYTES * len(array) // max(array.nbytes, 1))


def gathered(array: NDArray[Any], rows: NDArray[np.integer]) -> NDArray[Any]:
    """Return a copy of some rows in their order, made block by block."""
    found = scratch_array((len(rows), *array.shape[1:]), array.dtype)
    step = rows_at_a_time(array)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        found[part] = array[rows[part]]
        release(array)
        release(found)
    return found


def _reserve(descriptor: int, n_bytes: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, n_bytes)
    else:
        os.truncate(descriptor, n_bytes)
