"""Orientations: how the axes of a scan's positions stand to those of its patterns (spec: data 11)."""

from __future__ import annotations

import numpy as np

from ptycho_backend.data.scan import Scan

AS_GIVEN = "+y+x"
# Rows: the coordinates (y, x) that the detector sees, from those of the scan.
ORIENTATIONS: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {
    AS_GIVEN: ((1, 0), (0, 1)),
    "-y+x": ((-1, 0), (0, 1)),
    "+y-x": ((1, 0), (0, -1)),
    "-y-x": ((-1, 0), (0, -1)),
    "+x+y": ((0, 1), (1, 0)),
    "-x+y": ((0, -1), (1, 0)),
    "+x-y": ((0, 1), (-1, 0)),
    "-x-y": ((0, -1), (-1, 0)),
}
NAMES = {
    AS_GIVEN: "as given",
    "-y+x": "the y axis mirrored",
    "+y-x": "the x axis mirrored",
    "-y-x": "both axes mirrored",
    "+x+y": "the axes exchanged",
    "-x+y": "the axes exchanged, and the first one mirrored",
    "+x-y": "the axes exchanged, and the second one mirrored",
    "-x-y": "the axes exchanged and mirrored",
}


def oriented(scan: Scan, orientation: str) -> Scan:
    """
    Return a scan whose positions stand as the detector sees them.

    Patterns, probe and a known object stay as they are.

    Parameters
    ----------
    scan : Scan
    orientation : str
        A name of `ORIENTATIONS`: the first new coordinate, then the second, in terms of the given y and x.
    """
    if orientation == AS_GIVEN:
        return scan
    return scan.changed(positions_px=scan.positions_px @ np.array(ORIENTATIONS[orientation], dtype=np.float64).T)


def better_orientation_text(orientation: str) -> str:
    """Return the sentence that names an orientation which fits better than the given one."""
    text = (
        f"The patterns fit much better with {NAMES[orientation]}: orientation='{orientation}' turns the positions so, "
        "and orientation='auto' finds it."
    )
    if orientation == "-y-x":
        text += " Without a good probe guess this may be the twin image, which explains the patterns as well."
    return text
