"""Phase synchronisation of groups (physics 7.1)."""

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


def with_random_phases(obj, positions_px, groups, rng):
    """Return patches with a random phase for each group, and these phases as unit factors."""
    phases = np.exp(1j * rng.uniform(0, 2 * np.pi, size=int(groups.max()) + 1))
    patches = extract_patches_at(obj, positions_px, N, (-30.0, -30.0)) * phases[groups, None, None]
    return patches.astype(np.complex64), phases


def assert_aligned(factors, phases):
    """Assert that the factors remove the random phases up to one common phase."""
    rest = factors * phases
    np.testing.assert_allclose(np.abs(factors), 1.0, atol=1e-5)
    np.testing.assert_allclose(rest / rest[0], 1.0, atol=2e-3)


@given(rng=generators(), n=st.integers(2, 40))
def test_random_phases_are_recovered_at_whole_pixels(rng, n):
    # A noise object is uncorrelated from pixel to pixel: an overlap wrong by one pixel fails.
    obj = complex_noise(rng, 80, 80)
    positions_px = np.unique(np.cumsum(rng.integers(-5, 6, size=(n, 2)), axis=0).clip(-20, 40), axis=0).astype(float)
    groups = np.arange(len(positions_px))
    patches, phases = with_random_phases(obj, positions_px, groups, rng)
    assert_aligned(align_phases(patches, positions_px, ONES, groups), phases)


@pytest.mark.parametrize("distance", range(12))
def test_two_patches_are_aligned_at_any_distance(distance, rng):
    obj = complex_noise(rng, 80, 80)
    for direction in ([1, 0], [0, -1], [-1, 1]):
        positions_px = np.array([[3.0, 5.0], [3.0, 5.0] + distance * np.array(direction)])
        patches, phases = with_random_phases(obj, positions_px, np.arange(2), rng)
        assert_aligned(align_phases(patches, positions_px, ONES, np.arange(2)), phases)


@given(rng=generators(), n=st.integers(2, 40))
def test_random_phases_are_recovered_at_sub_pixel_positions(rng, n):
    y, x = np.indices((80, 80)) / 80
    obj = (1 + 0.3 * np.sin(9 * x)) * np.exp(1j * np.cos(5 * y + 3 * x))
    positions_px = np.cumsum(rng.uniform(-5, 5, size=(n, 2)), axis=0).clip(-20, 40)
    patches, phases = with_random_phases(obj, positions_px, np.arange(n), rng)
    factors = align_phases(patches, positions_px, ONES, np.arange(n))
    rest = factors * phases
    np.testing.assert_allclose(rest / rest[0], 1.0, atol=0.1)


@given(rng=generators())
def test_patches_of_a_group_share_one_factor(rng):
    obj = complex_noise(rng, 80, 80)
    centres = np.cumsum(rng.integers(-4, 5, size=(9, 2)), axis=0).clip(-15, 35)
    positions_px = (centres[:, None] + rng.integers(-3, 4, size=(9, 4, 2))).reshape(-1, 2).astype(float)
    groups = np.repeat(np.arange(9), 4)
    patches, phases = with_random_phases(obj, positions_px, groups, rng)
    factors = align_phases(patches, positions_px, ONES, groups)
    assert factors.shape == (9,)
    assert_aligned(factors, phases)


def test_many_groups_are_aligned_by_the_iterative_eigensolver(rng):
    n = 4 * LANCZOS_ABOVE
    obj = complex_noise(rng, 80, 80)
    positions_px = np.stack(np.divmod(np.arange(n), 8), axis=1) * 6.0 - 20.0 + rng.integers(0, 3, size=(n, 2))
    patches, phases = with_random_phases(obj, positions_px, np.arange(n), rng)
    assert_aligned(align_phases(patches, positions_px, ONES, np.arange(n)), phases)


