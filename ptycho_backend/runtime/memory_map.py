"""
Memory-mapped arrays: arrays larger than memory lie in a file (spec: data 8).

Touched pages of a map count as memory of the process. Code that visits an array chunk by chunk therefore releases
each chunk; the values stay in the file.
"""

from __future__ import annotations

import math
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
CHUNK = 256  # patterns in memory at a time


def scratch_array(shape: tuple[int, ...], dtype: DTypeLike, order: str = "C") -> NDArray[Any]:
    """
    Return an uninitialised array; a large one lies in a temporary file.

    The file has no name: the system frees it with the array, also if the process is killed.

    Parameters
    ----------
    shape : tuple of int
    dtype : dtype
    order : {"C", "F"}
        Contiguous axis: the last ("C") or the first ("F").

    Raises
    ------
    OutputError
        If the disk has no space. All of it is reserved at once, because a disk that fills up later ends the process.

    Notes
    -----
    Spec: data 8.2.
    """
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize  # Python's integers do not overflow
    if n_bytes < IN_MEMORY_BYTES:
        return np.empty(shape, dtype=dtype, order="F" if order == "F" else "C")
    folder = scratch_folder()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            _reserve(file.fileno(), n_bytes)
            return np.memmap(file, dtype=dtype, mode="r+", shape=shape, order="F" if order == "F" else "C")
    except (OSError, OverflowError) as error:  # OverflowError: more bytes than any file may have
        raise OutputError(
            "Arrays that do not fit in memory need space on a disk.",
            expected=f"{n_bytes / 2**30:.1f} GiB free in '{folder}'",
            received=getattr(error, "strerror", None) or str(error),
            fix="free space there, or let the environment variable TMPDIR name a folder on a larger disk",
        ) from error


def scratch_folder() -> Path:
    """Return the folder of temporary files: TMPDIR, else /var/tmp, because /tmp is often in memory."""
    large = Path("/var/tmp")
    if "TMPDIR" not in os.environ and large.is_dir() and os.access(large, os.W_OK):
        return large
    return Path(tempfile.gettempdir())


def release(array: NDArray[Any]) -> None:
    """Release the memory of the touched pages of a mapped array; other arrays stay as they are."""
    base: Any = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap) and base.mode == "c":
            return  # changed pages of a private map exist only in memory
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def chunks(array: NDArray[Any], size: int = CHUNK) -> Iterator[NDArray[Any]]:
    """Yield an array in chunks of rows; one chunk at a time is in memory."""
    for start in range(0, len(array), size):
        yield array[start : start + size]
        release(array)


def rows_per_block(array: NDArray[Any]) -> int:
    """Return the number of rows in a block that is copied at once."""
    return max(1, BLOCK_BYTES * len(array) // max(array.nbytes, 1))


def gather_rows(array: NDArray[Any], rows: NDArray[np.integer]) -> NDArray[Any]:
    """Return a copy of rows in the given order, made block by block."""
    copy = scratch_array((len(rows), *array.shape[1:]), array.dtype)
    step = rows_per_block(array)
    for start in range(0, len(rows), step):
        block = slice(start, start + step)
        copy[block] = array[rows[block]]
        release(array)
        release(copy)
    return copy


def _reserve(descriptor: int, n_bytes: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, n_bytes)
    else:
        os.truncate(descriptor, n_bytes)
