"""Files behind a dataset of HDF5: linked, external and virtual sources, and filters (spec: data 3.1, 11)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.errors import DataError, first_line

COMPLEX_FIELDS = (("r", "i"), ("real", "imag"), ("re", "im"))  # of compounds that stand for complex numbers
FILTERS = {
    **{1: "gzip", 4: "szip", 307: "bzip2", 32000: "LZF", 32001: "Blosc", 32004: "LZ4", 32008: "bitshuffle"},
    **{32013: "ZFP", 32015: "Zstandard", 32017: "SZ", 32018: "FCIDECOMP", 32024: "SZ3", 32026: "Blosc2"},
}
BLOCK_NUMBER = "%b"  # in the name of a virtual source: one file for each block
UNLIMITED = 2**64 - 1
MAX_NESTED = 8  # virtual datasets of virtual datasets

Needed = tuple[tuple[int, ...], int]  # least shape of a virtual source, or () for any; least number of values


def load_filters() -> None:
    """Register the compression filters of hdf5plugin, if it is installed."""
    try:
        import hdf5plugin  # noqa: F401
    except ImportError:  # a file that needs one of its filters then ends in an error that names the package
        return


def not_numeric(expected: str, received: str, key: str, source: str) -> DataError:
    """Return the error of a field without numbers."""
    rule, fix = "Fields of a scan are plain numbers.", "write the field as a plain numeric array"
    return DataError.in_field(rule, expected, received, fix, key, source)


def holds(group: Any, key: str) -> bool:
    """Return True if a group has this name, also for a link whose target is missing."""
    return group.get(key, getlink=True) is not None


def resolved(group: Any, key: str) -> Any:
    """Return the object of a name in a group; None for a missing one, and for links without end."""
    try:
        return group.get(key)
    except (OSError, RuntimeError, ValueError):
        return None


def dataset_at(group: Any, key: str, source: str) -> Any:
    """
    Open a dataset.

    Values in external raw files are looked up next to the HDF5 file first, then in the current folder.

    Parameters
    ----------
    group : h5py.Group
    key : str
        Name of the dataset, with slashes.
    source : str
        Path of the file, for messages.

    Returns
    -------
    h5py.Dataset

    Raises
    ------
    DataError
        If the name is missing or a group. Also for a missing file behind a link, and for a missing or short raw file.

    Notes
    -----
    Spec: data 12.
    """
    import h5py

    try:
        dataset = group[key]
    except (KeyError, OSError, RuntimeError, ValueError) as error:
        raise broken_link(group, key, source) or _no_dataset(key, source) from error
    if not isinstance(dataset, h5py.Dataset):
        raise _no_dataset(key, source)
    if dataset.shape is None:
        raise not_numeric("numbers", "a dataset without values", key, source)
    if dataset.external is None or not _external_files_beside(dataset, key, source):
        return dataset
    file, name = dataset.file, dataset.name
    del dataset  # HDF5 refuses a second prefix while the dataset is open
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_efile_prefix(b"${ORIGIN}")
    return h5py.Dataset(h5py.h5d.open(file.id, name.encode(), access))


def numeric_dtype(dataset: Any, key: str, source: str) -> np.dtype[Any]:
    """
    Return the dtype of the numbers of a dataset; a compound of real and imaginary part counts as complex.

    Raises
    ------
    DataError
        If the values are text, objects, references or another compound.
    """
    try:
        dtype = dataset.dtype
    except (TypeError, ValueError) as error:  # h5py's errors for types without a NumPy equivalent
        raise not_numeric("numbers", first_line(error), key, source) from error
    complex_dtype = dtype_of_compound(dtype)
    if complex_dtype is None and dtype.kind not in "biufc":
        raise not_numeric("numbers", f"dtype {dtype}", key, source)
    return complex_dtype or dtype


def dtype_of_compound(dtype: np.dtype[Any]) -> np.dtype[Any] | None:
    """Return the complex dtype of a compound of real and imaginary part; None for another dtype."""
    if dtype.names not in COMPLEX_FIELDS:
        return None
    parts = [dtype[name] for name in dtype.names]
    if any(part.kind not in "iuf" or part.shape for part in parts):
        return None
    return np.result_type(np.complex64, *parts)


def read_values(dataset: Any, rows: Any, key: str, source: str) -> NDArray[Any]:
    """
    Read a part of a dataset of numbers.

    Parameters
    ----------
    dataset : h5py.Dataset
    rows : slice or ()
        Rows of the first axis; () for all values.
    key, source : str
        Name and file, for messages.

    Raises
    ------
    DataError
        If a filter is missing or cannot unpack the values; the message names its number.
    OSError
        If the file is damaged otherwise; the caller names the file.
    """
    try:
        values = np.asarray(dataset[rows])
    except (OSError, RuntimeError) as error:
        problem = _filter_problem(dataset, key, source)
        if problem is None:
            raise
        raise problem from error
    except (TypeError, ValueError) as error:
        raise not_numeric("numbers", first_line(error), key, source) from error
    except MemoryError as error:
        size = f"shape {dataset.shape}, dtype {dataset.dtype}"
        raise _damaged_values(f"{size}: more than the memory holds", key, source) from error
    dtype = dtype_of_compound(values.dtype)
    if dtype is None:
        return values
    real, imaginary = (values[name] for name in values.dtype.names or ())
    joined = np.empty(values.shape, dtype)
    joined.real, joined.imag = real, imaginary
    return joined


def require_sources(dataset: Any, key: str, source: str) -> None:
    """
    Raise an error if values of a virtual dataset are missing; HDF5 would return fill values for them.

    Every source must exist and have at least the shape that is taken from it. Rows without a source stay fill values,
    as in the gaps between the modules of a detector.

    Raises
    ------
    DataError
        The message names the missing file or dataset.

    Notes
    -----
    Spec: data 12.
    """
    for _ in _with_sources(dataset, key, source):
        pass


def _with_sources(dataset: Any, key: str, source: str, depth: int = 0) -> Iterator[Any]:
    """Yield a dataset and, while their files are open, the sources of a virtual one."""
    import h5py

    yield dataset
    if not dataset.is_virtual or depth > MAX_NESTED:
        return
    master = Path(_file_name(dataset.file))
    for (file_name, name), needed in _needed_shapes(dataset, master, key, source).items():
        if file_name == ".":
            yield from _with_sources(_source(dataset.file, name, needed, key, source), key, source, depth + 1)
            continue
        path = _source_path(file_name, master)
        if path is None:
            raise _missing(f"no '{file_name}'", master, key, source)
        try:
            file = h5py.File(path, "r")
        except OSError as error:
            raise _missing(f"'{path}', which is no whole HDF5 file", master, key, source) from error
        with file:
            yield from _with_sources(_source(file, name, needed, key, source), key, source, depth + 1)


def _source(file: Any, name: str, needed: Needed, key: str, source: str) -> Any:
    """Return a source of a virtual dataset that has at least the needed shape and number of values."""
    import h5py

    path = Path(_file_name(file))
    dataset = resolved(file, name)
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        raise _missing(f"no dataset '{name}' in '{path}'", path, key, source)
    shape, size = needed
    too_small = len(shape) == dataset.ndim and any(a > b for a, b in zip(shape, dataset.shape, strict=True))
    if too_small or dataset.size < size:
        wanted = f"shape {shape}" if too_small else f"{size} values"
        received = f"shape {dataset.shape} instead of at least {wanted} in '{name}' of '{path}'"
        raise _missing(received, path, key, source)
    return dataset


def _needed_shapes(dataset: Any, master: Path, key: str, source: str) -> dict[tuple[str, str], Needed]:
    """Return the least shape and number of values of each source, by file and name."""
    needed: dict[tuple[str, str], Needed] = {}
    for place in dataset.virtual_sources():
        numbered = BLOCK_NUMBER in place.file_name or BLOCK_NUMBER in place.dset_name
        names = _numbered(place, dataset, master, key, source) if numbered else [(place.file_name, place.dset_name)]
        shape, size = _needed_shape(place)
        for name in names:
            before, fewest = needed.get(name, ((), 0))
            joint = tuple(max(pair) for pair in zip(before, shape, strict=True)) if before and shape else shape
            needed[name] = joint or before, max(fewest, size)
    return needed


def _needed_shape(place: Any) -> Needed:
    """Return the shape up to the last selected value, and their number; nothing for a selection without end."""
    try:
        last = place.src_space.get_select_bounds()[1]
        return tuple(int(end) + 1 for end in last), 0
    except (RuntimeError, ValueError):  # all values, or a selection that grows with the file
        pass
    try:
        return (), int(place.vspace.get_select_npoints())
    except (RuntimeError, ValueError):
        return (), 0


def _numbered(place: Any, dataset: Any, master: Path, key: str, source: str) -> list[tuple[str, str]]:
    """Return the sources of a virtual dataset that has one for each block, by number; a gap is an error."""
    start, stride, count, _ = place.vspace.get_regular_hyperslab()
    axis = count.index(UNLIMITED)
    n_blocks = max(-(-(dataset.shape[axis] - start[axis]) // stride[axis]), 0)
    if BLOCK_NUMBER in place.file_name:
        # HDF5 ends the dataset at the first missing file, so a file behind it would be lost in silence.
        expression = re.escape(Path(place.file_name).name).replace(re.escape(BLOCK_NUMBER), r"(\d+)")
        folder = master.parent / Path(place.file_name).parent
        names = [item.name for item in folder.iterdir()] if folder.is_dir() else []
        later = [int(found[1]) for name in names if (found := re.fullmatch(expression, name))]
        if max(later, default=-1) >= n_blocks or n_blocks == 0:
            missing = place.file_name.replace(BLOCK_NUMBER, str(n_blocks))
            raise _missing(f"no '{missing}'", master, key, source)
    texts = (place.file_name, place.dset_name)
    return [
        (texts[0].replace(BLOCK_NUMBER, str(number)), texts[1].replace(BLOCK_NUMBER, str(number)))
        for number in range(n_blocks)
    ]


def _source_path(name: str, master: Path) -> Path | None:
    """Return the path of a virtual source, searched for in the folders that HDF5 searches; None for a missing file."""
    given = Path(name)
    if given.is_absolute() and given.is_file():
        return given
    relative = Path(given.name) if given.is_absolute() else given
    prefixes = os.environ.get("HDF5_VDS_PREFIX", "").replace("${ORIGIN}", str(master.parent)).split(os.pathsep)
    folders = [*(Path(prefix) for prefix in prefixes if prefix), master.parent, Path(), master.resolve().parent]
    return next((folder / relative for folder in folders if (folder / relative).is_file()), None)


def _external_files_beside(dataset: Any, key: str, source: str) -> bool:
    """Return True for whole raw files next to the HDF5 file, False for whole ones in the folder that HDF5 takes."""
    master = Path(_file_name(dataset.file))
    names = [os.fsdecode(name) for name, _, _ in dataset.external]
    prefix = os.environ.get("HDF5_EXTFILE_PREFIX", "").replace("${ORIGIN}", str(master.parent))
    beside = not prefix and all((master.parent / name).is_file() for name in names)
    folder = master.parent if beside else Path(prefix)
    left = dataset.nbytes
    for name, (_, offset, size) in zip(names, dataset.external, strict=True):
        needed = min(size, left)
        if not (folder / name).is_file():
            raise _missing(f"no '{name}'", master, key, source)
        held = (folder / name).stat().st_size
        if held < offset + needed:
            raise _missing(f"'{name}' with {held} instead of {offset + needed} bytes", master, key, source)
        left -= needed
    return beside


def broken_link(group: Any, key: str, source: str, depth: int = 0) -> DataError | None:
    """
    Return the error of the first external link on the way to a name whose file or target is missing.

    None if there is no such link. Soft links are followed, because they may lead to an external one.
    """
    import h5py

    parts = [part for part in key.split("/") if part]
    place = group.file if key.startswith("/") else group
    for number, part in enumerate(parts):
        if not isinstance(place, h5py.Group):
            return None
        link, found = place.get(part, getlink=True), resolved(place, part)
        if found is None and isinstance(link, h5py.SoftLink) and depth < MAX_NESTED:
            return broken_link(place, "/".join([link.path, *parts[number + 1 :]]), source, depth + 1)
        if found is None and isinstance(link, h5py.ExternalLink):
            master, target = Path(_file_name(place.file)), Path(link.filename)
            folders = (master.parent / target, target, master.parent / target.name)
            missing = f"no '{target}'"
            if any(path.is_file() for path in folders):
                missing = f"no '{link.path}' in '{target}', or '{target}' is no whole HDF5 file"
            return _missing(missing, master, key, source)
        place = found
    return None


def _filter_problem(dataset: Any, key: str, source: str) -> DataError | None:
    """Return the error of values that their filters cannot unpack; None for values without compression."""
    import h5py

    found: dict[int, bool] = {}
    for part in _with_sources(dataset, key, source):
        settings = part.id.get_create_plist()
        codes = [settings.get_filter(number)[0] for number in range(settings.get_nfilters())]
        found |= {code: bool(h5py.h5z.filter_avail(code)) for code in codes}
    packed = [_filter_text(code) for code in found if code not in (2, 3)]
    missing = [code for code, available in found.items() if not available]
    if not packed:
        return None
    if not missing:
        return _damaged_values(f"values that {' and '.join(packed)} cannot unpack", key, source)
    names = ", ".join(_filter_text(code) for code in missing)
    in_plugin = all(code in FILTERS for code in missing)
    return DataError.in_field(
        "Compressed values need the filter that packed them.",
        f"an HDF5 filter plugin for {names}",
        "compression without its filter",
        "pip install --upgrade hdf5plugin"
        + ("" if in_plugin else ", or let HDF5_PLUGIN_PATH name the folder of the plugin of this filter"),
        *(key, source),
    )


def _filter_text(code: int) -> str:
    return f"{FILTERS[code]} (HDF5 filter {code})" if code in FILTERS else f"HDF5 filter {code}"


def _file_name(file: Any) -> str:
    return os.fsdecode(file.filename)


def _damaged_values(received: str, key: str, source: str) -> DataError:
    rule, expected = "Compressed values are whole.", "values that unpack to the shape of their dataset"
    fix = "copy or export the file again; check that it was written completely"
    return DataError.in_field(rule, expected, received, fix, key, source)


def _missing(received: str, place: Path, key: str, source: str) -> DataError:
    rule = "Values in other files need these files."
    expected = f"every file that '{place}' refers to"
    fix = f"copy the missing file to '{place.parent}', or name a file that holds the values themselves"
    return DataError.in_field(rule, expected, received, fix, key, source)


def _no_dataset(key: str, source: str) -> DataError:
    received, fix = "a group or a broken link", "store the array itself under this name"
    return DataError.in_field("Fields of a scan are datasets.", "an HDF5 dataset", received, fix, key, source)