@pytest.mark.parametrize(
    ("step", "line", "repeats"), [(1, 6, 1), (1, 9, 1), (3, 3, 12)], ids=["fly scan", "sparse lines", "repeats"]
)
def test_lines_and_repeats_are_aligned_with_their_neighbours(rng, step, line, repeats):
    """All nearest neighbours lie on the same line or are repeats; anchors connect the lines."""
    places = np.array([[y * line, x * step] for y in range(4) for x in range(24)], dtype=float)
    positions_px = np.repeat(places[rng.permutation(len(places))], repeats, axis=0) - 20.0
    patches, phases = with_random_phases(complex_noise(rng, 120, 120), positions_px, np.arange(len(positions_px)), rng)
    assert_aligned(align_phases(patches, positions_px, ONES, np.arange(len(positions_px))), phases)


@given(rng=generators(), n=st.integers(2, 12))
def test_mean_phase_is_unchanged(rng, n):
    patches, _ = with_random_phases(complex_noise(rng, 80, 80), rng.integers(0, 6, size=(n, 2)), np.arange(n), rng)
    factors = align_phases(patches, rng.integers(0, 6, size=(n, 2)).astype(float), ONES, np.arange(n))
    assert np.angle(factors.sum()) == pytest.approx(0.0, abs=1e-4)
    assert abs(factors.sum()) > 0


def test_aligned_patches_are_unchanged(rng):
    obj = complex_noise(rng, 80, 80)
    positions_px = rng.integers(0, 12, size=(10, 2)).astype(float)
    patches = extract_patches_at(obj, positions_px, N, (-30.0, -30.0))
    np.testing.assert_allclose(align_phases(patches, positions_px, ONES, np.arange(10)), 1.0, atol=1e-3)


def test_unconnected_sets_are_aligned_separately(rng):
    obj = complex_noise(rng, 200, 200)
    near = rng.integers(0, 8, size=(6, 2)).astype(float)
    positions_px = np.concatenate([near, near + 100.0, [[-29.0, 160.0]]])
    groups = np.arange(13)
    patches, phases = with_random_phases(obj, positions_px, groups, rng)
    factors = align_phases(patches, positions_px, ONES, groups)
    for part in (slice(0, 6), slice(6, 12)):
        assert_aligned(factors[part], phases[part])
        assert np.angle(factors[part].sum()) == pytest.approx(0.0, abs=1e-4)
    assert factors[12] == 1.0


def test_one_group_and_no_group_are_accepted(rng):
    patches = complex_noise(rng, 4, N, N).astype(np.complex64)
    np.testing.assert_array_equal(align_phases(patches, rng.random((4, 2)), ONES, np.zeros(4, int)), [1.0])
    np.testing.assert_array_equal(align_phases(patches[:1], np.zeros((1, 2)), ONES, np.zeros(1, int)), [1.0])
    assert align_phases(patches[:0], np.zeros((0, 2)), ONES, np.zeros(0, int)).shape == (0,)


def test_coincident_positions_are_aligned_too(rng):
    obj = complex_noise(rng, 80, 80)
    positions_px = np.tile([[4.0, 7.0]], (5, 1))
    patches, phases = with_random_phases(obj, positions_px, np.arange(5), rng)
    assert_aligned(align_phases(patches, positions_px, ONES, np.arange(5)), phases)


def test_pixels_outside_the_support_have_no_influence(rng):
    y, x = np.indices((N, N)) - N // 2
    weight = (np.hypot(y, x) <= 6).astype(np.float32)
    obj = complex_noise(rng, 80, 80)
    positions_px = np.array([[0.0, 0.0], [3.0, 1.0], [5.0, -2.0], [2.0, 4.0]])
    patches, phases = with_random_phases(obj, positions_px, np.arange(4), rng)
    noisy = np.where(weight > 0, patches, 100 * complex_noise(rng, 4, N, N)).astype(np.complex64)
    assert_aligned(align_phases(noisy, positions_px, weight, np.arange(4)), phases)


def test_dark_patches_do_not_disturb_the_others(rng):
    obj = complex_noise(rng, 80, 80)
    positions_px = rng.integers(0, 8, size=(6, 2)).astype(float)
    patches, phases = with_random_phases(obj, positions_px, np.arange(6), rng)
    patches[2] = 0
    factors = align_phases(patches, positions_px, ONES, np.arange(6))
    assert np.isfinite(factors).all()
    others = [0, 1, 3, 4, 5]
    assert_aligned(factors[others], phases[others])
