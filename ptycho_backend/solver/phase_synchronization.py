"""
Phase synchronisation by eigenvectors: one phase reference for all groups (spec: physics 7.1).

Diffraction fixes each group only up to a constant phase. Weighted inner products of overlapping patches
form a sparse Hermitian matrix, normalised by its degrees. Its leading eigenvector contains these phases.

References
----------
Singer, *Angular synchronization by eigenvectors and semidefinite programming* (2011).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.events import OnEvent, StageEvent, ignore
from ptycho_backend.runtime.memory_map import release

NEIGHBOURS = 8  # overlaps per patch; more add cost but no information
CELL = 0.25  # side of a cell with one anchor, relative to the support width
SUPPORT_LEVEL = 0.1  # the support: pixels above this share of the largest weight
MAX_DISTANCE = 0.75  # largest distance of two patches, relative to the support width
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
    Return the unit factors that align the phases of all groups.

    Parameters
    ----------
    patches : complex64, shape (patch, N, N), may be memory-mapped
    positions_px : float64, shape (patch, 2)
    weight : float, shape (N, N)
    groups : int, shape (patch,)
        Group of each patch, from 0.
    on_event : callable
        Receives StageEvents; their steps are overlaps.

    Returns
    -------
    complex64, shape (group,)
        Multiply a group's patches by its factor. Groups without overlap have factor 1.
        The mean factor of every connected set has phase 0.

    Notes
    -----
    Spec: physics 7.1.
    """
    n_groups = int(groups.max()) + 1 if len(groups) else 0
    factors = np.ones(n_groups, dtype=np.complex64)
    if n_groups < 2:
        return factors
    overlaps = _overlapping_pairs(positions_px, weight, groups)
    pairs = np.concatenate([pairs for pairs, _ in overlaps])
    if len(pairs) == 0:
        return factors
    products = []
    for box_pairs, box_px in overlaps:
        for chunk in _inner_products(patches, positions_px, weight, box_pairs, box_px):
            products.append(chunk)
            on_event(StageEvent("phase alignment", sum(map(len, products)), len(pairs)))
    for members, matrix in _components(groups[pairs], np.concatenate(products), n_groups):
        vector = _leading_eigenvector(matrix)
        # The common phase is free: keep the network's mean phase.
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
    Return pairs (pair, 2) of patches of different groups with overlapping support, and a box side for all of them.

    The first entry pairs neighbours. The second pairs patches with anchors, which are farther: its box is smaller.
    """
    support = np.asarray(weight) > SUPPORT_LEVEL * np.max(weight)
    width_px = int(min(np.ptp(np.flatnonzero(support.any(axis=axis))) + 1 for axis in (0, 1)))
    max_distance_px, group_size = max(MAX_DISTANCE * width_px, 1.0), int(np.bincount(groups).max())
    all_rows, anchors = np.arange(len(positions_px)), _anchors(positions_px, max(CELL * width_px, 1.0))
    # Neighbours alone may all lie on one line of a fly scan, or be repeats of one position: anchors join these sets.
    near = _with_nearest(positions_px, all_rows, NEIGHBOURS * group_size + 1, max_distance_px)
    far = _with_nearest(positions_px, anchors, NEIGHBOURS + 1, max_distance_px)
    pairs = np.sort(np.concatenate([near, far]), axis=1)
    is_far = np.arange(len(pairs)) >= len(near)
    valid = groups[pairs[:, 0]] != groups[pairs[:, 1]]
    pairs, first = np.unique(pairs[valid], axis=0, return_index=True)
    is_far = is_far[valid][first]  # a pair in both lists counts as near
    corners = np.rint(positions_px).astype(int)
    distance_px = np.abs(corners[pairs[:, 0]] - corners[pairs[:, 1]]).max(axis=1, initial=0)
    return [(pairs[part], max(1, width_px - int(distance_px[part].max(initial=0)))) for part in (~is_far, is_far)]


def _anchors(positions_px: NDArray[np.float64], cell_px: float) -> NDArray[np.intp]:
    """Return for every occupied grid cell the patch nearest to the cell's centre."""
    cells = np.floor(positions_px / cell_px)
    order = np.argsort(((positions_px / cell_px - cells - 0.5) ** 2).sum(axis=1), kind="stable")
    first = np.unique(cells[order], axis=0, return_index=True)[1]
    return np.asarray(order[first])


def _with_nearest(
    positions_px: NDArray[np.float64], rows: NDArray[np.intp], k: int, max_distance_px: float
) -> NDArray[np.intp]:
    """Return pairs (pair, 2) of every patch and its k nearest patches among `rows`."""
    from scipy.spatial import cKDTree

    k = min(k, len(rows))
    tree = cKDTree(positions_px[rows])
    distance, near = tree.query(positions_px, k=k, p=np.inf, distance_upper_bound=max_distance_px)
    within = np.isfinite(distance).ravel()
    first = np.repeat(np.arange(len(positions_px)), k)
    return np.stack([first[within], rows[np.asarray(near).ravel()[within]]], axis=1)


def _inner_products(
    patches: NDArray[np.complex64],
    positions_px: NDArray[np.float64],
    weight: NDArray[Any],
    pairs: NDArray[np.intp],
    box_px: int,
) -> Iterator[NDArray[np.complex128]]:
    """Yield Σ w·w'·p·conj(p') over a box in the middle of each pair's overlap, to the nearest pixel, in chunks."""
    N = patches.shape[-1]
    boxes = np.lib.stride_tricks.sliding_window_view(patches, (box_px, box_px), axis=(1, 2))
    weights = np.lib.stride_tricks.sliding_window_view(np.asarray(weight, dtype=np.float32), (box_px, box_px))
    corners = np.rint(positions_px).astype(int)
    for start in range(0, len(pairs), CHUNK_PAIRS):
        first, second = pairs[start : start + CHUNK_PAIRS].T
        # The box covers the same object pixels in both windows.
        corner = np.maximum(corners[first], corners[second])
        corner = corner + (N - np.abs(corners[first] - corners[second]) - box_px) // 2
        (y1, x1), (y2, x2) = (np.clip(corner - corners[patch], 0, N - box_px).T for patch in (first, second))
        one = boxes[first, y1, x1] * weights[y1, x1]
        other = boxes[second, y2, x2] * weights[y2, x2]
        release(patches)
        yield np.einsum("pij,pij->p", one, np.conj(other)).astype(np.complex128)


def _components(
    pairs: NDArray[np.integer], products: NDArray[np.complex128], n_groups: int
) -> list[tuple[NDArray[np.intp], Any]]:
    """Return the members and the normalised Hermitian matrix of every connected set of groups."""
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
