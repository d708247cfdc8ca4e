"""Arrays in HDF5 files of any layout, through links, and with values in other files."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.fields import opened_hdf5
from ptycho_backend.data.hdf5_sources import (
    broken_link,
    dataset_at,
    numeric_dtype,
    read_values,
    require_sources,
    resolved,
)
from ptycho_backend.errors import DataError
from ptycho_backend.importing.opened import ArrayInfo, Format, Opened

MATLAB_GROUPS = ("#refs#", "#subsystem#")  # contents of cells and objects in MATLAB 7.3
MATLAB_TEXT = (b"char", b"cell", b"function_handle", b"canonical empty")  # classes that are stored as numbers


def hdf5_infos(path: Path, complete: bool) -> list[ArrayInfo]:
    """
    Return all arrays of numbers of an HDF5 file, each under its shortest name; those behind links too.

    Parameters
    ----------
    path : path
    complete : bool
        True makes a link to a missing file an error.

    Raises
    ------
    DataError
        If the file is damaged, or a linked one is missing.
    """
    with opened_hdf5(path) as file:
        return [info for name, dataset in _datasets(file, path, complete) if (info := _info(dataset, name, path))]


def hdf5_array(path: Path, name: str) -> Opened | None:
    """
    Open a dataset; None for a name that is missing or that of a group.

    Raises
    ------
    DataError
        If a file that it needs is missing, or if it holds no numbers.
    """
    import h5py

    source = str(path)
    with opened_hdf5(path) as file:
        if not isinstance(resolved(file, name), h5py.Dataset):
            problem = broken_link(file, name, source)
            if problem is not None:
                raise problem
            return None
        dataset = dataset_at(file, name, source)
        dtype = numeric_dtype(dataset, name, source)
        if _is_text(dataset):
            rule, fix = "Arrays of a scan are plain numbers.", "name an array of numbers"
            raise DataError.in_field(rule, "numbers", "text, or an empty variable of MATLAB", fix, name, source)
        require_sources(dataset, name, source)
        shape = tuple(int(side) for side in dataset.shape)

    def read(rows: slice) -> NDArray[Any]:
        with opened_hdf5(path) as file:
            opened = dataset_at(file, name, source)
            return np.asarray(read_values(opened, rows if opened.shape else (), name, source))

    return Opened(shape, dtype, read)


HDF5 = Format(hdf5_infos, hdf5_array)


def _info(dataset: Any, name: str, path: Path) -> ArrayInfo | None:
    """Return the description of a dataset of numbers, None for another one."""
    if dataset.shape is None or _is_text(dataset):
        return None
    try:
        dtype = numeric_dtype(dataset, name, str(path))
    except DataError:
        return None
    return ArrayInfo(name, tuple(int(side) for side in dataset.shape), dtype)


def _is_text(dataset: Any) -> bool:
    if "MATLAB_class" not in dataset.attrs:
        return False
    return bool(np.any(dataset.attrs["MATLAB_class"] in MATLAB_TEXT)) or "MATLAB_empty" in dataset.attrs


def _datasets(file: Any, path: Path, complete: bool) -> Iterator[tuple[str, Any]]:
    """Yield all datasets with their names, breadth first, each object once."""
    import h5py

    root = file["/"]
    seen, opened, queue = {_token(root)}, [root], deque([("", root)])
    while queue:
        prefix, group = queue.popleft()
        # An array with several names in a group is listed under its own, not under that of a link.
        for key in sorted(group, key=lambda key: not isinstance(group.get(key, getlink=True), h5py.HardLink)):
            if isinstance(key, bytes) or key in MATLAB_GROUPS:  # bytes: a name that is no UTF-8
                continue
            name = f"{prefix}/{key}"
            item = resolved(group, key)
            if item is None:
                problem = broken_link(file, name, str(path)) if complete else None
                if problem is not None:
                    raise problem
                continue
            if _token(item) in seen:
                continue
            seen.add(_token(item))
            if isinstance(item, h5py.Dataset):
                yield name, item
            elif isinstance(item, h5py.Group):
                opened.append(item)  # an open object keeps the number of its file, by which it is recognised
                queue.append((name, item))


def _token(item: Any) -> tuple[int, int]:
    """Return the number of a file and the address of an object in it."""
    import h5py

    info = h5py.h5o.get_info(item.id)
    return info.fileno, info.addr
