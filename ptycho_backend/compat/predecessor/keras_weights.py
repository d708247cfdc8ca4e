"""Reader of convolutions in the HDF5 member of a `.keras` file (spec: model_file 7.3)."""

from __future__ import annotations

import io
import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_ELEMENTS = 2**27  # per kernel; the largest published kernel has 2^20
CONVOLUTION = re.compile(r"conv2d(?:_(\d+))?")
ROOTS = ("layers", "_layer_checkpoint_dependencies")  # Keras 3, and tf.keras before it

Convolution = tuple[NDArray[np.float32], NDArray[np.float32]]


def read_convolutions(content: bytes, names: list[str]) -> dict[str, Convolution]:
    """
    Read kernels and biases of layers by name; the file lists them by class and running number.

    Parameters
    ----------
    content : bytes
        The member ``model.weights.h5``.
    names : list of str
        Convolutions in the order of the model's layers.

    Raises
    ------
    ValueError
        If an entry is missing, damaged, a link, or not a number.
    """
    import h5py

    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            groups = _groups(file)
            named = {str(group.attrs["name"]): group for group in groups if "name" in group.attrs}
            by_name = named if set(names) <= set(named) else dict(zip(names, groups, strict=True))
            return {name: (_dataset(by_name[name], "0"), _dataset(by_name[name], "1")) for name in names}
    except (OSError, KeyError, RuntimeError, TypeError) as error:
        raise ValueError(f"member 'model.weights.h5' cannot be read ({error})") from None


def _groups(file: Any) -> list[Any]:
    """Return the "vars" groups of convolutions by running number, which is the order of layers."""
    found: dict[int, Any] = {}
    prefix, layers = _layer_group(file)
    for key in layers:
        match = CONVOLUTION.fullmatch(key.removeprefix(prefix))
        if match:
            variables = _hard_link(_hard_link(layers, key), "vars")
            if len(variables):
                found.setdefault(int(match[1] or 0), variables)
    return [found[number] for number in sorted(found)]


def _layer_group(file: Any) -> tuple[str, Any]:
    """Return the prefix of layer names and the group that holds them; some versions on Windows wrote a prefix."""
    for root in ROOTS:
        if root in file:
            return "", _hard_link(file, root)
        if any(key.startswith(f"{root}\\") for key in file):
            return f"{root}\\", file
    raise ValueError("member 'model.weights.h5' holds no layers")


def _hard_link(group: Any, key: str) -> Any:
    """Return an entry of a group that is stored in this file; raise an error for a link to another place."""
    import h5py

    if not isinstance(group.get(key, getlink=True), h5py.HardLink):
        raise _invalid(f"'{key}' is missing or a link")
    return group[key]


def _dataset(group: Any, key: str) -> NDArray[np.float32]:
    item = _hard_link(group, key)
    shape = getattr(item, "shape", None)
    if shape is None or item.dtype.kind != "f" or item.external or item.is_virtual:
        raise _invalid(f"'{key}' does not hold plain numbers")
    if math.prod(shape) > MAX_ELEMENTS:
        raise _invalid(f"'{key}' claims {math.prod(shape)} numbers")
    values = np.asarray(item[()], dtype=np.float32)
    if not np.isfinite(values).all():
        raise _invalid(f"'{key}' holds numbers that are not finite")
    return values


def _invalid(what: str) -> ValueError:
    return ValueError(f"member 'model.weights.h5': {what}")
