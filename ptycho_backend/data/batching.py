"""Batches of groups as plain arrays, in the same order for every engine (spec: data 5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.grouping import Groups
from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import DataError
from ptycho_backend.physics.amplitude_constraint import fill_amplitude
from ptycho_backend.physics.calibration import Calibration
from ptycho_backend.physics.translation import canvas_size


@dataclass(frozen=True, eq=False)
class Batch:
    """
    Some groups as plain arrays: the input of an engine.

    Parameters
    ----------
    x : float32, shape (group, channel, y, x)
        Normalised amplitude r·A, bad pixels filled.
    offsets_px : float32, shape (group, channel, 2), (y, x)
        Offset from the group's mean position.
    mask : float32, shape (y, x)
        1 for good detector pixels.
    canvas_px : int
        Side of the group canvas, S; one value for a whole data set keeps shapes static.
    labels : complex64, shape (group, channel, y, x), optional
        Patches of the known object.
    """

    x: NDArray[np.float32]
    offsets_px: NDArray[np.float32]
    mask: NDArray[np.float32]
    canvas_px: int
    labels: NDArray[np.complex64] | None = None

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, eq=False)
class Samples:
    """
    A scan with its groups and calibration; groups are indices into the patterns of the scan.

    Parameters
    ----------
    scan : Scan
    groups : Groups
    calibration : Calibration
    with_labels : bool
        Extract labels from the scan's known object.
    """

    scan: Scan
    groups: Groups
    calibration: Calibration
    with_labels: bool = False

    def __post_init__(self) -> None:
        if self.with_labels and self.scan.obj is None:
            raise DataError(
                "Labels are patches of a known object.",
                expected="an object in the scan ('objectGuess' in an NPZ file)",
                received=f"none in '{self.scan.source}'",
                fix="train with model_type='pinn' and realspace_mae_weight=0, or add the object",
            )

    def __len__(self) -> int:
        return len(self.groups)

    @cached_property
    def mask(self) -> NDArray[np.float32]:
        """Good pixels as 1.0, shape (y, x)."""
        return self.scan.mask.astype(np.float32)

    @cached_property
    def canvas_px(self) -> int:
        """Side of the group canvas, S."""
        return canvas_size(self.scan.N, self.groups.offsets_px)

    def subset(self, rows: NDArray[np.intp]) -> Samples:
        """Return the samples of some groups, with the canvas size of all groups."""
        part = Samples(self.scan, self.groups.subset(rows), self.calibration, self.with_labels)
        part.__dict__["canvas_px"] = self.canvas_px
        return part

    def batch(self, rows: NDArray[np.intp] | slice) -> Batch:
        """Return some groups as plain arrays."""
        indices = self.groups.indices[rows]
        amplitude = self.scan.amplitude(indices.ravel()).reshape(*indices.shape, self.scan.N, self.scan.N)
        amplitude *= np.float32(self.calibration.rms_input_scale)
        if not self.scan.mask.all():
            np.copyto(amplitude, self._fill, where=~self.scan.mask)
        return Batch(
            x=amplitude,
            offsets_px=self.groups.offsets_px[rows].astype(np.float32),
            mask=self.mask,
            canvas_px=self.canvas_px,
            labels=self._labels(indices) if self.with_labels else None,
        )

    def batches(self, batch_size: int, order: NDArray[np.intp] | None = None) -> Iterator[Batch]:
        """Yield all groups in `order` (default: ascending); the last batch may be smaller."""
        rows = np.arange(len(self)) if order is None else order
        for start in range(0, len(rows), batch_size):
            yield self.batch(rows[start : start + batch_size])

    @cached_property
    def _fill(self) -> NDArray[np.float32]:
        return fill_amplitude(self.calibration.probe).astype(np.float32)

    def _labels(self, indices: NDArray[np.int64]) -> NDArray[np.complex64]:
        from ptycho_backend.physics.translation import extract_patches_at

        assert self.scan.obj is not None
        positions = self.scan.positions_px[indices.ravel()]
        patches = extract_patches_at(self.scan.obj, positions, self.scan.N, self.scan.obj_origin_px)
        return patches.reshape(*indices.shape, self.scan.N, self.scan.N)


def batches_per_epoch(n: int, batch_size: int) -> int:
    """Return the number of batches of n groups; the last one may be smaller."""
    return -(-n // batch_size)


def split(n: int, validation_fraction: float, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """
    Split n groups into training and validation rows, both sorted.

    At least one group is for training, and at least one for validation if the fraction is positive.
    """
    n_validation = min(max(1, round(n * validation_fraction)), n - 1) if validation_fraction > 0 else 0
    order = np.random.default_rng([seed, 1]).permutation(n)
    return np.sort(order[n_validation:]), np.sort(order[:n_validation])


def epoch_order(n: int, seed: int, epoch: int) -> NDArray[np.intp]:
    """Return the random order of n training groups in an epoch (counted from 0), the same for every engine."""
    return np.random.default_rng([seed, 2, epoch]).permutation(n)
