"""Decoder of NumPy numbers and arrays in a pickle, from the arguments of their placeholders (spec: model_file 7.2)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.compat.predecessor.interpreter import Placeholder

TYPES = frozenset(["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"])
MAX_DIMENSIONS = 8


def number_of(value: Any) -> Any:
    """Return a plain number for a NumPy scalar or a tensor of one element; return other values unchanged."""
    array = array_of(value)
    return array.item() if array is not None and array.size == 1 else value


def array_of(value: Any) -> NDArray[Any] | None:
    """
    Return the NumPy array that a placeholder describes, or None.

    Pickle protocols 0 to 5 write arrays and scalars in several forms. A tensor of TensorFlow is pickled as a NumPy
    array with a call that converts it.
    """
    module, name, arguments = _call(value)
    if module.startswith("tensorflow") and name == "convert_to_tensor" and arguments:
        value = arguments[0]
        module, name, arguments = _call(value)
    if not module.startswith("numpy."):
        return None
    if name == "scalar" and len(arguments) == 2:
        return _array(arguments[1], arguments[0], (), False)
    if name == "_frombuffer" and len(arguments) == 4:
        content, dtype, shape, order = arguments
        return _array(content, dtype, shape, order == "F")
    if name == "_reconstruct" and isinstance(value.state, tuple) and len(value.state) == 5:
        _, shape, dtype, by_column, content = value.state
        return _array(content, dtype, shape, by_column is True)
    return None


def _call(value: Any) -> tuple[str, str, tuple[Any, ...]]:
    """Return module, name and arguments of a call; empty for any other value."""
    if not isinstance(value, Placeholder) or not isinstance(value.function, Placeholder):
        return "", "", ()
    module, _, name = value.name.rpartition(".")
    return module, name, value.arguments if isinstance(value.arguments, tuple) else ()


def _array(content: Any, dtype_placeholder: Any, shape: Any, by_column: bool) -> NDArray[Any] | None:
    """Return an array, or None unless content, type and shape fit each other."""
    dtype, raw = _dtype_of(dtype_placeholder), _bytes_of(content)
    if dtype is None or raw is None or not isinstance(shape, tuple) or len(shape) > MAX_DIMENSIONS:
        return None
    if not all(type(side) is int and side >= 0 for side in shape) or math.prod(shape) * dtype.itemsize != len(raw):
        return None
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if by_column else "C")


def _dtype_of(value: Any) -> np.dtype[Any] | None:
    if not isinstance(value, Placeholder) or value.name != "numpy.dtype" or not isinstance(value.arguments, tuple):
        return None
    name = value.arguments[0] if value.arguments else None
    if not isinstance(name, str) or name not in TYPES:
        return None
    order = value.state[1] if isinstance(value.state, tuple) and len(value.state) > 1 else "<"
    return np.dtype(name).newbyteorder(">" if order == ">" else "<")


def _bytes_of(value: Any) -> bytes | None:
    """Return bytes; early pickle protocols write them as Latin-1 text with a call that encodes it."""
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if isinstance(value, Placeholder) and value.name == "_codecs.encode" and isinstance(value.arguments, tuple):
        text = value.arguments[0] if value.arguments else None
        if isinstance(text, str) and all(ord(character) < 256 for character in text):
            return text.encode("latin-1")
    return None
