"""
Stitching under the name that existing users import.

Notes
-----
Spec: ptychodus_api_spec 4.12.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.scan_array import ScanContext, context_of
from ptycho_backend.core.calibration import probe_weight
from ptycho_backend.core.inference import central, lit_half, stitch_groups
from ptycho_backend.core.stitching import CanvasFrame, stitch
from ptycho_backend.errors import ShapeError

SAME_PLACE_PX = 1e-3


def reassemble_position(obj_tensor: Any, global_offsets: Any, M: int = 10) -> NDArray[np.complex64]:
    """
    Stitch patches into one image.

    Patches that know their scan, as `predict` returns them, get one phase reference and are weighted by the probe,
    as `reconstruct` does; `M` is not used. The canvas is centred on the grid of the scan's known object, where there
    is one, else on the midpoint of the scan's bounding box. Of plain patches the central M×M pixels count equally.

    Parameters
    ----------
    obj_tensor : complex, shape (B, N, N, C)
        C is 1 for plain arrays.
    global_offsets : float, shape (B, 1, 2, 1), pixels
        Where the groups lie, x before y.
    M : int

    Returns
    -------
    complex64, shape (y, x, 1)

    Raises
    ------
    ShapeError
        If patches and offsets do not belong together.
    """
    patches = np.moveaxis(np.asarray(obj_tensor), -1, 1).astype(np.complex64, copy=False)
    centres = np.asarray(global_offsets, dtype=np.float64).reshape(len(patches), -1)[:, ::-1]
    if centres.shape[1] != 2:
        raise _mismatch(obj_tensor, global_offsets)
    context = context_of(obj_tensor)
    if context is not None and context.describes(np.shape(obj_tensor)):
        return _stitched_as_scan(patches, centres, context)[..., None]
    if patches.shape[1] != 1:
        raise _mismatch(obj_tensor, global_offsets)
    cut = central(patches[:, 0], max(1, min(M, patches.shape[-1]) // 2))
    return stitch(cut, centres, np.ones(cut.shape[1:])).obj[..., None]


def _stitched_as_scan(
    patches: NDArray[np.complex64], centres: NDArray[np.float64], context: ScanContext
) -> NDArray[np.complex64]:
    """Stitch patches (group, channel, y, x) of a scan; groups that were moved lie where they are said to."""
    scan, members = context.scan, context.scan.positions_px[context.groups.indices]
    moved = np.abs(members.mean(axis=1) - centres).max() > SAME_PLACE_PX
    if moved and patches.shape[1] > 1:
        raise ShapeError(
            "Patches and offsets of groups come from the same container.",
            expected="the global_offsets of the container whose X was given to predict()",
            received="other coordinates for groups of several patches",
            fix="change the coordinates of the RawData instead, before grouping",
        )
    positions = centres[:, None] if moved else members
    frame = CanvasFrame.around(centres if moved else scan.positions_px, scan.N, None if moved else context.centre_px)
    weight = context.weight if context.weight is not None else probe_weight(scan.probe).astype(np.float32)
    half = lit_half(weight)
    return stitch_groups(central(patches, half), positions, central(weight, half), frame).obj


def _mismatch(obj_tensor: Any, global_offsets: Any) -> ShapeError:
    return ShapeError(
        "Every patch has one place.",
        expected="patches of shape (B, N, N, 1) and offsets of shape (B, 1, 2, 1)",
        received=f"shapes {np.shape(obj_tensor)} and {np.shape(global_offsets)}, which do not know their scan",
        fix="pass what predict() returned, and the container's global_offsets, as they are",
    )
