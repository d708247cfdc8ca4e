"""
One phase reference for all groups (spec: physics 7.1).

Diffraction fixes each group only up to a constant phase. The weighted inner products of overlapping patches
form a sparse Hermitian matrix; the phases of its leading eigenvector are those constants. Source: Singer,
*Angular synchronization by eigenvectors and semidefinite programming* (2011), with the degree-normalised matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.events import OnEvent, StageEvent, ignore
from ptycho_backend.runtime.memory_map import release

NEIGHBOURS = 8  # overlaps per patch that are measured; more add cost, not information
CELL = 0.25  # side of the cells that give one anchor each, relative to the lit width
SUPPORT_LEVEL = 0.1  # a pixel counts as lit above this share of the brightest weight
MAX_DISTANCE = 0.75  # farthest overlap used, relative to the lit width
CHUNK_PAIRS = 2048
LANCZOS_ABOVE = 16  # smaller components are solved densely


def align_phases(
    patches: NDArray[np.complex64],
    positions_px: NDArray[np.float64],
    weight: NDArray[Any],
    groups: NDArray[np.integer],
    on_event: OnEvent = ignore,
) -> NDArray[np.complex64]:
    """
    Return the unit factor that brings each group to the common phase; multiply its patches by it.

    Parameters
    ----------
    patches : complex64, shape (patch, N, N), may be memory-mapped
    positions_px : float64, shape (patch, 2)
    weight : float, shape (N, N)
    groups : int, shape (patch,)
        Group of each patch, from 0.
    on_event : callable
        Receives StageEvents that count overlaps.

    Returns
    -------
    complex64, shape (group,)
        Groups that overlap no other keep the factor 1; the mean factor of every connected set has phase 0.

    Notes
    -----
    Spec: physics 7.1.
    """
    n_groups = int(groups.max()) + 1 if len(groups) else 0
    factors = np.ones(n_groups, dtype=np.complex64)
    if n_groups < 2:
        return factors
    overlaps = _overlapping_pairs(positions_px, weight, groups)
    pairs = np.concatenate([found for found, _ in overlaps])
    if len(pairs) == 0:
        return factors
    products = []
    for found, box in overlaps:
        for part in _inner_products(patches, positions_px, weight, found, box):
            products.append(part)
            on_event(StageEvent("phase alignment", sum(map(len, products)), len(pairs)))
    for members, matrix in _components(groups[pairs], np.concatenate(products), n_groups):
        vector = _leading_eigenvector(matrix)
        # The common reference is free: keep the mean phase where the network put it.
        vector = vector * np.conj(_unit(_unit(vector).sum()))
        factors[members] = np.conj(_unit(vector))
    return factors


def _unit(z: Any) -> Any:
    magnitude = np.abs(z)
    return np.where(magnitude > 0, z / np.where(magnitude > 0, magnitude, 1.0), 1.0)


def _overlapping_pairs(
    positions_px: NDArray[np.float64], weight: NDArray[Any], groups: NDArray[np.integer]
) -> list[tuple[NDArray[np.intp], int]]:
    """
    Return pairs (pair, 2) of patches of different groups whose lit parts overlap, with a box's side that fits all.

    Pairs with near patches come first, pairs with anchors second: these lie farther apart, and share a smaller box.
    """
    lit = np.asarray(weight) > SUPPORT_LEVEL * np.max(weight)
    width = int(min(np.ptp(np.flatnonzero(lit.any(axis=axis))) + 1 for axis in (0, 1)))
    farthest_px, members = max(MAX_DISTANCE * width, 1.0), int(np.bincount(groups).max())
    everyone, anchors = np.arange(len(positions_px)), _anchors(positions_px, max(CELL * width, 1.0))
    # The nearest alone would tie a patch to its own line of a fly scan, or to its own repeats, and to nothing else.
    near = _with_nearest(positions_px, everyone, NEIGHBOURS * members + 1, farthest_px)
    far = _with_nearest(positions_px, anchors, NEIGHBOURS + 1, farthest_px)
    pairs = np.sort(np.concatenate([near, far]), axis=1)
    is_far = np.arange(len(pairs)) >= len(near)
    use = groups[pairs[:, 0]] != groups[pairs[:, 1]]
    pairs, first = np.unique(pairs[use], axis=0, return_index=True)
    is_far = is_far[use][first]  # what is found twice is near
    corners = np.rint(positions_px).astype(int)
    reach = np.abs(corners[pairs[:, 0]] - corners[pairs[:, 1]]).max(axis=1, initial=0)
    return [(pairs[chosen], max(1, width - int(reach[chosen].max(initial=0)))) for chosen in (~is_far, is_far)]


def _anchors(positions_px: NDArray[np.float64], cell_px: float) -> NDArray[np.intp]:
    """Return one patch of every occupied cell of a grid, the nearest to the cell's centre."""
    cells = np.floor(positions_px / cell_px)
    inner = np.argsort(((positions_px / cell_px - cells - 0.5) ** 2).sum(axis=1), kind="stable")
    first = np.unique(cells[inner], axis=0, return_index=True)[1]
    return np.asarray(inner[first])


