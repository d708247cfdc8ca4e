"""One phase reference for all groups (physics 7)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho_backend.physics.translation import extract_patches_at
from ptycho_backend.solver.phase_synchronization import LANCZOS_ABOVE, align_phases
from ptycho_backend.testing.strategies import complex_noise, generators

N = 16
ONES = np.ones((N, N), np.float32)


def turned(obj, positions_px, owners, rng):
    """Cut patches and turn each group by a random phase; return the patches and those phases as unit factors."""
    turns = np.exp(1j * rng.uniform(0, 2 * np.pi, size=int(owners.max()) + 1))
    patches = extract_patches_at(obj, positions_px, N, (-30.0, -30.0)) * turns[owners, None, None]
    return patches.astype(np.complex64), turns


def agree(factors, turns):
    """Fail unless the factors undo the turns up to one common phase."""
    rest = factors * turns
    np.testing.assert_allclose(np.abs(factors), 1.0, atol=1e-5)
    np.testing.assert_allclose(rest / rest[0], 1.0, atol=2e-3)


@given(rng=generators(), n=st.integers(2, 40))
def test_random_phases_are_recovered_on_whole_pixels(rng, n):
    # Noise as object: overlaps that are off by one pixel would not agree at all.
    obj = complex_noise(rng, 80, 80)
    positions_px = np.unique(np.cumsum(rng.integers(-5, 6, size=(n, 2)), axis=0).clip(-20, 40), axis=0).astype(float)
    owners = np.arange(len(positions_px))
    patches, turns = turned(obj, positions_px, owners, rng)
    agree(align_phases(patches, positions_px, ONES, owners), turns)


@pytest.mark.parametrize("distance", range(12))
def test_two_patches_at_any_distance(distance, rng):
    obj = complex_noise(rng, 80, 80)
    for direction in ([1, 0], [0, -1], [-1, 1]):
        positions_px = np.array([[3.0, 5.0], [3.0, 5.0] + distance * np.array(direction)])
        patches, turns = turned(obj, positions_px, np.arange(2), rng)
        agree(align_phases(patches, positions_px, ONES, np.arange(2)), turns)


@given(rng=generators(), n=st.integers(2, 40))
def test_between_pixels_a_smooth_object_is_recovered(rng, n):
    y, x = np.indices((80, 80)) / 80
    obj = (1 + 0.3 * np.sin(9 * x)) * np.exp(1j * np.cos(5 * y + 3 * x))
    positions_px = np.cumsum(rng.uniform(-5, 5, size=(n, 2)), axis=0).clip(-20, 40)
    patches, turns = turned(obj, positions_px, np.arange(n), rng)
    factors = align_phases(patches, positions_px, ONES, np.arange(n))
    rest = factors * turns
    np.testing.assert_allclose(rest / rest[0], 1.0, atol=0.1)


@given(rng=generators())
def test_the_patches_of_a_group_turn_together(rng):
    obj = complex_noise(rng, 80, 80)
    centres = np.cumsum(rng.integers(-4, 5, size=(9, 2)), axis=0).clip(-15, 35)
    positions_px = (centres[:, None] + rng.integers(-3, 4, size=(9, 4, 2))).reshape(-1, 2).astype(float)
    owners = np.repeat(np.arange(9), 4)
    patches, turns = turned(obj, positions_px, owners, rng)
    factors = align_phases(patches, positions_px, ONES, owners)
    assert factors.shape == (9,)
    agree(factors, turns)


def test_many_groups_take_the_iterative_solver(rng):
    n = 4 * LANCZOS_ABOVE
    obj = complex_noise(rng, 80, 80)
    positions_px = np.stack(np.divmod(np.arange(n), 8), axis=1) * 6.0 - 20.0 + rng.integers(0, 3, size=(n, 2))
    patches, turns = turned(obj, positions_px, np.arange(n), rng)
    agree(align_phases(patches, positions_px, ONES, np.arange(n)), turns)


@pytest.mark.parametrize(
    ("step", "line", "repeats"), [(1, 6, 1), (1, 9, 1), (3, 3, 12)], ids=["fly scan", "sparse lines", "repeats"]
)
def test_lines_and_repeats_are_tied_to_their_neighbours(rng, step, line, repeats):
    """A patch's nearest are all on its own line, or its own repeats; what joins it to the others lies farther off."""
    places = np.array([[y * line, x * step] for y in range(4) for x in range(24)], dtype=float)
    positions_px = np.repeat(places[rng.permutation(len(places))], repeats, axis=0) - 20.0
    patches, turns = turned(complex_noise(rng, 120, 120), positions_px, np.arange(len(positions_px)), rng)
    agree(align_phases(patches, positions_px, ONES, np.arange(len(positions_px))), turns)


