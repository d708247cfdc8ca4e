"""
From patches to one image (spec: physics 7).

Each patch is added into the canvas at its own position with bilinear weights, weighted by its trust, and
divided by the summed weights; cost grows with patches, not with canvas × patches.
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

LIT = 0.01  # patches are stitched out to where the probe falls below this share of its peak
CHUNK = 1024  # patches stitched at a time
SHIFT_CHUNK = 64  # patches shifted at a time; small enough to stay in the processor's cache


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
        for start in range(0, len(patches), SHIFT_CHUNK):
            part = slice(start, start + SHIFT_CHUNK)
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


def assemble(
    patches: NDArray[np.complex64],
    scan: Scan,
    indices: NDArray[np.int64],
    weight: NDArray[np.float32],
    phase_alignment: bool = True,
    on_event: OnEvent = ignore,
) -> Image:
    """
    Align and stitch patches (group, channel, y, x) of the groups `indices` (group, channel).

    Patches may be smaller than the window, if they are cut out around its centre; the canvas is the scan's.
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
        Trust in each pixel of a patch.
    frame : CanvasFrame
    phase_alignment : bool
        Give all groups one phase reference first.
    on_event : callable
        Receives StageEvents.
    """
    flat, positions = patches.reshape(-1, *patches.shape[2:]), positions_px.reshape(-1, 2)
    owners = np.repeat(np.arange(len(patches)), patches.shape[1])
    factors = align_phases(flat, positions, weight, owners, on_event) if phase_alignment else None
    stitcher = Stitcher(frame, weight)
    for start in range(0, len(flat), CHUNK):
        part = slice(start, start + CHUNK)
        turned = flat[part] if factors is None else flat[part] * factors[owners[part], None, None]
        stitcher.add(turned, positions[part])
        release(flat)
        on_event(StageEvent("stitching", min(part.stop, len(flat)), len(flat)))
    return stitcher.result()


def lit_half(weight: NDArray[np.float32]) -> int:
    """Return half the side of the smallest centred square that holds every lit pixel."""
    N = weight.shape[-1]
    lit = np.argwhere(weight > LIT * weight.max()) - N // 2
    return int(min(N // 2, max(-lit.min(), lit.max() + 1)))


def central(array: NDArray, half: int) -> NDArray:  # type: ignore[type-arg]
    """Return the square of side 2·half around pixel ``[N//2, N//2]`` of the last two axes."""
    middle = array.shape[-1] // 2
    cut = slice(middle - half, middle + half)
    return array[..., cut, cut]


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