def _with_nearest(
    positions_px: NDArray[np.float64], rows: NDArray[np.intp], k: int, farthest_px: float
) -> NDArray[np.intp]:
    """Return pairs (pair, 2) of every patch with the k nearest of some patches."""
    from scipy.spatial import cKDTree

    k = min(k, len(rows))
    tree = cKDTree(positions_px[rows])
    distance, near = tree.query(positions_px, k=k, p=np.inf, distance_upper_bound=farthest_px)
    found = np.isfinite(distance).ravel()
    first = np.repeat(np.arange(len(positions_px)), k)
    return np.stack([first[found], rows[np.asarray(near).ravel()[found]]], axis=1)


def _inner_products(
    patches: NDArray[np.complex64],
    positions_px: NDArray[np.float64],
    weight: NDArray[Any],
    pairs: NDArray[np.intp],
    box: int,
) -> Iterator[NDArray[np.complex128]]:
    """Yield Σ w·w'·p·conj(p') over a box in the middle of each pair's overlap, to the nearest pixel, in chunks."""
    N = patches.shape[-1]
    windows = np.lib.stride_tricks.sliding_window_view(patches, (box, box), axis=(1, 2))
    trust = np.lib.stride_tricks.sliding_window_view(np.asarray(weight, dtype=np.float32), (box, box))
    corners = np.rint(positions_px).astype(int)
    for start in range(0, len(pairs), CHUNK_PAIRS):
        first, second = pairs[start : start + CHUNK_PAIRS].T
        # The box lies in the middle of what two windows share, on the same pixels of the object in both.
        corner = np.maximum(corners[first], corners[second])
        corner = corner + (N - np.abs(corners[first] - corners[second]) - box) // 2
        (y1, x1), (y2, x2) = (np.clip(corner - corners[patch], 0, N - box).T for patch in (first, second))
        one = windows[first, y1, x1] * trust[y1, x1]
        other = windows[second, y2, x2] * trust[y2, x2]
        release(patches)
        yield np.einsum("pij,pij->p", one, np.conj(other)).astype(np.complex128)


def _components(
    pairs: NDArray[np.integer], products: NDArray[np.complex128], n_groups: int
) -> list[tuple[NDArray[np.intp], Any]]:
    """Return, for every connected set of groups, its members and its normalised Hermitian matrix."""
    from scipy.sparse import coo_matrix, diags
    from scipy.sparse.csgraph import connected_components

    half = coo_matrix((products, (pairs[:, 0], pairs[:, 1])), shape=(n_groups, n_groups)).tocsr()
    matrix = half + half.conj().T
    degree = np.asarray(abs(matrix).sum(axis=1)).ravel()
    scale = diags(1.0 / np.sqrt(np.where(degree > 0, degree, 1.0)))
    matrix = (scale @ matrix @ scale).tocsr()
    count, label = connected_components(abs(matrix), directed=False)
    sets = (np.flatnonzero(label == i) for i in range(count))
    return [(members, matrix[members][:, members]) for members in sets if len(members) > 1]


def _leading_eigenvector(matrix: Any) -> NDArray[np.complex128]:
    from scipy.sparse.linalg import eigsh

    if matrix.shape[0] <= LANCZOS_ABOVE:
        return np.asarray(np.linalg.eigh(matrix.toarray())[1][:, -1])
    start = np.ones(matrix.shape[0], dtype=np.complex128)
    return np.asarray(eigsh(matrix, k=1, which="LA", v0=start, tol=1e-6)[1][:, 0])
