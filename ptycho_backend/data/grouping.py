"""Groups of neighbouring positions, as indices (spec: data 4)."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.errors import DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Groups:
    """
    Groups of C neighbouring positions; members are in row-major order of position.

    Parameters
    ----------
    indices : int64, shape (group, channel)
        Rows of the scan.
    offsets_px : float64, shape (group, channel, 2), (y, x)
        Position minus the group's mean position.
    """

    indices: NDArray[np.int64]
    offsets_px: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def channels(self) -> int:
        """Members per group, C."""
        return int(self.indices.shape[1])

    def subset(self, rows: NDArray[np.intp] | slice) -> Groups:
        """Return some of the groups."""
        return Groups(self.indices[rows], self.offsets_px[rows])


def group_positions(
    positions_px: NDArray[np.float64],
    gridsize: int,
    neighbor_count: int,
    n_groups: int | None,
    rng: np.random.Generator,
) -> Groups:
    """
    Draw groups of gridsize² neighbouring positions.

    Every position seeds one group: itself and gridsize² − 1 members drawn from its `neighbor_count` nearest
    neighbours. A smaller `n_groups` draws a random subset of the seeds.

    Parameters
    ----------
    positions_px : float64, shape (position, 2), (y, x)
    gridsize, neighbor_count : int
    n_groups : int, optional
        None makes one group for every position.
    rng : numpy Generator

    Raises
    ------
    DataError
        If there are fewer positions than gridsize², or fewer positions than requested groups.
    """
    n, C = len(positions_px), gridsize**2
    if n < C:
        raise DataError(
            "A group needs gridsize² positions.",
            expected=f"at least {C} positions, because gridsize={gridsize}",
            received=f"{n} positions",
            fix="choose a smaller gridsize, or load more of the scan",
        )
    if n_groups is not None and n_groups > n:
        raise DataError(
            "A scan yields at most one group for every position.",
            expected=f"n_groups ≤ {n}",
            received=f"n_groups={n_groups} with {n} positions and gridsize={gridsize}",
            fix="leave n_groups out to use every position once",
        )
    seeds = np.arange(n) if n_groups is None else np.sort(rng.choice(n, n_groups, replace=False))
    indices = seeds[:, None] if C == 1 else _with_neighbours(positions_px, seeds, C, neighbor_count, rng)
    return groups_from_indices(positions_px, indices)


def groups_from_indices(positions_px: NDArray[np.float64], indices: NDArray[np.integer]) -> Groups:
    """Sort the members of every group in row-major order of position and compute their offsets."""
    members = positions_px[indices]
    order = np.lexsort((members[..., 1], members[..., 0]), axis=-1)
    ordered = np.take_along_axis(indices, order, axis=1).astype(np.int64)
    members = positions_px[ordered]
    return Groups(ordered, members - members.mean(axis=1, keepdims=True))


def _with_neighbours(
    positions_px: NDArray[np.float64],
    seeds: NDArray[np.intp],
    C: int,
    neighbor_count: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    from scipy.spatial import cKDTree

    K = min(max(neighbor_count, C - 1), len(positions_px) - 1)
    if K > neighbor_count:
        logger.info("neighbor_count raised from %d to %d: a group has %d members", neighbor_count, K, C)
    _, near = cKDTree(positions_px).query(positions_px[seeds], k=K + 1)
    near = np.asarray(near).reshape(len(seeds), K + 1)
    # Coincident positions can displace the seed itself from the first place.
    is_seed = near == seeds[:, None]
    distance_rank = np.where(is_seed, -1, np.arange(K + 1))
    near = np.take_along_axis(near, np.argsort(distance_rank, axis=1, kind="stable"), axis=1)
    chosen = np.argsort(rng.random((len(seeds), K)), axis=1)[:, : C - 1] + 1
    return np.concatenate([seeds[:, None], np.take_along_axis(near, chosen, axis=1)], axis=1).astype(np.int64)
