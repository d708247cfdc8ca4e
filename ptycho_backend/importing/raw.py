"""Raw files: numbers without a description, whose shape and dtype are declared."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.errors import ConfigError, DataError
from ptycho_backend.importing.description import PatternsDescription
from ptycho_backend.importing.opened import Opened, of_array

NUMBERS = "biufc"


def raw_array(path: Path, description: PatternsDescription) -> Opened:
    """
    Open a raw file as a memory-mapped array.

    Parameters
    ----------
    path : path
    description : PatternsDescription
        Shape and dtype of the whole file, and the length of its header and of that of every pattern.

    Raises
    ------
    ConfigError
        If shape or dtype are missing or malformed.
    DataError
        If the file has another length than these numbers.

    Notes
    -----
    Spec: data 12.
    """
    shape, dtype = _shape(description.raw_shape), _dtype(description.raw_dtype)
    header, offset = description.raw_pattern_header_bytes, description.raw_offset_bytes
    pattern = math.prod(shape[-2:]) * dtype.itemsize + header
    n_bytes = math.prod(shape[:-2]) * pattern
    try:
        held = path.stat().st_size
        if held == offset + n_bytes:
            return of_array(_mapped(path, shape, dtype, offset, header))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        fix = "check the path and the permissions of the file"
        raise DataError("A raw file is readable.", "a file of numbers", f"'{path}': {reason}", fix) from error
    row = n_bytes // shape[0]
    headers = f", with headers of {header} for each pattern" if header else ""
    raise DataError(
        "A raw file has the length that its declared shape and dtype give.",
        expected=f"{offset + n_bytes} bytes: a header of {offset}, and {description.raw_shape} of {dtype}{headers}",
        received=f"{held} bytes in '{path}', or {(held - offset) / row:g} rows of {'x'.join(map(str, shape[1:]))}",
        fix="correct --patterns.raw_shape, --patterns.raw_dtype, --patterns.raw_offset_bytes or "
        "--patterns.raw_pattern_header_bytes",
    )


def _mapped(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], offset: int, header: int) -> NDArray[Any]:
    """Return the memory-mapped numbers, without the headers between the patterns (the last two axes)."""
    if header == 0:
        return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)
    of_pattern = np.dtype([("header", np.void, header), ("pattern", dtype, shape[-2:])])
    mapped: np.memmap[Any, Any] = np.memmap(path, dtype=of_pattern, mode="r", offset=offset, shape=shape[:-2])
    return mapped["pattern"]


def _shape(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[0-9]{1,18}( *[x,×] *[0-9]{1,18})*", text.strip()):
        raise _wrong("raw_shape", "sides with x between them, as 1000x256x256", text)
    shape = tuple(int(side) for side in re.findall(r"[0-9]+", text))
    if 0 in shape:
        raise _wrong("raw_shape", "sides above 0", text)
    return shape


def _dtype(text: str) -> np.dtype[Any]:
    expected = "a NumPy dtype with its byte order, as <u2 or >f4"
    try:
        dtype = np.dtype(text.strip()) if text.strip() else None
    except (TypeError, ValueError, SyntaxError) as error:
        raise _wrong("raw_dtype", expected, text) from error
    if dtype is None or dtype.kind not in NUMBERS or dtype.shape:
        raise _wrong("raw_dtype", expected, text)
    return dtype


def _wrong(name: str, expected: str, text: str) -> ConfigError:
    received, fix = f"--patterns.{name} {text!r}", f"declare --patterns.{name}"
    return ConfigError("The numbers of a raw file have a declared shape and dtype.", expected, received, fix)
