"""Translation of patches; extraction is the adjoint of scattering (physics 1)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho_backend.physics.translation import canvas_size, extract_patches, scatter_patches, translation_matrix
from ptycho_backend.testing import assert_adjoint, assert_close
from ptycho_backend.testing.strategies import complex_noise, generators, offsets, sides
from ptycho_backend.testing.tolerances import EXACT64


def overlap(i: int, j: int, d: float, N: int, S: int) -> float:
    """Weight of canvas sample i on a line between neighbouring patch samples, both grids about their centres."""
    position = (i - (S - 1) / 2) - d + (N - 1) / 2  # in patch samples
    low = int(np.floor(position))
    share = position - low
    return (1 - share) * (j == low) + share * (j == low + 1)


@given(N=sides(1, 6), border=st.integers(0, 3), d=st.floats(-4, 4))
def test_matrix_is_linear_interpolation_about_the_centres(N, border, d):
    S = N + 2 * border
    expected = [[overlap(i, j, d, N, S) for j in range(N)] for i in range(S)]
    assert_close(translation_matrix(np.float64(d), N, S), np.array(expected), EXACT64)


@pytest.mark.parametrize("value", [1.0, 2.0 - 3.0j])
def test_bright_pixel_lies_at_the_offset(value):
    # Patch 4×4 on a canvas of 10×10: the patch's corner lies at (3, 3) without offset.
    patch = np.zeros((4, 4), complex)
    patch[1, 2] = value
    canvas = scatter_patches(patch, np.array([2.0, -3.0]), 10)
    assert np.argwhere(canvas).tolist() == [[3 + 1 + 2, 3 + 2 - 3]]
    assert canvas[6, 2] == value


def test_sub_pixel_offsets_are_bilinear():
    patch = np.zeros((4, 4))
    patch[1, 2] = 16.0
    canvas = scatter_patches(patch, np.array([0.25, -0.5]), 10)
    expected = np.zeros((10, 10))
    expected[4, 4:6] = 16 * 0.75 * 0.5
    expected[5, 4:6] = 16 * 0.25 * 0.5
    np.testing.assert_allclose(canvas, expected, atol=1e-14)


def test_extraction_and_scattering_use_the_same_pixels():
    canvas = np.arange(100.0).reshape(10, 10)
    patch = extract_patches(canvas, np.array([2.0, -3.0]), 4)
    np.testing.assert_array_equal(patch, canvas[5:9, 0:4])


@given(rng=generators(), N=sides(2, 9), offset=offsets(1, 5.0), is_complex=st.booleans())
def test_extraction_is_the_adjoint_of_scattering(rng, N, offset, is_complex):
    S = canvas_size(N, offset)
    p, c = (complex_noise(rng, side, side) for side in (N, S))
    if not is_complex:
        p, c = p.real, c.real
    assert_adjoint(
        lambda x: scatter_patches(x, offset[0], S), lambda y: extract_patches(y, offset[0], N), p, c, EXACT64
    )


@given(rng=generators(), offset=offsets(1, 3.0))
def test_sum_and_centre_of_mass_are_preserved_on_a_large_canvas(rng, offset):
    patch = rng.random((5, 5))
    canvas = scatter_patches(patch, offset[0], canvas_size(5, offset))
    assert canvas.sum() == pytest.approx(patch.sum(), rel=1e-12)
    y, x = np.indices(canvas.shape) - (canvas.shape[0] - 1) / 2
    py, px = np.indices(patch.shape) - 2
    # Bilinear interpolation shifts the centre of mass by exactly the offset.
    assert (y * canvas).sum() / canvas.sum() == pytest.approx((py * patch).sum() / patch.sum() + offset[0, 0], abs=1e-9)
    assert (x * canvas).sum() / canvas.sum() == pytest.approx((px * patch).sum() / patch.sum() + offset[0, 1], abs=1e-9)


def test_pixels_outside_the_canvas_are_dropped_and_read_as_zero():
    ones = np.ones((4, 4))
    np.testing.assert_array_equal(scatter_patches(ones, np.array([0.0, 6.0]), 8), np.zeros((8, 8)))
    cut = extract_patches(ones, np.array([2.0, 0.0]), 4)
    np.testing.assert_array_equal(cut, [[1] * 4, [1] * 4, [0] * 4, [0] * 4])


def test_every_patch_has_its_own_offset():
    patches = np.zeros((2, 3, 4, 4))
    patches[..., 0, 0] = np.arange(1, 7).reshape(2, 3)
    offset = np.array([[[0, 0], [1, 0], [0, 1]], [[-1, 2], [2, -1], [-2, -2]]], float)
    canvases = scatter_patches(patches, offset, 8)
    for group in range(2):
        for member in range(3):
            y, x = (2 + offset[group, member]).astype(int)
            assert canvases[group, member, y, x] == patches[group, member, 0, 0]
            assert canvases[group, member].sum() == patches[group, member, 0, 0]


@pytest.mark.parametrize(("largest", "expected"), [(0.0, 64), (0.3, 66), (1.0, 66), (-1.5, 68), (4.0, 72), (-4.01, 74)])
def test_canvas_is_padded_on_both_sides_by_the_largest_offset(largest, expected):
    assert canvas_size(64, np.array([[[0.0, largest], [0.0, 0.0]]])) == expected


def test_canvas_without_offsets_is_the_window():
    assert canvas_size(64, np.zeros((0, 4, 2))) == 64
