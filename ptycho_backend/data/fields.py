"""Fields of scan files: checks and conversions that all readers share (spec: data 3)."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.hdf5_sources import (
    dataset_at,
    holds,
    load_filters,
    not_numeric,
    numeric_dtype,
    read_values,
    require_sources,
)
from ptycho_backend.errors import DataError, OutputError, ShapeError, first_line, nearest_name
from ptycho_backend.runtime.memory_map import IN_MEMORY_BYTES, release, rows_per_block, scratch_array

logger = logging.getLogger(__name__)

Fields = dict[str, Any]  # keyword arguments of Scan
SIMILAR = 0.65  # least likeness of two names, from 0 to 1: "probe" and "probeGuess" have 0.67


def require_keys(required: Sequence[str], found: Iterable[str], source: str) -> None:
    """Raise an error for missing keys; it lists the keys of the file and suggests similar names."""
    present = sorted(str(key) for key in found)  # h5py returns names with invalid text as bytes
    missing = [key for key in required if key not in present]
    if not missing:
        return
    others = [key for key in present if key not in required]
    hints = [f"'{nearest}' to '{key}'" for key in missing if (nearest := nearest_name(key, others))]
    raise DataError(
        "A scan file holds every required key.",
        expected=f"the keys {', '.join(required)}",
        received=f"no {', '.join(repr(key) for key in missing)} in '{source}', "
        f"which holds {', '.join(present) or 'nothing'}",
        fix=f"rename {'; '.join(hints)}" if hints else "export the scan again with these keys",
    )


def refuse_similar_name(key: str, axes: Mapping[str, int], source: str) -> None:
    """
    Raise an error if a missing optional array seems to stand in the file under another name.

    Parameters
    ----------
    key : str
        Name of the array in the specification.
    axes : mapping of int
        Number of axes of the arrays without meaning in the file, by name; only images and stacks count.
    source : str
    """
    names = {name.lower(): name for name, number in axes.items() if number >= 2}
    similar = get_close_matches(key.lower(), list(names), n=1, cutoff=SIMILAR)
    if similar:
        raise DataError(
            "An optional array has the name of the specification, or is absent.",
            expected=f"'{key}', or no such array",
            received=f"'{names[similar[0]]}' in '{source}'",
            fix=f"rename '{names[similar[0]]}' to '{key}'; to read the file without it, choose another name",
        )


def hdf5_probe(file: Any, key: str, known: Iterable[str], source: str) -> NDArray[Any] | None:
    """
    Read the optional probe of an HDF5 file; None for no probe or an empty one (spec: data 2.11).

    Raises
    ------
    DataError
        If a stack outside of the `known` names has a similar name, or the probe is no array of numbers.
    """
    import h5py

    if holds(file, key):
        return given_probe(hdf5_array(file, key, source), key, source)
    others = {str(name): item for name, item in file.items() if name not in known and isinstance(item, h5py.Dataset)}
    refuse_similar_name(key, {name: item.ndim for name, item in others.items()}, source)
    return None


def given_probe(array: NDArray[Any], key: str, source: str) -> NDArray[Any] | None:
    """Return the (mode, y, x) probe of a file, or None for an empty array (spec: data 2.11)."""
    if array.ndim not in (2, 3, 4):
        rule, fix = "A probe is an image or a stack of images.", "write the probe as (mode, y, x), or leave it out"
        raise wrong_shape(array, key, source, rule, "shape (y, x), (mode, y, x) or (variation, mode, y, x)", fix)
    return first_plane(array, key, source) if array.size else None


def wrong_shape(array: Any, key: str, source: str, rule: str, expected: str, fix: str) -> ShapeError:
    """Return the error of a field with the wrong shape."""
    return ShapeError.in_field(rule, expected, f"shape {np.shape(array)}", fix, key, source)


def unpaired_patterns(expected: str, received: str) -> ShapeError:
    """Return the error of unequal numbers of patterns and positions."""
    fix = "check that patterns and positions come from the same scan"
    return ShapeError("Every pattern has one position.", expected, received, fix)


def unexpected_patterns(path: Path, patterns: object) -> DataError:
    """Return the error of a second file of patterns for a file that already contains patterns."""
    return DataError(
        "Only a product takes its patterns from another file.",
        expected="patterns=None",
        received=f"patterns='{patterns}' for '{path}'",
        fix="leave `patterns` out",
    )


def numbers(values: Any, key: str, source: str, kinds: str = "biuf") -> NDArray[Any]:
    """Return a checked array of numbers, unchanged; `kinds` lists the allowed kinds of dtype."""
    try:
        array: NDArray[Any] = np.asanyarray(values)
    except (ValueError, TypeError, OverflowError) as error:  # lists of unequal lengths, objects that are no array
        raise not_numeric("numbers", first_line(error), key, source) from error
    if array.dtype.kind not in kinds:
        expected = "real numbers" if kinds == "biuf" else "numbers"
        raise not_numeric(expected, f"dtype {array.dtype}", key, source)
    return array


def real_number(value: Any, key: str, source: str) -> float:
    """Return one finite number, from a scalar or from an array of equal values."""
    array = numbers(value, key, source)
    if array.size == 0 or not np.isfinite(array).all() or np.ptp(array.astype(np.float64)) > 0:
        rule, fix = "This field is one number for the whole scan.", "write one value, and one scan per file"
        received = f"{array.size} value(s) of shape {array.shape}"
        raise DataError.in_field(rule, "one finite number", received, fix, key, source)
    return float(array.flat[0])


def finite(values: Any, key: str, source: str, kinds: str = "biuf") -> NDArray[Any]:
    """Return a checked array of finite numbers, unchanged."""
    array = numbers(values, key, source, kinds)
    wrong = array.size - int(np.count_nonzero(np.isfinite(array)))
    if wrong:
        rule, fix = "This field has no gaps.", "write numbers instead of NaN and infinity"
        received = f"{wrong} of {array.size} values are not finite"
        raise DataError.in_field(rule, "finite numbers", received, fix, key, source)
    return array


def whole_numbers(values: Any, key: str, source: str) -> NDArray[np.int64]:
    """Return a list of whole numbers as int64, shape (entry,)."""
    array = np.atleast_1d(finite(values, key, source))
    if array.ndim != 1:
        rule, fix = "This field is a list of numbers.", "write one number for every entry"
        raise wrong_shape(values, key, source, rule, "shape (entry,)", fix)
    if array.dtype.kind == "f" and not (np.floor(array) == array).all():
        rule, fix = "Indexes are whole numbers.", "write the indexes as integers"
        raise DataError.in_field(rule, "whole numbers", "fractions", fix, key, source)
    return array.astype(np.int64)


def positive_number(value: Any, key: str, source: str) -> float:
    """Return one number above zero."""
    number = real_number(value, key, source)
    if number <= 0:
        fix = "write the value of the measurement, in SI units"
        raise DataError.in_field(
            "Lengths and energies are above zero.", "a number > 0", f"{number:g}", fix, key, source
        )
    return number


def stacked(y: Any, x: Any, keys: tuple[str, str], source: str) -> NDArray[np.float64]:
    """Stack two coordinate lists as float64 (position, 2), (y, x); `keys` names them in that order."""
    columns = []
    for key, values in zip(keys, (y, x), strict=True):
        column = np.atleast_1d(np.squeeze(numbers(values, key, source)))
        if column.ndim != 1:
            rule, fix = "Scan coordinates are lists of numbers.", "write one number for every pattern"
            raise wrong_shape(values, key, source, rule, "shape (position,)", fix)
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
    """Drop positions without a pattern, with a warning: they belong to an interrupted scan."""
    if len(positions) > n_patterns > 0:
        logger.warning(
            "'%s' holds %d positions for %d patterns: the last %d are dropped",
            *(source, len(positions), n_patterns, len(positions) - n_patterns),
        )
    return positions[:n_patterns] if n_patterns > 0 else positions


def from_window_middles(positions_px: NDArray[Any], N: int) -> NDArray[np.float64]:
    """Return scan positions from those of window middles (N − 1)/2, the convention of ptychodus (spec: data 1.4)."""
    return np.asarray(positions_px, dtype=np.float64) + behind_middle_px(N)


def to_window_middles(positions_px: NDArray[Any], N: int) -> NDArray[np.float64]:
    """Return the positions of the windows' middles: the inverse of :func:`from_window_middles`."""
    return np.asarray(positions_px, dtype=np.float64) - behind_middle_px(N)


