"""What every file reader needs: fields, checked so that errors name file and field (spec: data 3)."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.errors import DataError, OutputError, ShapeError, nearest_name
from ptycho_backend.runtime.memory_map import IN_MEMORY_BYTES, release, rows_at_a_time, scratch_array

logger = logging.getLogger(__name__)

Fields = dict[str, Any]  # keyword arguments of Scan


def require_keys(required: Sequence[str], found: Iterable[str], source: str) -> None:
    """Raise an error that lists every missing key, what the file holds instead, and the nearest names."""
    present = sorted(str(key) for key in found)  # HDF5 gives names that are no text as bytes
    missing = [key for key in required if key not in present]
    if not missing:
        return
    spare = [key for key in present if key not in required]
    hints = [f"'{nearest_name(key, spare)}' to '{key}'" for key in missing if nearest_name(key, spare)]
    raise DataError(
        "A scan file holds every required key.",
        expected=f"the keys {', '.join(required)}",
        received=f"no {', '.join(repr(key) for key in missing)} in '{source}', "
        f"which holds {', '.join(present) or 'nothing'}",
        fix=f"rename {'; '.join(hints)}" if hints else "export the scan again with these keys",
    )


def numbers(values: Any, key: str, source: str, kinds: str = "biuf") -> NDArray[Any]:
    """Return an array as it is, after checking that it holds (real) numbers."""
    array: NDArray[Any] = np.asanyarray(values)
    if array.dtype.kind not in kinds:
        raise DataError(
            "Fields of a scan are plain numbers.",
            expected="real numbers" if kinds == "biuf" else "numbers",
            received=f"dtype {array.dtype}, field '{key}' of '{source}'",
            fix="write the field as a plain numeric array",
        )
    return array


def real_number(value: Any, key: str, source: str) -> float:
    """Return one real number, from a scalar or from an array whose values are all the same."""
    array = numbers(value, key, source)
    if array.size == 0 or not np.isfinite(array).all() or np.ptp(array.astype(np.float64)) > 0:
        raise DataError(
            "This field is one number for the whole scan.",
            expected="one finite number",
            received=f"{array.size} value(s) of shape {array.shape}, field '{key}' of '{source}'",
            fix="write one scan to a file, with one value of this field",
        )
    return float(array.flat[0])


def positive_number(value: Any, key: str, source: str) -> float:
    """Return one number above zero."""
    number = real_number(value, key, source)
    if number <= 0:
        raise DataError(
            "Lengths and energies are above zero.",
            expected="a number > 0",
            received=f"{number:g}, field '{key}' of '{source}'",
            fix="write the value that the scan was measured with, in SI units",
        )
    return number


def stacked(y: Any, x: Any, keys: tuple[str, str], source: str) -> NDArray[np.float64]:
    """Stack two coordinate lists as float64 (position, 2), (y, x); `keys` names them in that order."""
    columns = []
    for key, values in zip(keys, (y, x), strict=True):
        column = np.atleast_1d(np.squeeze(numbers(values, key, source)))
        if column.ndim != 1:
            raise ShapeError(
                "Scan coordinates are lists of numbers.",
                expected="shape (position,)",
                received=f"shape {np.shape(values)}, field '{key}' of '{source}'",
                fix="write one number for every pattern",
            )
        columns.append(column.astype(np.float64))
    if len(columns[0]) != len(columns[1]):
        raise ShapeError(
            "Every position has a y and an x.",
            expected=f"'{keys[0]}' and '{keys[1]}' of equal length",
            received=f"{len(columns[0])} and {len(columns[1])} values in '{source}'",
            fix="check that both coordinates come from the same scan",
        )
    return np.stack(columns, axis=1)


def matched_positions(positions: NDArray[Any], n_patterns: int, source: str) -> NDArray[Any]:
    """Drop positions after the last pattern, with a warning: an interrupted scan has planned more of them."""
    if len(positions) > n_patterns > 0:
        logger.warning(
            "'%s' holds %d positions for %d patterns: the last %d are dropped",
            *(source, len(positions), n_patterns, len(positions) - n_patterns),
        )
    return positions[:n_patterns] if n_patterns > 0 else positions


def from_window_middles(positions_px: NDArray[Any], N: int) -> NDArray[np.float64]:
    """
    Return scan positions, which name pixel ``[N//2, N//2]`` of a window, from those of the windows' middles.

    Parameters
    ----------
    positions_px : float, shape (position, 2), (y, x)
        Where pixel (N − 1)/2 falls, as ptychodus counts.
    N : int
        Side of the window, pixels.

    Notes
    -----
    Spec: data 1.4.
    """
    return np.asarray(positions_px, dtype=np.float64) + behind_middle_px(N)


def to_window_middles(positions_px: NDArray[Any], N: int) -> NDArray[np.float64]:
    """Return the positions of the windows' middles; the inverse of :func:`from_window_middles`."""
    return np.asarray(positions_px, dtype=np.float64) - behind_middle_px(N)


def behind_middle_px(N: int) -> float:
    """Return how far pixel N//2 of a window lies behind its middle: half a pixel for even N."""
    return N // 2 - (N - 1) / 2


def first_plane(array: NDArray[Any], key: str, source: str) -> NDArray[Any]:
    """Return the (mode, y, x) probe of a file that stacks (variation, mode, y, x)."""
    if array.ndim != 4:
        return array
    if len(array) > 1:
        logger.warning("'%s' of '%s' varies over the scan (%d planes): the first is used", key, source, len(array))
    return np.asarray(array[0])


def single_layer(obj: Any, key: str, source: str) -> NDArray[Any] | None:
    """Return the object as (y, x), None where the file holds an empty one."""
    array = numbers(obj, key, source, kinds="biufc")
    if array.size == 0:
        return None
    if array.ndim == 3 and len(array) > 1:
        raise ShapeError(
            "An object has one layer.",
            expected="shape (y, x) or (1, y, x)",
            received=f"{len(array)} layers, shape {array.shape}, field '{key}' of '{source}'",
            fix="multiply the layers into one, or leave the object out of the file",
        )
    return array[0] if array.ndim == 3 else array


def pattern_stack(values: Any, key: str, source: str) -> NDArray[Any]:
    """Return patterns as they are, after checking that they have three axes."""
    array = numbers(values, key, source, kinds="biufc")
    if array.ndim != 3:
        raise ShapeError(
            "Diffraction patterns are a stack of images.",
            expected="shape (position, y, x)",
            received=f"shape {array.shape}, field '{key}' of '{source}'",
            fix="stack the patterns of one scan along a first axis",
        )
    return array


def good_pixels(bad_pixels: Any, key: str, source: str) -> NDArray[np.bool_]:
    """Return a mask, True where a pixel is good, from an array that is not 0 where it is bad."""
    return np.asarray(numbers(bad_pixels, key, source) == 0)


def json_mapping(text: str, key: str, source: str) -> dict[str, Any]:
    """Return the mapping that a JSON text holds."""
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise DataError(
            "Metadata is a mapping in JSON.",
            expected='text such as {"beamline": "2-ID-D"}',
            received=f"{text[:60]!r}, field '{key}' of '{source}'",
            fix="write it as numpy.array(json.dumps({...}))",
        )
    return values


@contextmanager
def opened_hdf5(path: Path) -> Iterator[Any]:
    """Open an HDF5 file for reading; whatever is wrong with it becomes an error that names it."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except OutputError:  # no room for what the file holds: nothing is wrong with the file
        raise
    except (OSError, RuntimeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise DataError(
            "A scan file is a whole HDF5 file.",
            expected="a file written by h5py or another HDF5 library",
            received=f"'{path}': {reason}",
            fix="copy or export the file again; check that it was written completely",
        ) from error


def hdf5_array(file: Any, key: str, source: str) -> NDArray[Any]:
    """
    Return an HDF5 dataset of numbers in its own dtype.

    A large one is not read: it is mapped where it lies in one piece in the file, else unpacked block by block
    (spec: data 8).
    """
    import h5py

    dataset = file.get(key)
    if not isinstance(dataset, h5py.Dataset):
        raise DataError(
            "Fields of a scan are datasets.",
            expected="an HDF5 dataset",
            received=f"a group or a broken link, field '{key}' of '{source}'",
            fix="store the array itself under this name",
        )
    try:
        values = dataset[()] if dataset.nbytes < IN_MEMORY_BYTES else _large_dataset(dataset, source)
    except (TypeError, ValueError) as error:  # how h5py says that NumPy has no such type
        raise DataError(
            "Fields of a scan are plain numbers.",
            expected="a type that NumPy knows",
            received=f"{error}, field '{key}' of '{source}'",
            fix="write the field as a plain numeric array",
        ) from error
    return numbers(values, key, source, kinds="biufc")


def _large_dataset(dataset: Any, source: str) -> NDArray[Any]:
    offset = dataset.id.get_offset()  # None where the values do not lie in one piece
    if offset is not None and dataset.external is None:
        return np.memmap(dataset.file.filename, dataset.dtype, mode="r", offset=offset, shape=dataset.shape)
    size = dataset.nbytes / 2**30
    logger.info("'%s': %.1f GiB of '%s' are unpacked into a temporary file", source, size, dataset.name)
    values = scratch_array(dataset.shape, dataset.dtype)
    step = rows_at_a_time(values)
    if dataset.chunks:  # whole chunks, because each is unpacked whole
        step = max(step // dataset.chunks[0], 1) * dataset.chunks[0]
    for start in range(0, len(values), step):
        values[start : start + step] = dataset[start : start + step]
        release(values)
    return values
