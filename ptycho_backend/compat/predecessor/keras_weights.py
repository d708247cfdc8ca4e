"""Reader of convolutions in the HDF5 member of a `.keras` file (spec: model_file 7.3)."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.model_file.hdf5_values import array_at, hard_link, opened_values

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
    with opened_values("model.weights.h5", content) as file:
        groups = _groups(file)
        named = {str(group.attrs["name"]): group for group in groups if "name" in group.attrs}
        by_name = named if set(names) <= set(named) else dict(zip(names, groups, strict=True))
        return {name: (array_at(by_name[name], "0"), array_at(by_name[name], "1")) for name in names}


def _groups(file: Any) -> list[Any]:
    """Return the "vars" groups of convolutions by running number, which is the order of layers."""
    found: dict[int, Any] = {}
    prefix, layers = _layer_group(file)
    for key in layers:
        match = CONVOLUTION.fullmatch(key.removeprefix(prefix))
        if match:
            variables = hard_link(hard_link(layers, key), "vars")
            if len(variables):
                found.setdefault(int(match[1] or 0), variables)
    return [found[number] for number in sorted(found)]


def _layer_group(file: Any) -> tuple[str, Any]:
    """Return the prefix of layer names and the group that holds them; some versions on Windows wrote a prefix."""
    for root in ROOTS:
        if root in file:
            return "", hard_link(file, root)
        if any(key.startswith(f"{root}\\") for key in file):
            return f"{root}\\", file
    raise ValueError("it holds no layers")
