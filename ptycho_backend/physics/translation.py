"""
Sub-pixel translation: bilinear for patches, by Fourier ramps for probes (spec: physics 1, 8.2).

The centre of an N×N patch lies at offset d from the centre of an S×S canvas.
``scatter_patches(p, d) = T(dy) p T(dx)^T``, and ``extract_patches`` is its exact adjoint.
Both are bilinear, zero outside, and differentiable in the offsets.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def canvas_size(N: int, offsets_px: NDArray[np.floating[Any]]) -> int:
    """Return the canvas side S = N + 2·ceil(max |offset|), pixels."""
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
    """Place N×N patches (..., y, x) on S×S canvases at offsets (..., 2), (y, x) pixels."""
    N = patch.shape[-1]
    Ty = translation_matrix(offset_px[..., 0], N, S)
    Tx = translation_matrix(offset_px[..., 1], N, S)
    return Ty @ patch @ np.swapaxes(Tx, -1, -2)


def extract_patches(canvas: NDArray[Any], offset_px: NDArray[Any], N: int) -> NDArray[Any]:
    """Extract N×N patches from S×S canvases (..., y, x) at offsets (..., 2): adjoint of :func:`scatter_patches`."""
    S = canvas.shape[-1]
    Ty = translation_matrix(offset_px[..., 0], N, S)
    Tx = translation_matrix(offset_px[..., 1], N, S)
    return np.swapaxes(Ty, -1, -2) @ canvas @ Tx


def extract_patches_at(
    obj: NDArray[Any], positions_px: NDArray[np.float64], N: int, origin_px: Iterable[float] = (0.0, 0.0)
) -> NDArray[np.complex64]:
    """
    Extract windows (position, N, N) from an object, bilinearly: adjoint of unweighted stitching.

    Windows are zero outside the object. `origin_px` is the scan coordinate of its pixel (0, 0).
    """
    positions = np.asarray(positions_px, dtype=np.float64)
    corners = positions - N // 2 - np.asarray(tuple(origin_px))
    corners_px = np.floor(corners).astype(int)
    blocks = np.zeros((len(positions), N + 1, N + 1), dtype=np.complex64)
    for block, (y, x) in zip(blocks, corners_px, strict=True):
        _copy_overlap(block, np.asarray(obj), int(y), int(x))
    fy, fx = np.moveaxis((corners - corners_px).astype(np.float32), 1, 0)[..., None, None]
    rows = (1 - fy) * blocks[:, :-1] + fy * blocks[:, 1:]
    return np.asarray((1 - fx) * rows[:, :, :-1] + fx * rows[:, :, 1:], dtype=np.complex64)


def _copy_overlap(block: NDArray[Any], obj: NDArray[Any], y: int, x: int) -> None:
    """Copy the part of `obj` under `block`; pixel (y, x) of the object is the block's corner."""
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + block.shape[0], obj.shape[0]), min(x + block.shape[1], obj.shape[1])
    if bottom > top and right > left:
        block[top - y : bottom - y, left - x : right - x] = obj[top:bottom, left:right]


def fourier_shift_ramps(
    shift_px: NDArray[np.floating[Any]], N: int, dtype: type[np.complexfloating[Any, Any]] = np.complex128
) -> NDArray[Any]:
    """
    Return exp(−2πi·f·shift), the factors that shift a wave of side N in Fourier space.

    Parameters
    ----------
    shift_px : float, shape (position, 2), (y, x)
    N : int
    dtype : complex64 or complex128
        Precision of the result and of the arithmetic.

    Returns
    -------
    complex, shape (position, 2, N)
        Factors along y and along x, in the FFT's own frequency order.
    """
    real = np.finfo(dtype).dtype
    frequency = (np.fft.ifftshift(np.arange(N) - N // 2) / N).astype(real)
    return np.asarray(np.exp(dtype(-2j * np.pi) * shift_px.astype(real)[:, :, None] * frequency))
