"""Stacks of images in TIFF files."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.errors import DataError, PtychoError, first_line
from ptycho_backend.importing.opened import ArrayInfo, Format, Opened, damaged, of_array, require_numbers

KIND = "a TIFF file"


def tiff_infos(path: Path, complete: bool = True) -> list[ArrayInfo]:
    """
    Return the stacks of a TIFF file; they have numbers as names if there are several.

    Raises
    ------
    DataError
        If the file is damaged.
    """
    with _opened(path) as file:
        stacks = _stacks(file)
        names = [""] if len(stacks) == 1 else [str(number) for number in range(len(stacks))]
        return [ArrayInfo(name, _shape(stack), _dtype(stack)) for name, stack in zip(names, stacks, strict=True)]


def tiff_array(path: Path, name: str) -> Opened | None:
    """
    Open a stack of a TIFF file; None for an unknown name.

    Values in one piece are memory-mapped; others are read page by page.
    """
    infos = tiff_infos(path)
    number = next((number for number, info in enumerate(infos) if info.name == name), None)
    if number is None:
        return None
    shape, dtype = infos[number].shape, infos[number].dtype
    require_numbers(dtype, name, path)
    with _opened(path) as file:
        stack = _stacks(file)[number]
        if len(stack) == 1 and stack[0].dataoffset is not None:
            stored = dtype.newbyteorder(file.byteorder)
            return of_array(np.memmap(path, stored, mode="r", offset=stack[0].dataoffset, shape=shape))
        if _pages_per_row(stack) is None:
            return of_array(np.asarray(stack[0].asarray(), dtype))
    return Opened(shape, dtype, lambda rows: _read(path, number, rows))


TIFF = Format(tiff_infos, tiff_array)


def _read(path: Path, number: int, rows: slice) -> NDArray[Any]:
    with _opened(path) as file:
        stack = _stacks(file)[number]
        shape, step = _shape(stack), _pages_per_row(stack) or 1
        pages = [page for series in stack for page in series.pages]
        wanted = range(*rows.indices(shape[0]))
        values = np.empty((len(wanted) * step, math.prod(shape[1:]) // step), _dtype(stack))
        for place, page_number in enumerate(row * step + part for row in wanted for part in range(step)):
            values[place] = _page(pages[page_number], page_number).reshape(-1)
        return values.reshape(len(wanted), *shape[1:])


def _page(page: Any, number: int) -> NDArray[Any]:
    """Return the values of a page; tifffile would return zeros for missing ones."""
    if page is None or 0 in page.databytecounts:
        raise ValueError(f"page {number} has no values")
    return np.asarray(page.asarray())


def _stacks(file: Any) -> list[list[Any]]:
    """Return the series of images of each stack: all of one size and dtype form one stack."""
    series = list(file.series)
    if len({(item.shape, item.dtype) for item in series}) == 1:
        return [series]
    return [[item] for item in series]


def _shape(stack: list[Any]) -> tuple[int, ...]:
    shape = tuple(int(side) for side in stack[0].shape)
    return shape if len(stack) == 1 else (len(stack), *shape)


def _dtype(stack: list[Any]) -> np.dtype[Any]:
    return np.dtype(stack[0].dtype).newbyteorder("=")


def _pages_per_row(stack: list[Any]) -> int | None:
    """Return the number of pages in a row of the first axis; None for rows that share a page."""
    if len(stack) > 1:
        return len(stack[0].pages)
    pages, shape = len(stack[0].pages), _shape(stack)
    leading = [axes for axes in range(1, len(shape) + 1) if math.prod(shape[:axes]) == pages]
    return math.prod(shape[1 : leading[0]]) if leading else None


class _Errors(logging.Handler):
    """Collector of the errors that tifffile reports as messages only, such as missing pages."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a TIFF file whose pages are all there."""
    import tifffile

    errors, log = _Errors(), logging.getLogger("tifffile")
    log.addHandler(errors)
    try:
        with tifffile.TiffFile(path) as file:
            if not file.series or errors.texts:
                raise ValueError((errors.texts or ["no image"])[0])
            yield file
    except PtychoError:
        raise
    except Exception as error:  # damaged tags make tifffile raise errors of any kind, such as ZeroDivisionError
        if "imagecodecs" in str(error):
            raise _packed(path, error) from error
        raise damaged(path, KIND, error) from error
    finally:
        log.removeHandler(errors)


def _packed(path: Path, error: Exception) -> DataError:
    return DataError(
        "Compressed images need the codec that packed them.",
        expected="the package imagecodecs, or images without compression",
        received=f"'{path}': {first_line(error)}",
        fix="pip install imagecodecs",
    )
