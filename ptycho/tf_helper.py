"""Stitching of patches, under the name of the earlier TensorFlow package (spec: ptychodus_api_spec 4.14)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho.scan_array import ScanContext, context_of
from ptycho_backend.data.fields import from_window_middles
from ptycho_backend.errors import ShapeError
from ptycho_backend.physics.calibration import probe_weight
from ptycho_backend.solver.scan_geometry import CanvasFrame
from ptycho_backend.solver.stitching import central, stitch_groups, support_half_px

SAME_POSITION_PX = 1e-3


def reassemble_position(obj_tensor: Any, global_offsets: Any, M: int = 10) -> NDArray[np.complex64]:
    """
    Stitch patches into one image.

    Patches with a scan context, as `predict` returns them, are aligned in phase and weighted by the probe, as in
    `reconstruct`; `M` has no effect. The canvas is centred on the grid of the scan's known object. Without a known
    object it is centred on the midpoint of the coordinates' bounding box. Plain patches contribute their central M×M
    pixels with equal weights, and their middles lie at the coordinates.

    Parameters
    ----------
    obj_tensor : complex, shape (B, N, N, C)
        Object patches; C is 1 for plain arrays.
    global_offsets : float, shape (B, 1, 2, 1), pixels
        Positions of the groups, x before y.
    M : int
        Side of the central square of plain patches, pixels.

    Returns
    -------
    complex64, shape (y, x, 1)

    Raises
    ------
    ShapeError
        If patches and offsets do not fit each other.
    """
    patches = np.moveaxis(np.asarray(obj_tensor), -1, 1).astype(np.complex64, copy=False)
    centres = np.asarray(global_offsets, dtype=np.float64).reshape(len(patches), -1)[:, ::-1]
    if centres.shape[1] != 2:
        raise _shape_error(obj_tensor, global_offsets)
    context = context_of(obj_tensor)
    if context is not None and context.describes(np.shape(obj_tensor)):
        return _stitched_as_scan(patches, centres, context)[..., None]
    if patches.shape[1] != 1:
        raise _shape_error(obj_tensor, global_offsets)
    square = central(patches, max(1, min(M, patches.shape[-1]) // 2))
    weight = np.ones(square.shape[2:], np.float32)
    positions = from_window_middles(centres, 2)  # half a pixel, as for every even window
    frame = _frame_around(centres, square.shape[-1])
    return stitch_groups(square, positions[:, None], weight, frame, False).obj[..., None]


def _stitched_as_scan(
    patches: NDArray[np.complex64], centres: NDArray[np.float64], context: ScanContext
) -> NDArray[np.complex64]:
    """Stitch patches (group, channel, y, x) of a scan, at the scan's positions or at changed group centres."""
    scan, members = context.scan, context.scan.positions_px[context.groups.indices]
    positions = centres[:, None] + context.shift_px
    moved = np.abs(members.mean(axis=1, keepdims=True) - positions).max() > SAME_POSITION_PX
    if moved and patches.shape[1] > 1:
        raise ShapeError(
            "Patches and offsets of groups must come from the same container.",
            expected="the global_offsets of the container whose X was given to predict()",
            received="other coordinates for groups of several patches",
            fix="change the coordinates of the RawData instead, before grouping",
        )
    frame = CanvasFrame.around(scan.positions_px, scan.N, context.centre_px)
    if moved:
        frame = _frame_around(centres, scan.N)
    weight = context.weight if context.weight is not None else probe_weight(scan.probe).astype(np.float32)
    half = support_half_px(weight)
    centres_px = positions if moved else members
    return stitch_groups(central(patches, half), centres_px, central(weight, half), frame).obj


def _frame_around(coordinates: NDArray[np.float64], N: int) -> CanvasFrame:
    """Return the canvas frame of windows at some coordinates, centred on the midpoint of their bounding box."""
    y, x = (coordinates.min(axis=0) + coordinates.max(axis=0)) / 2
    return CanvasFrame.around(from_window_middles(coordinates, N), N, (float(y), float(x)))


def _shape_error(obj_tensor: Any, global_offsets: Any) -> ShapeError:
    return ShapeError(
        "Every patch has one position.",
        expected="patches of shape (B, N, N, 1) and offsets of shape (B, 1, 2, 1)",
        received=f"shapes {np.shape(obj_tensor)} and {np.shape(global_offsets)}, without a scan context",
        fix="pass the result of predict() and the container's global_offsets unchanged",
    )
