"""Groups of neighbours (data 4)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho_backend.data.grouping import group_positions, groups_from_indices
from ptycho_backend.errors import DataError
from ptycho_backend.testing.strategies import generators, positions


@given(positions_px=positions(9, 30), gridsize=st.integers(1, 3), neighbor_count=st.integers(1, 12), rng=generators())
def test_every_position_seeds_one_group_of_distinct_near_members(positions_px, gridsize, neighbor_count, rng):
    n, C = len(positions_px), gridsize**2
    groups = group_positions(positions_px, gridsize, neighbor_count, None, rng)
    assert groups.indices.shape == (n, C)
    assert len(groups) == n
    assert groups.channels == C
    K = min(max(neighbor_count, C - 1), n - 1)
    for seed, members in enumerate(groups.indices):
        assert seed in members
        assert len(set(members)) == C
        distance = np.linalg.norm(positions_px - positions_px[seed], axis=1)
        allowed = np.sort(distance)[K] + 1e-9
        assert distance[members].max() <= allowed


@given(positions_px=positions(4, 20), rng=generators())
def test_members_are_in_row_major_order(positions_px, rng):
    groups = group_positions(positions_px, 2, 7, None, rng)
    for members in positions_px[groups.indices]:
        assert [tuple(p) for p in members] == sorted(tuple(p) for p in members)


@given(positions_px=positions(4, 20), rng=generators())
def test_offsets_are_positions_minus_the_groups_own_mean(positions_px, rng):
    groups = group_positions(positions_px, 2, 7, None, rng)
    members = positions_px[groups.indices]
    np.testing.assert_allclose(groups.offsets_px + members.mean(axis=1, keepdims=True), members, atol=1e-9)
    np.testing.assert_allclose(groups.offsets_px.sum(axis=1), 0, atol=1e-9)


def test_members_of_a_square_are_in_reading_order():
    positions_px = np.array([[2.0, 3.0], [0.0, 3.0], [2.0, 0.0], [0.0, 0.0]])
    groups = groups_from_indices(positions_px, np.array([[0, 1, 2, 3]]))
    assert groups.indices.tolist() == [[3, 1, 2, 0]]
    np.testing.assert_array_equal(groups.offsets_px, [[[-1, -1.5], [-1, 1.5], [1, -1.5], [1, 1.5]]])
    assert groups.indices.dtype == np.int64


def test_gridsize_one_gives_every_position_without_offset(rng):
    groups = group_positions(rng.random((5, 2)), 1, 7, None, rng)
    np.testing.assert_array_equal(groups.indices, np.arange(5)[:, None])
    np.testing.assert_array_equal(groups.offsets_px, 0)


@pytest.mark.parametrize("gridsize", [1, 2])
def test_fewer_groups_are_a_random_subset_of_seeds(gridsize, rng):
    positions_px = rng.random((30, 2)) * 100
    drawn = [group_positions(positions_px, gridsize, 4, 12, np.random.default_rng(seed)) for seed in range(2)]
    assert [len(groups) for groups in drawn] == [12, 12]
    assert not np.array_equal(drawn[0].indices, drawn[1].indices)
    again = group_positions(positions_px, gridsize, 4, 12, np.random.default_rng(0))
    np.testing.assert_array_equal(again.indices, drawn[0].indices)


def test_members_vary_within_the_neighbourhood(rng):
    positions_px = rng.random((40, 2)) * 100
    groups = [group_positions(positions_px, 2, 10, None, np.random.default_rng(seed)).indices for seed in range(2)]
    assert (groups[0] != groups[1]).any()


def test_coincident_positions_seed_their_groups(rng):
    positions_px = np.zeros((60, 2))  # more coincident positions than neighbours
    groups = group_positions(positions_px, 2, 3, None, rng)
    for seed, members in enumerate(groups.indices):
        assert seed in members
        assert len(set(members)) == 4
    np.testing.assert_array_equal(groups.offsets_px, 0)


def test_small_neighbor_count_is_raised_with_a_message(rng, caplog):
    with caplog.at_level("INFO"):
        groups = group_positions(rng.random((12, 2)), 3, 1, None, rng)
    assert groups.channels == 9
    assert "neighbor_count raised from 1 to 8" in caplog.text


def test_gridsize_squared_positions_are_enough(rng):
    groups = group_positions(rng.random((4, 2)), 2, 7, None, rng)
    assert all(sorted(members) == [0, 1, 2, 3] for members in groups.indices.tolist())


def test_too_few_positions_are_refused(rng):
    with pytest.raises(DataError, match="at least 9 positions, because gridsize=3"):
        group_positions(np.zeros((8, 2)), 3, 7, None, rng)


def test_too_many_groups_are_refused(rng):
    with pytest.raises(DataError, match="n_groups=13 with 12 positions and gridsize=2"):
        group_positions(rng.random((12, 2)), 2, 7, 13, rng)


def test_subset_selects_indices_and_offsets(rng):
    groups = group_positions(rng.random((12, 2)), 2, 7, None, rng)
    part = groups.subset(np.array([7, 2]))
    np.testing.assert_array_equal(part.indices, groups.indices[[7, 2]])
    np.testing.assert_array_equal(part.offsets_px, groups.offsets_px[[7, 2]])