def behind_middle_px(N: int) -> float:
    """Return the distance of pixel N//2 from the middle of a window: half a pixel for even N."""
    return N // 2 - (N - 1) / 2


def first_plane(array: NDArray[Any], key: str, source: str) -> NDArray[Any]:
    """Return the (mode, y, x) probe of a (variation, mode, y, x) stack."""
    if array.ndim != 4:
        return array
    if len(array) > 1:
        logger.warning("'%s' of '%s' varies over the scan (%d planes): the first is used", key, source, len(array))
    return np.asarray(array[0])


def single_layer(obj: Any, key: str, source: str) -> NDArray[Any] | None:
    """Return the object as (y, x), or None for an empty array."""
    array = numbers(obj, key, source, kinds="biufc")
    if array.size == 0:
        return None
    if array.ndim == 3 and len(array) > 1:
        received, fix = f"{len(array)} layers, shape {array.shape}", "multiply the layers, or leave the object out"
        raise ShapeError.in_field("An object has one layer.", "shape (y, x) or (1, y, x)", received, fix, key, source)
    if array.ndim not in (2, 3):
        rule, fix = "An object is an image.", "write the object as (y, x), or leave it out"
        raise wrong_shape(array, key, source, rule, "shape (y, x) or (1, y, x)", fix)
    return array[0] if array.ndim == 3 else array


