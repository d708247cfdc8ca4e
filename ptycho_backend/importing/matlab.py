"""Variables of MATLAB 4 and 5 files; files of MATLAB 7.3 are HDF5."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.npy import DAMAGE
from ptycho_backend.errors import DataError
from ptycho_backend.importing.opened import ArrayInfo, Format, Opened, damaged, of_array, require_numbers
from ptycho_backend.runtime.memory_map import IN_MEMORY_BYTES, gather_rows

MATLAB_DTYPES = {
    **{"double": "f8", "single": "f4", "logical": "u1", "int8": "i1", "int16": "i2", "int32": "i4", "int64": "i8"},
    **{"uint8": "u1", "uint16": "u2", "uint32": "u4", "uint64": "u8"},
}
MATLAB_KIND = "a MATLAB file of version 4, 5 or 7.3"
HEADER_BYTES, BYTE_ORDER_AT = 128, 126  # of a file of version 5
COMPRESSED = 15  # type of an element that is packed by zlib
NUMBER_TYPES = (1, 2, 3, 4, 5, 6, 7, 9, 12, 13)  # types of elements with integers or floating-point numbers
FLAGS_TYPE, FLAGS_BYTES, COMPLEX_FLAG, NAME_BYTES = 6, 8, 0x0800, 256
FRONT_BYTES = 4096  # of a compressed variable: flags, shape, name and the type of its numbers


def _matlab_variables(path: Path) -> list[tuple[str, tuple[int, ...], str]]:
    import scipy.io

    try:
        found: Any = scipy.io.whosmat(str(path), appendmat=False)
    except (*DAMAGE, IndexError, scipy.io.matlab.MatReadError) as error:
        raise damaged(path, MATLAB_KIND, error) from error
    return [(str(name), tuple(int(side) for side in shape), str(kind)) for name, shape, kind in found]


def _matlab_infos(path: Path, complete: bool) -> list[ArrayInfo]:
    return [
        ArrayInfo(name, shape, np.dtype(MATLAB_DTYPES[kind]))
        for name, shape, kind in _matlab_variables(path)
        if kind in MATLAB_DTYPES
    ]


def _matlab_array(path: Path, name: str) -> Opened | None:
    """Open a variable of MATLAB 4 or 5, which has at most 2 GiB; only this variable is read."""
    kind = next((kind for variable, _, kind in _matlab_variables(path) if variable == name), None)
    if kind is None:
        return None
    if kind not in MATLAB_DTYPES:
        rule, fix = "Arrays of a scan are plain numbers.", "save the array as a variable of its own"
        raise DataError.in_field(rule, "a full array of numbers", f"a variable of class {kind}", fix, name, str(path))
    try:
        _require_number_tags(path, name)
    except (OSError, ValueError, zlib.error, struct.error) as error:
        raise damaged(path, MATLAB_KIND, error, name) from error
    values = _matlab_values(path, name)
    require_numbers(values.dtype, name, path)
    if values.nbytes >= IN_MEMORY_BYTES:
        values = gather_rows(values, np.arange(len(values)))
    return of_array(values)


def _matlab_values(path: Path, name: str) -> NDArray[Any]:
    import scipy.io

    try:
        return np.asarray(scipy.io.loadmat(str(path), appendmat=False, variable_names=[name])[name])
    except (*DAMAGE, IndexError, scipy.io.matlab.MatReadError) as error:
        raise damaged(path, MATLAB_KIND, error, name) from error


def _require_number_tags(path: Path, name: str) -> None:
    """
    Raise a ValueError for a variable of version 5 whose values have no type of numbers, or are longer than the file.

    SciPy looks up a type without a check, and an unknown one ends the process. Of a packed variable only the front is
    checked: its checksum finds damage.
    Source: MathWorks, *MAT-File Format*, level 5.
    """
    with path.open("rb") as stream:
        head = stream.read(HEADER_BYTES)
        order = "<" if head[BYTE_ORDER_AT:] == b"IM" else ">"
        if not head.startswith(b"MATLAB 5"):
            return  # version 4
        end = path.stat().st_size
        while stream.tell() + 8 <= end:
            kind, n_bytes = struct.unpack(f"{order}II", stream.read(8))
            start = stream.tell()
            if start + n_bytes > end:
                raise ValueError("the file ends before its last variable")
            if kind == COMPRESSED:
                front = zlib.decompressobj().decompress(stream.read(min(n_bytes, FRONT_BYTES)), FRONT_BYTES)
                _require_numbers_of(io.BytesIO(front[8:]), order, name)  # behind the tag of the packed variable
            else:
                _require_numbers_of(stream, order, name)
            stream.seek(start + n_bytes)


def _require_numbers_of(stream: IO[bytes], order: str, name: str) -> None:
    """Check the elements of one variable: flags, shape, name, real part and imaginary part."""
    elements = list(itertools.islice(_elements(stream, order), 5))
    if len(elements) < 3 or elements[0][0] != FLAGS_TYPE or len(elements[0][1]) != FLAGS_BYTES:
        raise ValueError("a variable begins without its flags, shape and name")
    (_, flags), _, (_, text), *parts = elements
    if text.decode("latin1") != name:
        return
    is_complex = struct.unpack(f"{order}I", flags[:4])[0] & COMPLEX_FLAG
    kinds = [kind for kind, _ in parts[: 2 if is_complex else 1]]
    if any(kind not in NUMBER_TYPES for kind in kinds):
        raise ValueError(f"the values have the unknown type {max(kinds)}")


def _elements(stream: IO[bytes], order: str) -> Iterator[tuple[int, bytes]]:
    """Yield type and first bytes of the elements of a variable; a small one lies in its own tag."""
    while len(tag := stream.read(8)) == 8:
        kind, n_bytes = struct.unpack(f"{order}II", tag)
        if kind >> 16:
            yield kind & 0xFFFF, tag[4 : 4 + (kind >> 16)]
            continue
        start = stream.tell()
        yield kind, stream.read(min(n_bytes, NAME_BYTES))
        stream.seek(start + n_bytes + -n_bytes % 8)


MATLAB = Format(_matlab_infos, _matlab_array)
