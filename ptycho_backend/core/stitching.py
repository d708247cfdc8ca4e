"""
From patches to one image (spec: physics 7).

Each patch is added into the canvas at its own position with bilinear weights, weighted by its trust, and
divided by the summed weights; cost grows with patches, not with canvas × patches.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.errors import ShapeError

WELL_COVERED = 0.25  # of the largest coverage
CHUNK = 64  # patches shifted at a time; small enough to stay in the processor's cache


@dataclass(frozen=True, eq=False)
class Image:
    """
    A stitched image in scan coordinates.

    Parameters
    ----------
    obj : complex64, shape (y, x)
        Transmission function; 0 where nothing was measured.
    coverage : float32, shape (y, x)
        Summed weights: how much measured evidence a pixel has, 0 for none.
    origin_px : (float, float), (y, x)
        Scan coordinates of pixel (0, 0).
    """

    obj: NDArray[np.complex64]
    coverage: NDArray[np.float32]
    origin_px: tuple[float, float]


def well_covered(image: Image) -> Image:
    """Return the part of an image, a rectangle, that many patterns have seen: the rim holds little evidence."""
    seen = image.coverage > WELL_COVERED * image.coverage.max()
    if not seen.any():
        return image
    (top, bottom), (left, right) = (np.flatnonzero(seen.any(axis=axis))[[0, -1]] for axis in (1, 0))
    cut = slice(top, bottom + 1), slice(left, right + 1)
    origin = (image.origin_px[0] + float(top), image.origin_px[1] + float(left))
    return Image(image.obj[cut], image.coverage[cut], origin)


@dataclass(frozen=True)
class CanvasFrame:
    """Where a canvas lies: its shape and the scan coordinates of its pixel (0, 0)."""

    shape: tuple[int, int]
    origin_px: tuple[float, float]

    @staticmethod
    def around(positions_px: NDArray[np.float64], N: int, centre_px: tuple[float, float] | None = None) -> CanvasFrame:
        """
        Return the canvas that holds every window; its centre is `centre_px`, or else the bounding box's midpoint.

        The centre of a canvas of n pixels is (n − 1)/2, as clients map coordinates.
        """
        low, high = positions_px.min(axis=0), positions_px.max(axis=0)
        centre, extent = (low + high) / 2, high - low
        if centre_px is not None:
            centre = np.asarray(centre_px, dtype=np.float64)
            extent = 2 * np.maximum(high - centre, centre - low)
        shape = np.ceil(extent).astype(int) + N + 1
        origin = centre - (shape - 1) / 2
        return CanvasFrame((int(shape[0]), int(shape[1])), (float(origin[0]), float(origin[1])))

    def corners(self, positions_px: NDArray[np.float64], N: int) -> NDArray[np.float64]:
        """Return the canvas coordinates of pixel (0, 0) of each window, to a millionth of a pixel."""
        # Unrounded, the outermost window of a scan can come to lie 1e-16 outside its own canvas.
        return np.round(positions_px - N // 2 - np.asarray(self.origin_px), 6)


class Stitcher:
    """
    Adds patches to a canvas, chunk by chunk, and returns their weighted mean.

    Parameters
    ----------
    frame : CanvasFrame
    weight : float, shape (N, N)
        Trust in each pixel of a patch.
    """

    def __init__(self, frame: CanvasFrame, weight: NDArray[Any]) -> None:
        self.frame = frame
        self._weight = np.asarray(weight, dtype=np.float32)
        # One row and column more than the canvas: a bilinear footprint is N + 1 wide.
        padded = (frame.shape[0] + 1, frame.shape[1] + 1)
        self._sum = np.zeros(padded, dtype=np.complex64)
        self._coverage = np.zeros(padded, dtype=np.float32)

    def add(self, patches: NDArray[np.complex64], positions_px: NDArray[np.float64]) -> None:
        """
        Add patches (position, N, N) at positions (position, 2).

        Raises
        ------
        ShapeError
            If the numbers differ, or a window does not lie on the canvas.
        """
        N = self._weight.shape[-1]
        if patches.shape != (len(positions_px), N, N):
            raise ShapeError(
                "Every patch has one position.",
                expected=f"patches of shape ({len(positions_px)}, {N}, {N})",
                received=f"shape {patches.shape}",
                fix="flatten groups with one shared function before stitching",
            )
        corners = self.frame.corners(np.asarray(positions_px, dtype=np.float64), N)
        self._refuse_outside(corners, N)
        for start in range(0, len(patches), CHUNK):
            part = slice(start, start + CHUNK)
            self._add_chunk(patches[part], corners[part], N)

    def result(self) -> Image:
        """Return the weighted mean of everything added so far."""
        coverage = self._coverage[:-1, :-1]
        mean = np.divide(
            self._sum[:-1, :-1], coverage, out=np.zeros(self.frame.shape, np.complex64), where=coverage > 0
        )
        return Image(mean, coverage.copy(), self.frame.origin_px)

    def _add_chunk(self, patches: NDArray[np.complex64], corners: NDArray[np.float64], N: int) -> None:
        whole = np.floor(corners).astype(int)
        fraction = (corners - whole).astype(np.float32)
        spread = _spread(patches * self._weight, fraction)
        weights = _spread(np.broadcast_to(self._weight, patches.shape), fraction)
        for (y, x), values, trust in zip(whole, spread, weights, strict=True):
            self._sum[y : y + N + 1, x : x + N + 1] += values
            self._coverage[y : y + N + 1, x : x + N + 1] += trust

    def _refuse_outside(self, corners: NDArray[np.float64], N: int) -> None:
        room = np.asarray(self.frame.shape) - N
        if corners.size and (corners.min() < 0 or (corners > room).any()):
            raise ShapeError(
                "Every window lies on the canvas.",
                expected=f"window corners between (0, 0) and {tuple(room.tolist())} on the canvas",
                received=f"corners from {corners.min(axis=0)} to {corners.max(axis=0)}",
                fix="make the canvas from the same positions: CanvasFrame.around(positions_px, N)",
            )


def stitch(patches: NDArray[np.complex64], positions_px: NDArray[np.float64], weight: NDArray[Any]) -> Image:
    """Stitch patches (position, N, N) at positions (position, 2) into one image."""
    stitcher = Stitcher(CanvasFrame.around(positions_px, patches.shape[-1]), weight)
    stitcher.add(patches, positions_px)
    return stitcher.result()


def cut_patches(
    obj: NDArray[Any], positions_px: NDArray[np.float64], N: int, origin_px: Iterable[float] = (0.0, 0.0)
) -> NDArray[np.complex64]:
    """
    Cut bilinear windows (position, N, N) out of an object; zero outside it. The adjoint of unweighted stitching.

    `origin_px` is the position of the object's pixel (0, 0) in scan coordinates.
    """
    positions = np.asarray(positions_px, dtype=np.float64)
    corners = positions - N // 2 - np.asarray(tuple(origin_px))
    whole = np.floor(corners).astype(int)
    blocks = np.zeros((len(positions), N + 1, N + 1), dtype=np.complex64)
    for block, (y, x) in zip(blocks, whole, strict=True):
        _copy_overlap(block, np.asarray(obj), int(y), int(x))
    fy, fx = np.moveaxis((corners - whole).astype(np.float32), 1, 0)[..., None, None]
    rows = (1 - fy) * blocks[:, :-1] + fy * blocks[:, 1:]
    return np.asarray((1 - fx) * rows[:, :, :-1] + fx * rows[:, :, 1:], dtype=np.complex64)


def _copy_overlap(block: NDArray[Any], obj: NDArray[Any], y: int, x: int) -> None:
    """Copy the part of `obj` that lies under `block`, whose corner is at (y, x) of the object."""
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + block.shape[0], obj.shape[0]), min(x + block.shape[1], obj.shape[1])
    if bottom > top and right > left:
        block[top - y : bottom - y, left - x : right - x] = obj[top:bottom, left:right]


def _spread(values: NDArray[Any], fraction: NDArray[np.float32]) -> NDArray[Any]:
    """Shift (n, N, N) values by fractions (n, 2) of a pixel, bilinearly: (n, N + 1, N + 1)."""
    n, N, _ = values.shape
    fy, fx = fraction[:, 0, None, None], fraction[:, 1, None, None]
    rows = np.zeros((n, N + 1, N), dtype=values.dtype)
    moved = values * fy
    rows[:, :N] = values - moved
    rows[:, 1:] += moved
    out = np.zeros((n, N + 1, N + 1), dtype=values.dtype)
    moved = rows * fx
    out[:, :, :N] = rows - moved
    out[:, :, 1:] += moved
    return out
