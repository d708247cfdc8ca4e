"""
Groups of a scan as the container that existing users know.

Notes
-----
Spec: ptychodus_api_spec 4.14.
"""

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
    Groups as arrays (group, y, x, channel), with C channels.

    Parameters
    ----------
    dataset : mapping
        From ``RawData.generate_grouped_data``.
    rows : slice
        Groups of it that the container holds.
    probe : complex64, shape (mode, y, x)
    """

    dataset: Mapping[str, Any]
    rows: slice
    probe: NDArray[np.complex64]

    @cached_property
    def X(self) -> ScanArray:
        """Normalised amplitude (B, N, N, C) float32; times `intensity_scale` it is measured amplitude."""
        X = self._part("X_full")
        context = context_of(X)
        if context is None or np.array_equal(context.scan.probe, self.probe):
            return X
        return ScanArray(X, dataclasses.replace(context, scan=dataclasses.replace(context.scan, probe=self.probe)))

    @property
    def Y(self) -> NDArray[np.complex64] | None:
        """Patches of the known object (B, N, N, C); None without one."""
        return self._part("Y")

    @property
    def Y_I(self) -> NDArray[np.float32] | None:
        """Amplitude of the known patches."""
        return None if self.Y is None else np.abs(self.Y)

    @property
    def Y_phi(self) -> NDArray[np.float32] | None:
        """Phase of the known patches, radians."""
        return None if self.Y is None else np.angle(self.Y)

    @property
    def YY_full(self) -> NDArray[Any] | None:
        """The known object."""
        return self.dataset.get("objectGuess")

    @property
    def global_offsets(self) -> NDArray[np.float64]:
        """Where each group lies (B, 1, 2, 1): its mean coordinates, x before y."""
        return self._part("coords_offsets")

    @property
    def local_offsets(self) -> NDArray[np.float64]:
        """Mean minus member of each group (B, 1, 2, C), x before y."""
        offsets = self._part("coords_relative")
        return ScanArray(offsets, context_of(self.X))

    @property
    def coords_true(self) -> NDArray[np.float64]:
        """The same as `local_offsets`, as a plain array."""
        return np.asarray(self._part("coords_relative"))

    @property
    def coords_nominal(self) -> NDArray[np.float64]:
        """Mean minus member of the start coordinates (B, 1, 2, C), x before y."""
        return np.asarray(self._part("coords_start_relative"))

    @property
    def nn_indices(self) -> NDArray[np.int64]:
        """Rows of the scan (B, C)."""
        return self._part("nn_indices")

    def to_scan(self) -> Scan:
        """
        Return the part of the scan that the groups hold.

        Raises
        ------
        DataError
            If the container was made of arrays that do not know their scan.
        """
        context = context_of(self.X)
        if context is None:
            raise DataError(
                "A container is made of a scan.",
                expected="arrays from RawData.generate_grouped_data()",
                received=f"an array X of shape {np.shape(self.X)} without its scan",
                fix="make the container with ptycho.loader.load(lambda: raw_data.generate_grouped_data(...), probe)",
            )
        rows = np.unique(self.nn_indices)
        return context.scan if len(rows) == len(context.scan) else context.scan.subset(rows)

    def _part(self, key: str) -> Any:
        values = self.dataset[key]
        return values if values is None or self.rows == slice(None) else values[self.rows]
