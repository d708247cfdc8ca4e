"""
Translation of patches by pairs of small matrices (spec: physics 1).

A patch of N×N pixels whose offset is d falls onto a canvas of S×S pixels with its centre displaced by d from
the canvas centre: ``scatter_patches(p, d) = T(dy) p T(dx)^T``. ``extract_patches`` is the exact adjoint. Both are bilinear,
zero outside, and differentiable in the offsets.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def canvas_size(N: int, offsets_px: NDArray[np.floating[Any]]) -> int:
    """Return the one padded size, S = N + 2·ceil(max |offset|), pixels."""
    largest = float(np.abs(offsets_px).max()) if np.size(offsets_px) else 0.0
    return N + 2 * int(np.ceil(largest))


def translation_matrix(offset_px: NDArray[np.floating[Any]], N: int, S: int) -> NDArray[np.float64]:
    """
    Return T(d)[i, j] = max(0, 1 − |(i − (S−1)/2) − (j − (N−1)/2) − d|).

    Parameters
    ----------
    offset_px : float, shape (...)
        Displacement along one axis, pixels.
    N, S : int
        Side of patch and canvas, pixels.

    Returns
    -------
    float64, shape (..., S, N)
    """
    rows = np.arange(S)[:, None] - (S - 1) / 2
    columns = np.arange(N)[None, :] - (N - 1) / 2
    distance = rows - columns - np.asarray(offset_px, dtype=np.float64)[..., None, None]
    return np.maximum(0.0, 1.0 - np.abs(distance))


def scatter_patches(patch: NDArray[Any], offset_px: NDArray[Any], S: int) -> NDArray[Any]:
    """Put N×N patches (..., y, x) on S×S canvases at offsets (..., 2), (y, x) pixels."""
    N = patch.shape[-1]
    Ty = translation_matrix(offset_px[..., 0], N, S)
    Tx = translation_matrix(offset_px[..., 1], N, S)
    return Ty @ patch @ np.swapaxes(Tx, -1, -2)


def extract_patches(canvas: NDArray[Any], offset_px: NDArray[Any], N: int) -> NDArray[Any]:
    """Cut N×N patches out of S×S canvases (..., y, x) at offsets (..., 2): the adjoint of :func:`scatter_patches`."""
    S = canvas.shape[-1]
    Ty = translation_matrix(offset_px[..., 0], N, S)
    Tx = translation_matrix(offset_px[..., 1], N, S)
    return np.swapaxes(Ty, -1, -2) @ canvas @ Tx


def extract_patches_at(
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
