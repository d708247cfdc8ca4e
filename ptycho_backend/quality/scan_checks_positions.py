"""Checks of the positions of a scan: unit, duplicates, strays, jumps, overlap, and the canvas that they need."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.probe_guess import FROM_PATTERNS, PROBE_GUESS
from ptycho_backend.data.scan import Scan
from ptycho_backend.data.selection import measured_rows
from ptycho_backend.quality.scan_check import (
    Check,
    Grade,
    ScanNumbers,
    count_text,
    neighbour_distance_px,
    probe_diameter_px,
)
from ptycho_backend.runtime.free_memory import free_memory_bytes
from ptycho_backend.solver.canvas import (
    LARGE_PX,
    canvas_bytes,
    canvas_sides_px,
    listed,
    size_text,
    stray_rows,
)

Real = NDArray[np.float64]

SAME_SHARE = 1e-7  # of the extent of the scan: the distance of positions that are equal
DUPLICATE_SHARE = 0.05  # of the positions: more are several scans, or a column that was read twice
WIDE_STEP, NO_OVERLAP = 0.6, 0.95  # step over the diameter of the probe
TINY_STEP = 0.01
MEMORY_SHARE = 0.5  # of the free memory
USED_SHARE = 0.2  # of the canvas, under any window
LISTED = 4  # sizes of regions in a line


def check_position_unit(numbers: ScanNumbers) -> Check:
    """Check that the positions are object pixels: metres span less than one, detector units far too many."""
    positions, N = numbers.scan.positions_px, numbers.scan.N
    height, width = np.ptp(positions, axis=0)
    found = f"{height:.4g} × {width:.4g} px (y × x) in all"
    if len(positions) > 1 and max(height, width) < 1.0:
        if max(height, width) == 0.0:
            return Check(
                "position unit",
                "wrong",
                found,
                "all patterns have one position: no window overlaps another",
                "give the positions: ptychopinn import --positions.y FILE:/y --positions.x FILE:/x",
            )
        reason = "the whole scan spans less than one pixel: these are metres or another unit of length"
        return Check("position unit", "wrong", found, reason, "ptychopinn import --positions.unit m")
    step = neighbour_distance_px(positions)
    if step > 2 * N:
        reason = "neighbours are farther apart than two windows: these are no object pixels"
        fix = "ptychopinn import --positions.unit nm, or another unit of length"
        return Check("position unit", "wrong", found, reason, fix)
    return Check("position unit", "good", found)


def check_duplicates(numbers: ScanNumbers) -> Check:
    """Check for patterns at one place."""
    positions = numbers.scan.positions_px
    same_px = SAME_SHARE * float(np.ptp(positions, axis=0).max()) or 1.0
    places = np.unique(np.rint((positions - positions[0]) / same_px), axis=0)
    n = len(positions) - len(places)
    found = f"{count_text(n, 'position')} equal to another one" if n else "none"
    if n <= DUPLICATE_SHARE * len(positions):
        return Check("duplicates", "good", found)
    reason = "several patterns at one place add no overlap; the positions may belong to another scan"
    return Check("duplicates", "doubtful", found, reason, "check that every pattern has its own position")


def check_strays(numbers: ScanNumbers) -> Check:
    """Check for positions far away from all others."""
    scan = numbers.scan
    rows = stray_rows(scan.positions_px, scan.N)
    if not len(rows):
        return Check("strays", "good", "none")
    numbers_in_file = measured_rows(len(scan), scan.attributes)[rows]
    y, x = scan.positions_px[rows[0]]
    found = f"{count_text(len(rows), 'pattern')} ({listed(numbers_in_file)}), the first at (y, x) = ({y:.4g}, {x:.4g})"
    grade: Grade = "wrong" if np.prod(canvas_sides_px(scan.positions_px, scan.N)) > LARGE_PX else "doubtful"
    reason = "a few positions far from all others make most of the image empty"
    return Check("strays", grade, found, reason, f"--exclude {listed(numbers_in_file)}")


def check_regions(numbers: ScanNumbers) -> Check:
    """Check that windows overlap from one end of the scan to the other: a jump of the positions parts it in two."""
    scan = numbers.scan
    diameter, ratio = probe_diameter_px(scan.probe), _step_ratio(scan)
    if _unknown_probe(scan) or not ratio <= WIDE_STEP:
        return Check("regions", "good", "not counted, because the overlap is unknown or small")
    left = np.setdiff1d(np.arange(len(scan)), stray_rows(scan.positions_px, scan.N))
    labels = _regions(scan.positions_px[left], diameter)
    sizes = np.sort(np.bincount(labels))[::-1]
    if len(sizes) == 1:
        return Check("regions", "good", "one")
    found = f"{len(sizes)}, of {', '.join(map(str, sizes[:LISTED]))}{', …' if len(sizes) > LISTED else ''} patterns"
    first = measured_rows(len(scan), scan.attributes)[left[np.flatnonzero(np.diff(labels))[0] + 1]]
    reason = f"regions without overlap have phases of their own; the stage may have jumped, first at pattern {first}"
    return Check("regions", "doubtful", found, reason, "reconstruct them one by one: --exclude leaves patterns out")


def check_overlap(numbers: ScanNumbers) -> Check:
    """Check the step of the scan over the diameter of the probe."""
    scan = numbers.scan
    step, ratio = neighbour_distance_px(scan.positions_px), _step_ratio(scan)
    found = f"step {step:.3g} px, {ratio:.2g} of the probe's diameter"
    if np.isnan(step):
        return Check("overlap", "wrong", "one position", "one position has no overlap", "measure more positions")
    if _unknown_probe(scan):
        return Check("overlap", "good", f"step {step:.3g} px; the size of the probe is unknown before it is found")
    if ratio > WIDE_STEP:
        grade: Grade = "wrong" if ratio > NO_OVERLAP else "doubtful"
        reason = "neighbouring patterns share too little of the object to fix its phase"
        fix = "check the object pixel and --positions.unit of ptychopinn import; else measure with a smaller step"
        return Check("overlap", grade, found, reason, fix)
    if ratio < TINY_STEP and step > 0:
        reason = "the steps are tiny against the probe: the unit may be wrong"
        return Check("overlap", "doubtful", found, reason, "check --positions.unit of ptychopinn import")
    return Check("overlap", "good", found)


def check_canvas_size(numbers: ScanNumbers) -> Check:
    """Check the canvas: its memory against what is free, and the part of it that any window covers."""
    positions, N = numbers.scan.positions_px, numbers.scan.N
    height, width = canvas_sides_px(positions, N)
    needed, free = canvas_bytes(positions, N), free_memory_bytes()
    used = _used_share(positions, N)
    found = f"{height:.0f} × {width:.0f} px, {size_text(needed)} of {size_text(free)} free; {used:.0%} of it used"
    faults: list[tuple[Grade, str, str]] = []
    if needed > MEMORY_SHARE * free:
        grade: Grade = "wrong" if needed > free else "doubtful"
        fix = "leave patterns out with --exclude, or import with --detector.bin or --detector.size_px"
        faults.append((grade, "the arrays of the solver take most of the free memory, or more", fix))
    if used < USED_SHARE:
        fix = "check --positions.unit, and leave stray positions out: --exclude"
        faults.append(("doubtful", "most of the image is empty", fix))
    return Check.of("canvas", found, faults)


def _unknown_probe(scan: Scan) -> bool:
    """Return True for a guess from the patterns: it has no defocus, so it is smaller than the probe."""
    return bool(scan.attributes.get(PROBE_GUESS) == FROM_PATTERNS)


def _step_ratio(scan: Scan) -> float:
    """Return the median distance of neighbours over the diameter of the probe; NaN for one position."""
    return neighbour_distance_px(scan.positions_px) / probe_diameter_px(scan.probe)


def _regions(positions_px: Real, reach_px: float) -> NDArray[np.intp]:
    """Return a label for every position; positions nearer than `reach_px` have the same."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    n = len(positions_px)
    # Cells of half the reach hold neighbours only, so that their number stays small for dense scans.
    cells, cell_of = np.unique(np.floor(positions_px / (reach_px / 2)), axis=0, return_inverse=True)
    cell_of = cell_of.reshape(n)
    sums = np.stack([np.bincount(cell_of, positions_px[:, axis]) for axis in (0, 1)], axis=1)
    middle = sums / np.bincount(cell_of)[:, None]
    pairs = cKDTree(middle).query_pairs(reach_px, output_type="ndarray")
    links = csr_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(cells), len(cells)))
    return np.asarray(connected_components(links, directed=False)[1][cell_of], dtype=np.intp)


def _used_share(positions_px: Real, N: int) -> float:
    """Return the share of the canvas under any window, counted in cells of half a window."""
    height, width = canvas_sides_px(positions_px, N)
    low = positions_px.min(axis=0) - N / 2
    cells = {
        cell
        for step in ((-0.25, -0.25), (-0.25, 0.25), (0.25, -0.25), (0.25, 0.25))
        for cell in map(tuple, np.floor((positions_px + np.array(step) * N - low) / (N / 2)).tolist())
    }
    return min(1.0, len(cells) * (N / 2) ** 2 / (height * width))
