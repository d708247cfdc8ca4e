"""
Canvas of a scan: its size, the memory that it takes, and stray positions that make it large.

Notes
-----
Spec: physics 8.2, data 2.12.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.scan import Scan
from ptycho_backend.data.selection import measured_rows
from ptycho_backend.errors import DataError
from ptycho_backend.runtime.free_memory import free_memory_bytes

Real = NDArray[np.float64]
Rows = NDArray[np.intp]

# Measured with the NumPy kernels: object, momentum, updates and sums (8 bytes each), illumination and coverage.
BYTES_PER_PIXEL = 80
SMALL_PX = 2**24  # canvases without a check of their memory
LARGE_PX = 2**26  # canvases without stray positions reach this size with ten thousands of patterns
SHRINKS = 4.0  # least factor by which stray positions enlarge a canvas
STRAY_SHARE = 0.01  # of the positions, at most, but
MIN_STRAYS, MAX_STRAYS = 3, 30
LISTED = 5


def canvas_sides_px(positions_px: Real, N: int) -> tuple[float, float]:
    """Return the sides (y, x) of the canvas of some positions, pixels; floating-point numbers cannot overflow."""
    height, width = np.ptp(positions_px, axis=0) + N + 1
    return float(height), float(width)


def canvas_bytes(positions_px: Real, N: int) -> float:
    """Return the memory that the solver takes for arrays of the size of the canvas, bytes."""
    height, width = canvas_sides_px(positions_px, N)
    return height * width * BYTES_PER_PIXEL


def check_canvas(scan: Scan) -> None:
    """
    Check the canvas of a scan before it takes memory.

    Raises
    ------
    DataError
        If a few positions far away from all others make the canvas large, or the canvas does not fit in the free
        memory.

    Notes
    -----
    Spec: data 2.12.
    """
    height, width = canvas_sides_px(scan.positions_px, scan.N)
    if height * width <= SMALL_PX:
        return
    needed, free = canvas_bytes(scan.positions_px, scan.N), free_memory_bytes()
    if height * width <= LARGE_PX and needed <= free:
        return
    strays = stray_rows(scan.positions_px, scan.N)
    if len(strays):
        raise _stray_positions(scan, strays)
    if needed > free:
        rule, fix = "The canvas of a scan fits in memory.", "check the unit of the positions, which are object pixels"
        received = f"positions that need {height:.4g} × {width:.4g} px (y × x), {size_text(needed)}"
        raise DataError.in_field(
            rule,
            f"at most {size_text(free)}, the free memory of this machine",
            received,
            f"{fix}, leave patterns out (--exclude 3,17,40-45), or take a machine with more memory",
            "positions_px",
            scan.source,
        )


def stray_rows(positions_px: Real, N: int) -> Rows:
    """
    Return the few positions without which the canvas is much smaller, ascending.

    Positions of another region of the sample are none, if they are more than 3 and more than 1 % of all.

    Parameters
    ----------
    positions_px : float64, shape (position, 2), pixels, (y, x)
    N : int
        Side of a window.

    Notes
    -----
    Spec: data 2.12.
    """
    from scipy.spatial import cKDTree

    n = len(positions_px)
    most = min(max(MIN_STRAYS, int(STRAY_SHARE * n)), MAX_STRAYS, (n - 1) // 2)
    if most < 1 or _area(positions_px, N) <= SHRINKS * _area(_inner(positions_px, most), N):
        return np.zeros(0, dtype=np.intp)
    # A stray position has fewer than `most` others nearby, so the distance of the next one is large.
    distance = cKDTree(positions_px).query(positions_px, k=most + 1)[0][:, -1]
    order = np.argsort(-distance, kind="stable")
    areas = np.array([_area(positions_px[np.sort(order[k:])], N) for k in range(most + 1)])
    if areas[0] <= SHRINKS * areas[-1]:
        return np.zeros(0, dtype=np.intp)
    return np.sort(order[: np.flatnonzero(areas <= np.sqrt(SHRINKS) * areas[-1])[0]])


def listed(rows: Rows) -> str:
    """Return numbers of patterns in the form of `--exclude`, with ranges."""
    groups = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1) if len(rows) else []
    return ",".join(f"{group[0]}" if len(group) == 1 else f"{group[0]}-{group[-1]}" for group in groups)


def size_text(n_bytes: float) -> str:
    """Return a size in MiB or GiB."""
    return f"{n_bytes / 2**20:.3g} MiB" if n_bytes < 2**30 else f"{n_bytes / 2**30:.3g} GiB"


def _area(positions_px: Real, N: int) -> float:
    height, width = canvas_sides_px(positions_px, N)
    return height * width


def _inner(positions_px: Real, most: int) -> Real:
    """Return the corners of a box that lacks the `most` lowest and highest coordinates of each axis: a lower bound."""
    ordered = np.sort(positions_px, axis=0)
    return ordered[[most, len(ordered) - 1 - most]]


def _stray_positions(scan: Scan, strays: Rows) -> DataError:
    numbers = measured_rows(len(scan), scan.attributes)[strays]
    height, width = canvas_sides_px(scan.positions_px, scan.N)
    inner = canvas_sides_px(np.delete(scan.positions_px, strays, axis=0), scan.N)
    pairs = zip(numbers, scan.positions_px[strays], strict=True)
    places = [f"pattern {k} at (y, x) = ({y:.6g}, {x:.6g})" for k, (y, x) in pairs]
    shown = ", ".join(places[:LISTED]) + (", …" if len(places) > LISTED else "")
    rule = "The positions of a scan lie near each other."
    expected = f"a canvas of about {inner[0]:.0f} × {inner[1]:.0f} px (y × x), as the other positions need"
    received = f"{height:.4g} × {width:.4g} px because of {shown}"
    fix = f"leave out or correct these positions: --exclude {listed(numbers)}"
    fix += f" on the command line, exclude={numbers[:LISTED].tolist()} in load_scan" if len(numbers) <= LISTED else ""
    return DataError.in_field(rule, expected, received, fix, "positions_px", scan.source)
