"""
NumPy array subclass with a reference to its scan (spec: ptychodus_api_spec 4.14).

Calls of the earlier TensorFlow package pass arrays only. The reference gives them probe, mask and weights.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.grouping import Groups
from ptycho_backend.data.scan import Scan


@dataclass(frozen=True, eq=False)
class ScanContext:
    """
    Scan and groups of an array.

    Parameters
    ----------
    scan : Scan
    groups : Groups
        One group for every row of the array.
    input_scale : float
        Factor r from measured to normalised amplitude.
    energy : float64, shape (group,)
        Sum of squared normalised amplitude over channels and good pixels.
    centre_px : (float, float), (y, x), optional
        Coordinates of the centre of a stitched canvas; None selects the midpoint of the scan's bounding box.
    shift_px : float
        Scan position minus coordinate: 0.5 for coordinates of windows' middles and even N.
    weight : float32, shape (y, x), optional
        Weight of each patch pixel.
    """

    scan: Scan
    groups: Groups
    input_scale: float
    energy: NDArray[np.float64]
    centre_px: tuple[float, float] | None = None
    shift_px: float = 0.0
    weight: NDArray[np.float32] | None = None

    def subset(self, rows: Any) -> ScanContext:
        """Return the context of some rows."""
        return dataclasses.replace(self, groups=self.groups.subset(rows), energy=self.energy[rows])

    def describes(self, shape: tuple[int, ...]) -> bool:
        """Return whether an array (group, y, x, channel) has the shape of these groups and windows."""
        return shape == (len(self.groups), self.scan.N, self.scan.N, self.groups.channels)


class ScanArray(np.ndarray):
    """
    Array with a :class:`ScanContext`; arithmetic, pickling and selection of rows preserve it.

    Other selections drop the context; the result is treated as a plain array.
    """

    context: ScanContext | None

    def __new__(cls, array: Any, context: ScanContext | None) -> ScanArray:
        """Return a view of an array with a context."""
        view = np.asarray(array).view(cls)
        view.context = context
        return view

    def __array_finalize__(self, parent: Any) -> None:
        self.context = getattr(parent, "context", None)

    def __array_wrap__(self, array: Any, ufunc: Any = None, return_scalar: bool = False) -> Any:
        """Keep the context if arithmetic keeps the shape; return a scalar as a plain number."""
        return ScanArray(array, self.context if array.shape == self.shape else None) if array.ndim else array[()]

    def __getitem__(self, key: Any) -> Any:
        part = super().__getitem__(key)
        if isinstance(part, ScanArray) and self.context is not None:
            part.context = self.context.subset(key) if self._selects_rows(key) else None
        return part

    def __reduce__(self) -> Any:
        function, arguments, state, *_ = tuple(super().__reduce__())
        return function, arguments, (state, self.context)

    def __setstate__(self, state: Any) -> None:
        array_state, self.context = state
        super().__setstate__(array_state)

    def _selects_rows(self, key: Any) -> bool:
        rows = isinstance(key, slice) or (isinstance(key, (list, np.ndarray)) and np.ndim(key) == 1)
        return rows and self.context is not None and len(self) == len(self.context.groups)


def context_of(*arrays: Any) -> ScanContext | None:
    """Return the first scan context among some arrays, or None."""
    contexts = (getattr(array, "context", None) for array in arrays)
    return next((context for context in contexts if isinstance(context, ScanContext)), None)
