"""Convolutions in the HDF5 member of a `.keras` file (spec: model_file 7.3)."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_ELEMENTS = 2**27  # of one kernel; the widest published one has 2^20
CONVOLUTION = re.compile(r"conv2d(?:_(\d+))?")
ROOTS = ("layers", "_layer_checkpoint_dependencies")  # Keras 3, and tf.keras before it

Convolution = tuple[NDArray[np.float32], NDArray[np.float32]]


def read_convolutions(content: bytes, names: list[str]) -> dict[str, Convolution]:
    """
    Read kernels and biases of layers by name, which stand in the file under their class and a running number.

    Parameters
    ----------
    content : bytes
        The member ``model.weights.h5``.
    names : list of str
        Convolutions in the order of the model's layers.

    Raises
    ------
    ValueError
        If something is missing, damaged, a link, or not a number.
    """
    import h5py

    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            groups = _groups(file)
            told = {str(group.attrs["name"]): group for group in groups if "name" in group.attrs}
            by_name = told if set(names) <= set(told) else dict(zip(names, groups, strict=True))
            return {name: (_dataset(by_name[name], "0"), _dataset(by_name[name], "1")) for name in names}
    except (OSError, KeyError, RuntimeError, TypeError) as error:
        raise ValueError(f"member 'model.weights.h5' cannot be read ({error})") from None


def _groups(file: Any) -> list[Any]:
    """Return the "vars" groups of convolutions, by running number: that order is the order of layers."""
    found: dict[int, Any] = {}
    for root, group in _rooted(file):
        for key in group:
            match = CONVOLUTION.fullmatch(key.removeprefix(root))
            variables = _own(_own(group, key), "vars") if match else None
            if match and variables is not None and len(variables):
                found.setdefault(int(match[1] or 0), variables)
    return [found[number] for number in sorted(found)]


def _rooted(file: Any) -> Iterator[tuple[str, Any]]:
    """Yield where layers may stand, and what comes before their names: on Windows some versions wrote a backslash."""
    for root in ROOTS:
        if root in file:
            yield "", _own(file, root)
            return
        if any(key.startswith(f"{root}\\") for key in file):
            yield f"{root}\\", file
            return
    raise ValueError("member 'model.weights.h5' holds no layers")


def _own(group: Any, key: str) -> Any:
    """Return what lies in this very file; links out of it are not followed."""
    import h5py

    if not isinstance(group.get(key, getlink=True), h5py.HardLink):
        raise ValueError(f"member 'model.weights.h5': '{key}' is missing or a link")
    return group[key]


def _dataset(group: Any, key: str) -> NDArray[np.float32]:
    item = _own(group, key)
    shape = getattr(item, "shape", None)
    if shape is None or item.dtype.kind != "f" or item.external or item.is_virtual:
        raise ValueError(f"member 'model.weights.h5': '{key}' does not hold plain numbers")
    if math.prod(shape) > MAX_ELEMENTS:
        raise ValueError(f"member 'model.weights.h5': '{key}' claims {math.prod(shape)} numbers")
    values = np.asarray(item[()], dtype=np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"member 'model.weights.h5': '{key}' holds numbers that are not finite")
    return values
