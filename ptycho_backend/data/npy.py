"""Headers of NumPy arrays in files, checked against the bytes that there are (spec: data 3.2)."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

# What NumPy and zipfile raise for bytes that are no array.
DAMAGE = (
    *(OSError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError),
    *(MemoryError, TypeError, KeyError, OverflowError, SyntaxError, tokenize.TokenError),
)


class ArrayHeader(NamedTuple):
    """
    Header of an array.

    Parameters
    ----------
    shape : tuple of int
    fortran : bool
        True if the first axis is contiguous.
    dtype : dtype
    n_bytes : int
        Length of the header, bytes.
    """

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    n_bytes: int


def read_header(stream: IO[bytes], n_bytes: int) -> ArrayHeader:
    """
    Read the header of an array.

    Parameters
    ----------
    stream : binary file
        File at the start of the header.
    n_bytes : int
        Length of header and values.

    Raises
    ------
    ValueError
        If the header is no header, or promises more or fewer values than there are.
    """
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"array format version {version} contains structured data")
    header = ArrayHeader(shape, fortran, dtype, stream.tell())
    promised = math.prod(shape) * dtype.itemsize
    if any(side < 0 for side in shape):
        raise ValueError(f"the header has the shape {shape}")
    if not dtype.hasobject and promised != n_bytes - header.n_bytes:
        held = n_bytes - header.n_bytes
        raise ValueError(f"the header promises {promised} bytes of shape {shape}, dtype {dtype}; {held} are there")
    return header


def mapped(path: Path, offset: int, header: ArrayHeader) -> NDArray[Any]:
    """Return an array in a file as a read-only map; `offset` is the place of its values, bytes."""
    order: Literal["F", "C"] = "F" if header.fortran else "C"
    if math.prod(header.shape) == 0:  # an empty map is refused by the system
        return np.empty(header.shape, header.dtype)
    return np.memmap(path, dtype=header.dtype, mode="r", offset=offset, shape=header.shape, order=order)
