"""
Stack of patterns in an array of any order of axes, read block by block.

Notes
-----
Spec: data 12.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.errors import ConfigError, DataError, ShapeError
from ptycho_backend.importing.description import PatternsDescription
from ptycho_backend.runtime.memory_map import BLOCK_BYTES, release, scratch_array

if TYPE_CHECKING:
    from ptycho_backend.importing.arrays import ArraySource

logger = logging.getLogger(__name__)

DEFAULT_AXES = {3: "nyx", 4: "YXyx"}
MAX_PATTERNS = 10**8
SPARSE = 2  # a block is read line by line if fewer than one line in so many is wanted


@dataclass(frozen=True, eq=False)
class PatternStack:
    """
    Patterns of a file as (pattern, y, x), without a copy of the whole stack in memory.

    Parameters
    ----------
    source : ArraySource or array, shape (n, y, x) or (Y, X, y, x) after `order`
        Array in the file; an array of numbers for a stack that was put in order first.
    order : tuple of int
        Axes of the array in the order (n, y, x) or (Y, X, y, x).
    rows : int, shape (pattern,)
        Numbers of the patterns that are kept, ascending.
    name : str
        Name of the array, for messages.
    """

    source: Any
    order: tuple[int, ...]
    rows: NDArray[np.intp]
    name: str

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Numbers of the file, in native byte order."""
        return np.dtype(self.source.dtype).newbyteorder("=")

    @property
    def sides(self) -> tuple[int, int]:
        """Rows and columns of the detector, pixels."""
        shape = [self.source.shape[axis] for axis in self.order]
        return int(shape[-2]), int(shape[-1])

    @property
    def n_patterns(self) -> int:
        """Number of patterns in the file."""
        return math.prod(self.source.shape[axis] for axis in self.order[:-2])

    @property
    def raster(self) -> tuple[int, int] | None:
        """Rows and columns of the scan, None for a list of patterns."""
        if len(self.order) == 3:
            return None
        return int(self.source.shape[self.order[0]]), int(self.source.shape[self.order[1]])

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield the kept patterns in order, as blocks (pattern, y, x) in the numbers of the file."""
        line_bytes = self._per_line * math.prod(self.sides) * self.dtype.itemsize
        step = max(1, BLOCK_BYTES // max(line_bytes, 1))
        for first in range(0, int(self.rows[-1]) // self._per_line + 1, step):
            lines = np.unique(self._between(first, first + step) // self._per_line)
            if not len(lines):
                continue
            low, high = int(lines[0]), int(lines[-1]) + 1
            whole = len(lines) * SPARSE >= high - low
            for start, stop in [(low, high)] if whole else [(int(line), int(line) + 1) for line in lines]:
                yield self._read(start, stop)

    @property
    def _per_line(self) -> int:
        raster = self.raster
        return 1 if raster is None else raster[1]

    def _between(self, low: int, high: int) -> NDArray[np.intp]:
        """Return the kept patterns of some lines along the first axis."""
        first, end = np.searchsorted(self.rows, (low * self._per_line, high * self._per_line))
        return self.rows[first:end]

    def _read(self, low: int, high: int) -> NDArray[Any]:
        patterns = _read_rows(self.source, low, high).transpose(self.order).reshape(-1, *self.sides)
        wanted = self._between(low, high) - low * self._per_line
        if len(wanted) < len(patterns):
            patterns = patterns[wanted]
        return patterns.astype(self.dtype, copy=False)


def pattern_stack(source: ArraySource, description: PatternsDescription) -> PatternStack:
    """
    Return the stack of patterns in an array.

    An array whose first axis lies on the detector is put in order first, in a temporary file if it is large.

    Parameters
    ----------
    source : ArraySource, shape of three or four axes, real numbers
        Array of patterns.
    description : PatternsDescription
        Order of the axes, and slice of the patterns.

    Raises
    ------
    ShapeError
        If the array has another number of axes than the description.
    DataError
        If the array holds no real numbers, or no pattern is kept.
    ConfigError
        If the letters of the axes, or the slice, have another form.
    OutputError
        If the disk has no space for the temporary file.

    Notes
    -----
    Spec: data 12.
    """
    letters = _checked_axes(source, description.axes)
    if source.dtype.kind not in "uif":
        raise DataError.in_field(
            *("Diffraction patterns are real numbers.", "an integer or real dtype", f"dtype {source.dtype}"),
            *("choose the array of intensities with --patterns.dataset", "patterns", source.name),
        )
    canonical = DEFAULT_AXES[len(letters)]
    order = tuple(letters.index(letter) for letter in canonical)
    n = math.prod(source.shape[axis] for axis in order[:-2])
    rows = _kept(description.frames, n, source.name)
    if letters[0] == canonical[0]:
        return PatternStack(source, order, rows, source.name)
    return PatternStack(_in_order(source, order), tuple(range(len(order))), rows, source.name)


def scan_shape(source: ArraySource, description: PatternsDescription) -> tuple[int, tuple[int, int] | None]:
    """
    Return the number of patterns of an array, and rows and columns of a scan of four axes; no values are read.

    Raises
    ------
    ShapeError, DataError, ConfigError
        As :func:`pattern_stack`.
    """
    letters = _checked_axes(source, description.axes)
    sides = [source.shape[letters.index(letter)] for letter in DEFAULT_AXES[len(letters)][:-2]]
    n = math.prod(sides)
    if n > MAX_PATTERNS:
        raise ShapeError.in_field(
            *("A scan has a position for every pattern.", f"at most {MAX_PATTERNS:.0e} patterns", f"{n} patterns"),
            *("check the shape of the array, and --patterns.dataset", "patterns", source.name),
        )
    return n, (sides[0], sides[1]) if len(sides) == 2 else None


def _checked_axes(source: ArraySource, axes: str) -> str:
    number = len(source.shape)
    if not axes and number not in DEFAULT_AXES:
        raise ShapeError.in_field(
            *("Diffraction patterns are a stack of images.", "three axes (n, y, x) or four (Y, X, y, x)"),
            f"shape {source.shape}",
            *("choose another array with --patterns.dataset", "patterns", source.name),
        )
    letters = axes or DEFAULT_AXES[number]
    if sorted(letters) not in (sorted(known) for known in DEFAULT_AXES.values()):
        raise ConfigError(
            "Letters give the axes of the patterns, each once.",
            expected="n, y and x, or Y, X, y and x, such as nyx, yxn or YXyx",
            received=f"'{axes}' for '{source.name}'",
            fix="correct --patterns.axes",
        )
    if len(letters) != number:
        raise ShapeError.in_field(
            *("Every axis of the patterns has one letter.", f"{len(letters)} axes, because of '{letters}'"),
            f"shape {source.shape}",
            *(f"give {number} letters with --patterns.axes, or choose another array", "patterns", source.name),
        )
    if 0 in source.shape:
        raise DataError.in_field(
            *("A scan holds at least one pattern.", "values", f"shape {source.shape}"),
            *("check that the measurement was written to the file", "patterns", source.name),
        )
    return letters


def _kept(frames: str, n: int, name: str) -> NDArray[np.intp]:
    """Return the numbers of the patterns in a slice such as 10:500 or ::2."""
    parts = frames.strip().split(":") if frames.strip() else ["", ""]
    try:
        numbers = [int(part) if part.strip() else None for part in parts]
        kept = np.arange(n)[slice(*numbers)] if len(parts) in (2, 3) else None
    except ValueError:  # no whole number, or a step of 0
        kept = None
    if kept is None or (len(parts) == 3 and (numbers[2] or 1) < 0):
        raise ConfigError(
            "A slice gives the patterns that are kept, in the order of the files.",
            expected="start:stop or start:stop:step with a step above 0, such as 10:500, ::2 or :-1",
            received=f"'{frames}'",
            fix="correct --patterns.frames",
        )
    if not len(kept):
        raise DataError(
            "A scan holds at least one pattern.",
            expected=f"some of the {n} patterns of '{name}'",
            received=f"none in the slice '{frames}'",
            fix=f"choose numbers from 0 to {n - 1} with --patterns.frames",
        )
    return kept.astype(np.intp)


def _in_order(source: ArraySource, order: tuple[int, ...]) -> NDArray[Any]:
    """Return the array with its axes in order; blocks along its first axis are read, one at a time."""
    shape = tuple(source.shape[axis] for axis in order)
    dtype = np.dtype(source.dtype).newbyteorder("=")
    values = scratch_array(shape, dtype)
    step = max(1, BLOCK_BYTES * source.shape[0] // max(values.nbytes, 1))
    logger.info("'%s': the axes are put in order, which reads the patterns once more", source.name)
    place = order.index(0)
    for first in range(0, source.shape[0], step):
        block = _read_rows(source, first, min(first + step, source.shape[0]))
        values[(slice(None),) * place + (slice(first, first + len(block)),)] = block.transpose(order)
        release(values)
    return values


def _read_rows(source: Any, low: int, high: int) -> NDArray[Any]:
    """Read rows along the first axis of an array in a file, or in memory."""
    rows = slice(low, high)
    if not isinstance(source, np.ndarray):
        return np.asarray(source.read(rows))
    block = np.array(source[rows])
    release(source)
    return block
