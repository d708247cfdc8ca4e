"""Numbers and arrays among the placeholders of a pickle, decoded from their arguments alone (spec: model_file 7.2)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.compat.predecessor.machine import Placeholder

TYPES = frozenset(["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"])
MAX_DIMENSIONS = 8


def number_of(value: Any) -> Any:
    """Return a plain number for a NumPy scalar or a tensor of one element, and anything else as it is."""
    array = array_of(value)
    return array.item() if array is not None and array.size == 1 else value


def array_of(value: Any) -> NDArray[Any] | None:
    """
    Return the NumPy array that a placeholder describes, or None.

    Arrays and scalars of NumPy are known in the forms of pickle protocols 0 to 5, and TensorFlow's tensors, which
    are pickled as NumPy arrays to be converted.
    """
    kind, name, arguments = _call(value)
    if kind.startswith("tensorflow") and name == "convert_to_tensor" and arguments:
        value = arguments[0]
        kind, name, arguments = _call(value)
    if not kind.startswith("numpy."):
        return None
    if name == "scalar" and len(arguments) == 2:
        return _array(arguments[1], arguments[0], (), False)
    if name == "_frombuffer" and len(arguments) == 4:
        content, kind_of_numbers, shape, order = arguments
        return _array(content, kind_of_numbers, shape, order == "F")
    if name == "_reconstruct" and isinstance(value.state, tuple) and len(value.state) == 5:
        _, shape, kind_of_numbers, by_column, content = value.state
        return _array(content, kind_of_numbers, shape, by_column is True)
    return None


def _call(value: Any) -> tuple[str, str, tuple[Any, ...]]:
    """Return module, name and arguments of what would be called; empty for anything else."""
    if not isinstance(value, Placeholder) or not isinstance(value.function, Placeholder):
        return "", "", ()
    module, _, name = value.name.rpartition(".")
    return module, name, value.arguments if isinstance(value.arguments, tuple) else ()


def _array(content: Any, kind: Any, shape: Any, by_column: bool) -> NDArray[Any] | None:
    """Return an array of exactly as many bytes as there are, or None."""
    numbers, raw = _dtype_of(kind), _bytes_of(content)
    sound = isinstance(shape, tuple) and len(shape) <= MAX_DIMENSIONS
    if numbers is None or raw is None or not sound or not all(type(side) is int and side >= 0 for side in shape):
        return None
    if math.prod(shape) * numbers.itemsize != len(raw):
        return None
    return np.frombuffer(raw, numbers).reshape(shape, order="F" if by_column else "C")


def _dtype_of(value: Any) -> np.dtype[Any] | None:
    if not isinstance(value, Placeholder) or value.name != "numpy.dtype" or not isinstance(value.arguments, tuple):
        return None
    name = value.arguments[0] if value.arguments else None
    if not isinstance(name, str) or name not in TYPES:
        return None
    order = value.state[1] if isinstance(value.state, tuple) and len(value.state) > 1 else "<"
    return np.dtype(name).newbyteorder(">" if order == ">" else "<")


def _bytes_of(value: Any) -> bytes | None:
    """Return bytes, which early protocols write as Latin-1 text to be encoded."""
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if isinstance(value, Placeholder) and value.name == "_codecs.encode" and isinstance(value.arguments, tuple):
        text = value.arguments[0] if value.arguments else None
        if isinstance(text, str) and all(ord(character) < 256 for character in text):
            return text.encode("latin-1")
    return None