@given(rng=generators(), n=st.integers(2, 12))
def test_the_mean_phase_stays_where_the_network_put_it(rng, n):
    patches, _ = turned(complex_noise(rng, 80, 80), rng.integers(0, 6, size=(n, 2)), np.arange(n), rng)
    factors = align_phases(patches, rng.integers(0, 6, size=(n, 2)).astype(float), ONES, np.arange(n))
    assert np.angle(factors.sum()) == pytest.approx(0.0, abs=1e-4)
    assert abs(factors.sum()) > 0


def test_patches_that_agree_already_are_left_alone(rng):
    obj = complex_noise(rng, 80, 80)
    positions_px = rng.integers(0, 12, size=(10, 2)).astype(float)
    patches = extract_patches_at(obj, positions_px, N, (-30.0, -30.0))
    np.testing.assert_allclose(align_phases(patches, positions_px, ONES, np.arange(10)), 1.0, atol=1e-3)


def test_sets_that_do_not_touch_are_aligned_each_by_itself(rng):
    obj = complex_noise(rng, 200, 200)
    near = rng.integers(0, 8, size=(6, 2)).astype(float)
    positions_px = np.concatenate([near, near + 100.0, [[-29.0, 160.0]]])
    owners = np.arange(13)
    patches, turns = turned(obj, positions_px, owners, rng)
    factors = align_phases(patches, positions_px, ONES, owners)
    for part in (slice(0, 6), slice(6, 12)):
        agree(factors[part], turns[part])
        assert np.angle(factors[part].sum()) == pytest.approx(0.0, abs=1e-4)
    assert factors[12] == 1.0


def test_one_group_and_no_group(rng):
    patches = complex_noise(rng, 4, N, N).astype(np.complex64)
    np.testing.assert_array_equal(align_phases(patches, rng.random((4, 2)), ONES, np.zeros(4, int)), [1.0])
    np.testing.assert_array_equal(align_phases(patches[:1], np.zeros((1, 2)), ONES, np.zeros(1, int)), [1.0])
    assert align_phases(patches[:0], np.zeros((0, 2)), ONES, np.zeros(0, int)).shape == (0,)


def test_coincident_positions_are_aligned_too(rng):
    obj = complex_noise(rng, 80, 80)
    positions_px = np.tile([[4.0, 7.0]], (5, 1))
    patches, turns = turned(obj, positions_px, np.arange(5), rng)
    agree(align_phases(patches, positions_px, ONES, np.arange(5)), turns)


def test_unlit_pixels_do_not_vote(rng):
    y, x = np.indices((N, N)) - N // 2
    weight = (np.hypot(y, x) <= 6).astype(np.float32)
    obj = complex_noise(rng, 80, 80)
    positions_px = np.array([[0.0, 0.0], [3.0, 1.0], [5.0, -2.0], [2.0, 4.0]])
    patches, turns = turned(obj, positions_px, np.arange(4), rng)
    noisy = np.where(weight > 0, patches, 100 * complex_noise(rng, 4, N, N)).astype(np.complex64)
    agree(align_phases(noisy, positions_px, weight, np.arange(4)), turns)


def test_dark_patches_do_no_harm(rng):
    obj = complex_noise(rng, 80, 80)
    positions_px = rng.integers(0, 8, size=(6, 2)).astype(float)
    patches, turns = turned(obj, positions_px, np.arange(6), rng)
    patches[2] = 0
    factors = align_phases(patches, positions_px, ONES, np.arange(6))
    assert np.isfinite(factors).all()
    others = [0, 1, 3, 4, 5]
    agree(factors[others], turns[others])
