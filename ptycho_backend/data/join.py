"""Joint scan: several scans with one probe as one scan, for a common training (spec: data 7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.probe_guess import FROM_PATTERNS, PROBE_GUESS
from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import DataError

SAME_PROBE = 1e-4  # largest difference of equal probes, relative to the brightest pixel


def join_scans(scans: Sequence[Scan]) -> Scan:
    """
    Return one scan of all positions, with the objects in a row and too distant for common groups.

    Parameters
    ----------
    scans : sequence of Scan
        Scans with equal pattern size, measurement domain and probe. The masks are combined: a pixel is good if it is
        good in every scan. Known objects are joined if every scan has one.

    Raises
    ------
    DataError
        If there is no scan, or two scans differ in a common property.

    Notes
    -----
    Spec: data 7.
    """
    if not scans:
        raise DataError("Joining needs scans.", expected="one scan or more", received="none", fix="name a scan file")
    first = scans[0]
    if len(scans) == 1:
        return first
    made = [scan.attributes.get(PROBE_GUESS) == FROM_PATTERNS for scan in scans]
    for other in scans[1:]:
        _check_alike(first, other, all(made))
    shifts = _shifts_px(scans)
    obj, origin = _joined_objects(scans, shifts)
    return Scan(
        patterns=np.concatenate([scan.patterns for scan in scans]),
        positions_px=np.concatenate([scan.positions_px + shift for scan, shift in zip(scans, shifts, strict=True)]),
        probe=None if all(made) else first.probe,  # type: ignore[arg-type]
        measurement=first.measurement,
        mask=np.logical_and.reduce([scan.mask for scan in scans]),
        obj=obj,
        obj_origin_px=origin,
        pixel_size_m=first.pixel_size_m,
        source=", ".join(scan.source for scan in scans),
        searched=tuple(name for name in first.searched if all(name in scan.searched for scan in scans)),
    )


def _check_alike(first: Scan, other: Scan, made_probes: bool) -> None:
    """Raise an error if one model cannot describe both scans."""
    properties: dict[str, tuple[Any, Any]] = {
        "pattern sizes": (first.N, other.N),
        "measurement domains": (first.measurement, other.measurement),
        "probe modes": (len(first.probe), len(other.probe)),
        "object pixels": (first.pixel_size_m, other.pixel_size_m),
    }
    differing = [f"{name} {one!r} and {two!r}" for name, (one, two) in properties.items() if one != two]
    if (
        not differing
        and not made_probes
        and np.abs(first.probe - other.probe).max() > SAME_PROBE * np.abs(first.probe).max()
    ):
        differing = ["probes"]
    if differing:
        raise DataError(
            "Scans for a common training have equal probe, pattern size, object pixel and measurement domain.",
            expected=f"'{other.source}' like '{first.source}'",
            received=f"different {'; '.join(differing)}",
            fix="train on each scan separately",
        )


def _shifts_px(scans: Sequence[Scan]) -> list[NDArray[np.float64]]:
    """Return the shift of each scan's positions: all scans in one row, each gap wider than any scan."""
    corners = [_corners(scan) for scan in scans]
    gap = max(float(np.linalg.norm(high - low)) for low, high in corners)
    shifts, x = [], 0.0
    for low, high in corners:
        shifts.append(np.array([0.0, x]) - low)
        x += float(np.ceil(high[1] - low[1] + gap))
    return shifts


def _corners(scan: Scan) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return low and high corner (y, x) of the area of a scan; the low corner lies on a pixel of a known object."""
    low, high = scan.positions_px.min(axis=0) - scan.N, scan.positions_px.max(axis=0) + scan.N
    if scan.obj is None:
        return low, high
    origin = np.asarray(scan.obj_origin_px)
    low = origin + np.floor(np.minimum(low - origin, 0.0))
    return low, np.maximum(high, origin + scan.obj.shape)


def _joined_objects(
    scans: Sequence[Scan], shifts: Sequence[NDArray[np.float64]]
) -> tuple[NDArray[np.complex64] | None, tuple[float, float]]:
    """Return one canvas with all objects, 0 between them, and the position of its pixel (0, 0)."""
    objects = [scan.obj for scan in scans if scan.obj is not None]
    if len(objects) < len(scans):
        return None, (0.0, 0.0)
    origins = [np.asarray(scan.obj_origin_px) + shift for scan, shift in zip(scans, shifts, strict=True)]
    corners = [np.rint(origin).astype(int) for origin in origins]
    size = np.max([corner + obj.shape for corner, obj in zip(corners, objects, strict=True)], axis=0)
    canvas = np.zeros((int(size[0]), int(size[1])), dtype=np.complex64)
    for (y, x), obj in zip(corners, objects, strict=True):
        canvas[y : y + obj.shape[0], x : x + obj.shape[1]] = obj
    return canvas, (0.0, 0.0)