def pattern_stack(values: Any, key: str, source: str) -> NDArray[Any]:
    """Return checked patterns with three axes, unchanged."""
    array = numbers(values, key, source, kinds="biufc")
    if array.ndim != 3:
        rule, fix = "Diffraction patterns are a stack of images.", "stack the patterns of one scan along a first axis"
        raise wrong_shape(array, key, source, rule, "shape (position, y, x)", fix)
    return array


def good_pixels(bad_pixels: Any, key: str, source: str) -> NDArray[np.bool_]:
    """Return a mask, True for good pixels, from an array with zeros for good pixels."""
    return np.asarray(numbers(bad_pixels, key, source) == 0)


def json_mapping(text: str, key: str, source: str) -> dict[str, Any]:
    """Return a JSON text as a mapping."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):  # RecursionError: brackets nested without end
        values = None
    if not isinstance(values, dict):
        expected, fix = 'text such as {"beamline": "2-ID-D"}', "write it as numpy.array(json.dumps({...}))"
        raise DataError.in_field("Metadata is a mapping in JSON.", expected, f"{text[:60]!r}", fix, key, source)
    return values


@contextmanager
def opened_hdf5(path: Path) -> Iterator[Any]:
    """Open an HDF5 file for reading; an error of the file names its path."""
    import h5py

    load_filters()
    try:
        with h5py.File(path, "r") as file:
            yield file
    except OutputError:  # no disk space for the unpacked values: the file itself is intact
        raise
    except (OSError, RuntimeError, KeyError, UnicodeDecodeError) as error:  # the last two: names of a damaged group
        reason = (error.strerror if isinstance(error, OSError) else None) or first_line(error)
        raise DataError(
            "A scan file is a whole HDF5 file.",
            expected="a file written by h5py or another HDF5 library",
            received=f"'{path}': {reason}",
            fix="copy or export the file again; check that it was written completely",
        ) from error


def hdf5_array(file: Any, key: str, source: str) -> NDArray[Any]:
    """
    Return an HDF5 dataset of numbers in its own dtype; a compound of real and imaginary part becomes complex.

    A large contiguous dataset is memory-mapped; another large dataset is unpacked block by block (spec: data 8).

    Raises
    ------
    DataError
        If the dataset holds no numbers, or if a file or a filter that it needs is missing.
    """
    dataset = dataset_at(file, key, source)
    dtype = numeric_dtype(dataset, key, source)
    require_sources(dataset, key, source)
    if dataset.nbytes < IN_MEMORY_BYTES:
        return read_values(dataset, (), key, source)
    if dataset.id.get_storage_size() == 0 and not dataset.is_virtual and dataset.external is None:
        received = f"a header of shape {dataset.shape}, dtype {dtype}, and none of its {dataset.nbytes} bytes"
        fix = "copy or export the file again; check that it was written completely"
        rule = "Values of a large array are in the file."
        raise DataError.in_field(rule, "stored values", received, fix, key, source)
    offset = dataset.id.get_offset()  # None for values in several pieces
    if offset is not None and dataset.external is None and dtype == dataset.dtype:
        return np.memmap(dataset.file.filename, dtype, mode="r", offset=offset, shape=dataset.shape)
    logger.info(
        "'%s': %.1f GiB of '%s' are unpacked into a temporary file", source, dataset.nbytes / 2**30, dataset.name
    )
    values = scratch_array(dataset.shape, dtype)
    step = rows_per_block(values)
    if dataset.chunks:  # multiples of a chunk, because HDF5 unpacks whole chunks
        step = max(step // dataset.chunks[0], 1) * dataset.chunks[0]
    for start in range(0, len(values), step):
        values[start : start + step] = read_values(dataset, slice(start, start + step), key, source)
        release(values)
    return values


def attribute(item: Any, name: str, source: str, default: Any = None) -> Any:
    """Return an attribute of an HDF5 object; one that is no text or number is an error."""
    try:
        return item.attrs.get(name, default)
    except (UnicodeDecodeError, TypeError, ValueError, OSError, RuntimeError) as error:
        rule, fix = "Attributes are numbers or text in UTF-8.", "write the attribute again, text as a Python string"
        received = first_line(error)
        raise DataError.in_field(rule, "a number or UTF-8 text", received, fix, name, source) from error


def text_attribute(item: Any, name: str, source: str, default: str = "") -> str:
    """Return an attribute as text."""
    value = attribute(item, name, source, default)
    if not isinstance(value, str | bytes):
        raise not_text(f"{value!r:.60}", name, source)
    return decoded(value, name, source)


def decoded(text: str | bytes, key: str, source: str) -> str:
    """Return text, decoded from UTF-8."""
    try:
        decoded_text = text.decode() if isinstance(text, bytes) else text
        decoded_text.encode()  # h5py and NumPy keep invalid bytes as surrogates
    except UnicodeError as error:
        raise not_text(first_line(error), key, source) from error
    return decoded_text


def not_text(received: str, key: str, source: str) -> DataError:
    """Return the error of a field that is no text."""
    fix = "write it as a Python string"
    return DataError.in_field("This field is text.", "one text in UTF-8", received, fix, key, source)


def hdf5_text(group: Any, key: str, source: str) -> str:
    """Return the text of a scalar HDF5 dataset."""
    import h5py

    dataset = dataset_at(group, key, source)
    if h5py.check_string_dtype(dataset.dtype) is None or dataset.size != 1:
        raise not_text(f"dtype {dataset.dtype}, shape {dataset.shape}", key, source)
    value = np.asarray(dataset[()]).reshape(-1)[0]
    return decoded(value, key, source)
