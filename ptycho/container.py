"""Container of groups, with attributes of the earlier TensorFlow package (spec: ptychodus_api_spec 4.14)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.scan_array import ScanArray, context_of
from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import DataError


@dataclass(eq=False)
class PtychoDataContainer:
    """
    Groups of a scan as arrays (group, y, x, channel); B groups of C members.

    Parameters
    ----------
    dataset : mapping
        Return value of ``RawData.generate_grouped_data``.
    rows : slice
        Groups of `dataset` in this container.
    probe : complex64, shape (mode, y, x)
    """

    dataset: Mapping[str, Any]
    rows: slice
    probe: NDArray[np.complex64]

    @cached_property
    def X(self) -> ScanArray:
        """Normalised amplitude (B, N, N, C) float32: measured amplitude divided by `intensity_scale`."""
        X = self._rows_of("X_full")
        context = context_of(X)
        if context is None or np.array_equal(context.scan.probe, self.probe):
            return X
        return ScanArray(X, dataclasses.replace(context, scan=dataclasses.replace(context.scan, probe=self.probe)))

    @property
    def Y(self) -> NDArray[np.complex64] | None:
        """Patches of the known object (B, N, N, C), or None."""
        return self._rows_of("Y")

    @property
    def Y_I(self) -> NDArray[np.float32] | None:
        """Amplitude of `Y`."""
        return None if self.Y is None else np.abs(self.Y)

    @property
    def Y_phi(self) -> NDArray[np.float32] | None:
        """Phase of `Y`, radians."""
        return None if self.Y is None else np.angle(self.Y)

    @property
    def YY_full(self) -> NDArray[Any] | None:
        """The known object, or None."""
        return self.dataset.get("objectGuess")

    @property
    def global_offsets(self) -> NDArray[np.float64]:
        """Mean coordinates of each group (B, 1, 2, 1), pixels, x before y."""
        return self._rows_of("coords_offsets")

    @property
    def local_offsets(self) -> NDArray[np.float64]:
        """Mean minus coordinates of each member (B, 1, 2, C), pixels, x before y."""
        offsets = self._rows_of("coords_relative")
        return ScanArray(offsets, context_of(self.X))

    @property
    def coords_true(self) -> NDArray[np.float64]:
        """`local_offsets` as a plain array."""
        return np.asarray(self._rows_of("coords_relative"))

    @property
    def coords_nominal(self) -> NDArray[np.float64]:
        """Mean minus start coordinates of each member (B, 1, 2, C), pixels, x before y."""
        return np.asarray(self._rows_of("coords_start_relative"))

    @property
    def nn_indices(self) -> NDArray[np.int64]:
        """Scan rows of the members (B, C)."""
        return self._rows_of("nn_indices")

    def to_scan(self) -> Scan:
        """
        Return the scan positions of the groups as a scan.

        Raises
        ------
        DataError
            If the arrays of the container have no scan context.
        """
        context = context_of(self.X)
        if context is None:
            raise DataError(
                "The arrays of a container belong to a scan.",
                expected="arrays from RawData.generate_grouped_data()",
                received=f"an array X of shape {np.shape(self.X)} without a scan",
                fix="create the container with ptycho.loader.load(lambda: raw_data.generate_grouped_data(...), probe)",
            )
        rows = np.unique(self.nn_indices)
        return context.scan if len(rows) == len(context.scan) else context.scan.subset(rows)

    def _rows_of(self, key: str) -> Any:
        values = self.dataset[key]
        return values if values is None or self.rows == slice(None) else values[self.rows]
