"""
Stitching: weighted mean of overlapping patches on one canvas (spec: physics 7).

Each patch is added at its position with bilinear weights; the sum is divided by the summed weights.
The cost grows with the number of patches and does not depend on the canvas.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.image import Image
from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import ShapeError
from ptycho_backend.events import OnEvent, StageEvent, ignore
from ptycho_backend.runtime.memory_map import release
from ptycho_backend.solver.phase_synchronization import align_phases
from ptycho_backend.solver.scan_geometry import CanvasFrame

STITCHED_SUPPORT = 0.01  # relative to the peak weight: pixels below it are not stitched
CHUNK = 1024  # patches read at a time
SHIFT_CHUNK = 64  # patches shifted at a time: fits the processor's cache


class Stitcher:
    """
    Running weighted mean of patches on a canvas.

    Parameters
    ----------
    frame : CanvasFrame
    weight : float, shape (N, N)
        Weight of each patch pixel.
    """

    def __init__(self, frame: CanvasFrame, weight: NDArray[Any]) -> None:
        self.frame = frame
        self._weight = np.asarray(weight, dtype=np.float32)
        # One more row and column than the canvas: a bilinear footprint is N + 1 pixels wide.
        padded = (frame.shape[0] + 1, frame.shape[1] + 1)
        self._sum = np.zeros(padded, dtype=np.complex64)
        self._coverage = np.zeros(padded, dtype=np.float32)

    def add(self, patches: NDArray[np.complex64], positions_px: NDArray[np.float64]) -> None:
        """
        Add patches (position, N, N) at positions (position, 2).

        Raises
        ------
        ShapeError
            If the numbers differ, or a window leaves the canvas.
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
        self._check_inside(corners, N)
        for start in range(0, len(patches), SHIFT_CHUNK):
            chunk = slice(start, start + SHIFT_CHUNK)
            self._add_chunk(patches[chunk], corners[chunk], N)

    def result(self) -> Image:
        """Return the weighted mean of all patches added so far."""
        coverage = self._coverage[:-1, :-1]
        mean = np.divide(
            self._sum[:-1, :-1], coverage, out=np.zeros(self.frame.shape, np.complex64), where=coverage > 0
        )
        return Image(mean, coverage.copy(), self.frame.origin_px)

    def _add_chunk(self, patches: NDArray[np.complex64], corners: NDArray[np.float64], N: int) -> None:
        corners_px = np.floor(corners).astype(int)
        fraction = (corners - corners_px).astype(np.float32)
        weighted = _shift_bilinear(patches * self._weight, fraction)
        weights = _shift_bilinear(np.broadcast_to(self._weight, patches.shape), fraction)
        for (y, x), values, weight in zip(corners_px, weighted, weights, strict=True):
            self._sum[y : y + N + 1, x : x + N + 1] += values
            self._coverage[y : y + N + 1, x : x + N + 1] += weight

    def _check_inside(self, corners: NDArray[np.float64], N: int) -> None:
        last = np.asarray(self.frame.shape) - N
        if corners.size and (corners.min() < 0 or (corners > last).any()):
            raise ShapeError(
                "Every window lies on the canvas.",
                expected=f"window corners between (0, 0) and {tuple(last.tolist())} on the canvas",
                received=f"corners from {corners.min(axis=0)} to {corners.max(axis=0)}",
                fix="make the canvas from the same positions: CanvasFrame.around(positions_px, N)",
            )


def stitch(
    patches: NDArray[np.complex64],
    positions_px: NDArray[np.float64],
    weight: NDArray[Any],
    frame: CanvasFrame | None = None,
) -> Image:
    """Stitch patches (position, N, N) at positions (position, 2); by default on the smallest canvas."""
    stitcher = Stitcher(frame or CanvasFrame.around(positions_px, patches.shape[-1]), weight)
    stitcher.add(patches, positions_px)
    return stitcher.result()


def assemble(
    patches: NDArray[np.complex64],
    scan: Scan,
    indices: NDArray[np.int64],
    weight: NDArray[np.float32],
    phase_alignment: bool = True,
    on_event: OnEvent = ignore,
) -> Image:
    """
    Align and stitch patches (group, channel, y, x) of the groups `indices` (group, channel) on the scan's canvas.

    Patches may be centred parts of the windows.
    """
    frame = CanvasFrame.around(scan.positions_px, scan.N)
    return stitch_groups(patches, scan.positions_px[indices], weight, frame, phase_alignment, on_event)


def stitch_groups(
    patches: NDArray[np.complex64],
    positions_px: NDArray[np.float64],
    weight: NDArray[np.float32],
    frame: CanvasFrame,
    phase_alignment: bool = True,
    on_event: OnEvent = ignore,
) -> Image:
    """
    Align and stitch groups of patches on a canvas.

    Parameters
    ----------
    patches : complex64, shape (group, channel, y, x), may be memory-mapped
    positions_px : float64, shape (group, channel, 2), (y, x)
    weight : float32, shape (y, x)
        Weight of each patch pixel.
    frame : CanvasFrame
    phase_alignment : bool
        Align the phases of all groups first.
    on_event : callable
        Receives StageEvents.
    """
    flat, positions = patches.reshape(-1, *patches.shape[2:]), positions_px.reshape(-1, 2)
    groups = np.repeat(np.arange(len(patches)), patches.shape[1])
    factors = align_phases(flat, positions, weight, groups, on_event) if phase_alignment else None
    stitcher = Stitcher(frame, weight)
    for start in range(0, len(flat), CHUNK):
        chunk = slice(start, start + CHUNK)
        aligned = flat[chunk] if factors is None else flat[chunk] * factors[groups[chunk], None, None]
        stitcher.add(aligned, positions[chunk])
        release(flat)
        on_event(StageEvent("stitching", min(chunk.stop, len(flat)), len(flat)))
    return stitcher.result()


def support_half_px(weight: NDArray[np.float32]) -> int:
    """Return half the side of the smallest centred square that contains the support of the weight."""
    N = weight.shape[-1]
    support_px = np.argwhere(weight > STITCHED_SUPPORT * weight.max()) - N // 2
    return int(min(N // 2, max(-support_px.min(), support_px.max() + 1)))


def central(array: NDArray, half: int) -> NDArray:  # type: ignore[type-arg]
    """Return the square of side 2·half around pixel ``[N//2, N//2]`` of the last two axes."""
    middle = array.shape[-1] // 2
    inner = slice(middle - half, middle + half)
    return array[..., inner, inner]


def _shift_bilinear(values: NDArray[Any], fraction: NDArray[np.float32]) -> NDArray[Any]:
    """Shift values (n, N, N) by fractions (n, 2) of a pixel: (n, N + 1, N + 1)."""
    n, N, _ = values.shape
    fy, fx = fraction[:, 0, None, None], fraction[:, 1, None, None]
    rows = np.zeros((n, N + 1, N), dtype=values.dtype)
    shifted = values * fy
    rows[:, :N] = values - shifted
    rows[:, 1:] += shifted
    out = np.zeros((n, N + 1, N + 1), dtype=values.dtype)
    shifted = rows * fx
    out[:, :, :N] = rows - shifted
    out[:, :, 1:] += shifted
    return out
