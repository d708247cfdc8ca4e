"""Construction of containers, under the name of the earlier TensorFlow package (spec: ptychodus_api_spec 4.14)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ptycho.container import PtychoDataContainer
from ptycho.raw_data import RawData
from ptycho_backend.data.scan import canonical_probe
from ptycho_backend.errors import DataError

__all__ = ["PtychoDataContainer", "RawData", "load"]


def load(
    cb: Callable[[], Any], probeGuess: Any, which: str | None = None, create_split: bool = False
) -> PtychoDataContainer:
    """
    Return a container of grouped data.

    Parameters
    ----------
    cb : callable
        Returns the result of ``generate_grouped_data``; with `create_split` also the share of the training groups.
    probeGuess : complex, shape (mode, y, x), (y, x) or (y, x, 1)
        Replaces the probe of the scan.
    which : {"train", "test"}, optional
        With `create_split`: the first groups, or the remaining ones.
    create_split : bool

    Raises
    ------
    DataError, ShapeError
    """
    dataset, share = cb() if create_split else (cb(), 1.0)
    first = int(len(dataset["nn_indices"]) * share)
    rows = slice(None)
    if create_split:
        rows = {"train": slice(0, first), "test": slice(first, None)}.get(str(which), rows)
        if rows == slice(None):
            raise DataError(
                "A split has two parts, 'train' and 'test'.",
                expected="which='train' or which='test', because create_split=True",
                received=f"which={which!r}",
                fix="pass which='train' or which='test'",
            )
    probe = canonical_probe(np.asarray(probeGuess), dataset["X_full"].shape[1], "probeGuess")
    return PtychoDataContainer(dataset, rows, probe)
