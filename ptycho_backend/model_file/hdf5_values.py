"""
Values of an HDF5 file in memory, each checked before it takes memory (spec: model_file 4.3).

Every array, number and text of a model file and of a `.keras` file is read here. A value is stored in the file itself,
has a plain dtype, and is finite.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.errors import first_line
from ptycho_backend.model_file.zip_members import MAX_MEMBER_BYTES, MAX_RATIO

MAX_ARRAYS = 20_000
MAX_DEPTH = 32  # nested groups
SMALLEST, LARGEST = float(np.finfo(np.float32).smallest_subnormal), float(np.finfo(np.float32).max)


@contextmanager
def opened_values(member: str, content: bytes) -> Iterator[Any]:
    """
    Open the content of an HDF5 member.

    Raises
    ------
    ValueError
        For every error inside the block; its message names the member.
    """
    import h5py

    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            yield file
    except (OSError, KeyError, RuntimeError, TypeError, ValueError, AttributeError, MemoryError) as error:
        text = first_line(error, type(error).__name__)
        raise ValueError(f"member '{member}' cannot be read ({text})") from None


def hard_link(group: Any, name: str) -> Any:
    """
    Return an object that is stored in the file; a link to another place is an error.

    Raises
    ------
    ValueError
    """
    import h5py

    if not isinstance(group, h5py.Group) or not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"'{name}' is missing, or a link out of the file")
    return group[name]


def group_at(group: Any, name: str) -> Any:
    """
    Return a group that is stored in the file.

    Raises
    ------
    ValueError
    """
    import h5py

    item = hard_link(group, name)
    if not isinstance(item, h5py.Group):
        raise ValueError(f"'{name}' is no group")
    return item


def array_at(group: Any, name: str, kind: str = "f") -> NDArray[Any]:
    """
    Return an array of finite numbers as float32, or as complex64 for the kind "c".

    Parameters
    ----------
    group : h5py.Group
    name : str
    kind : {"f", "c"}
        Kind of the stored dtype.

    Raises
    ------
    ValueError
        If the values are in another file, are not stored, or have another kind of dtype. Also if they need more
        memory than the file explains, or float32 cannot hold them.
    """
    import h5py

    item = hard_link(group, name)
    plain = isinstance(item, h5py.Dataset) and item.shape is not None and item.dtype.kind == kind
    if not plain or item.external or item.is_virtual:
        raise ValueError(f"'{name}' does not hold plain numbers")
    _check_size(item, name)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
        values = np.asarray(item[()], dtype=np.complex64 if kind == "c" else np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"'{name}' holds numbers that are not finite, or that float32 cannot hold")
    return values


def arrays_at(group: Any, name: str) -> dict[str, NDArray[np.float32]]:
    """
    Return all arrays below a group by their path; groups may be nested.

    Raises
    ------
    ValueError
        Also if an object has two names: hard links could repeat the content of a file without end.
    """
    arrays: dict[str, NDArray[np.float32]] = {}
    _add_arrays(group_at(group, name), "", arrays, set(), 0)
    return arrays


def number_at(item: Any, name: str) -> float:
    """
    Return a numeric attribute as a finite number.

    Raises
    ------
    ValueError
    """
    values = np.asarray(item.attrs[name])
    if values.shape != () or values.dtype.kind not in "iuf":
        raise ValueError(f"attribute '{name}' is no number")
    number = float(values)
    if not math.isfinite(number):
        raise ValueError(f"{name} is {number} instead of a finite number")
    return number


def positive_at(item: Any, name: str) -> float:
    """
    Return a numeric attribute as a number above zero that float32 can hold.

    Raises
    ------
    ValueError
    """
    number = number_at(item, name)
    if not SMALLEST <= number <= LARGEST:
        raise ValueError(f"{name} is {number} instead of a positive number that float32 can hold")
    return number


def text_at(item: Any, name: str) -> str:
    """
    Return a text attribute.

    Raises
    ------
    ValueError
    """
    value = item.attrs[name]
    text = value.decode() if isinstance(value, bytes) else value
    if not isinstance(text, str):
        raise ValueError(f"attribute '{name}' is no text")
    text.encode()  # h5py keeps bytes that are not UTF-8 as surrogates
    return text


def _check_size(item: Any, name: str) -> None:
    """Compare the size of an array with its bytes in the file, before memory is taken."""
    stored, filters = item.id.get_storage_size(), item.id.get_create_plist().get_nfilters()
    held = stored * MAX_RATIO if filters else stored
    if item.nbytes > min(held, MAX_MEMBER_BYTES):
        raise ValueError(f"'{name}' claims {item.nbytes} bytes of shape {item.shape}, of which {stored} are stored")


def _add_arrays(group: Any, prefix: str, arrays: dict[str, NDArray[np.float32]], seen: set[int], depth: int) -> None:
    import h5py

    if depth > MAX_DEPTH:
        raise ValueError(f"groups nested more than {MAX_DEPTH} deep")
    for name in group:
        item = hard_link(group, name)
        address = h5py.h5o.get_info(item.id).addr
        if address in seen or len(arrays) >= MAX_ARRAYS:
            raise ValueError(f"'{prefix}{name}' is there twice, or there are more than {MAX_ARRAYS} arrays")
        seen.add(address)
        if isinstance(item, h5py.Group):
            _add_arrays(item, f"{prefix}{name}/", arrays, seen, depth + 1)
        else:
            try:
                arrays[f"{prefix}{name}"] = array_at(group, name)
            except ValueError as error:
                raise ValueError(f"{error}, in '{prefix}'" if prefix else str(error)) from None
