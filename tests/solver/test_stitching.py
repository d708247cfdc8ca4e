"""Stitching places patches at their scan positions (physics 7)."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho_backend.errors import ShapeError
from ptycho_backend.physics.translation import extract_patches_at
from ptycho_backend.solver.scan_geometry import CanvasFrame
from ptycho_backend.solver.stitching import Stitcher, stitch
from ptycho_backend.testing import assert_adjoint, assert_close
from ptycho_backend.testing.strategies import complex_noise, generators, offsets, positions
from ptycho_backend.testing.tolerances import STITCH32

N = 8
ONES = np.ones((N, N))


def single(rng, *shape):
    return complex_noise(rng, *shape).astype(np.complex64)


@given(positions_px=positions(1, 9, 12.0))
def test_canvas_contains_every_window_and_is_centred_on_the_bounding_box(positions_px):
    frame = CanvasFrame.around(positions_px, N)
    low, high = positions_px.min(axis=0), positions_px.max(axis=0)
    centre = np.array(frame.origin_px) + (np.array(frame.shape) - 1) / 2
    np.testing.assert_allclose(centre, (low + high) / 2, atol=1e-9)
    image = stitch(np.ones((len(positions_px), N, N), np.complex64), positions_px, ONES)
    assert image.obj.shape == image.coverage.shape == frame.shape
    assert image.coverage.sum() == pytest.approx(len(positions_px) * N * N, rel=1e-5)
    assert (np.array(frame.shape) <= high - low + N + 2).all()


@given(positions_px=positions(1, 9, 12.0), centre_px=st.tuples(st.floats(-30, 30), st.floats(-30, 30)))
def test_canvas_about_another_centre_is_the_smallest_with_every_window(positions_px, centre_px):
    frame = CanvasFrame.around(positions_px, N, centre_px)
    np.testing.assert_allclose(np.array(frame.origin_px) + (np.array(frame.shape) - 1) / 2, centre_px, atol=1e-9)
    stitcher = Stitcher(frame, ONES)
    stitcher.add(np.ones((len(positions_px), N, N), np.complex64), positions_px)
    assert stitcher.result().coverage.sum() == pytest.approx(len(positions_px) * N * N, rel=1e-5)
    assert (np.array(frame.shape) <= 2 * np.abs(positions_px - centre_px).max(axis=0) + N + 2).all()


@pytest.mark.parametrize("start", [0.1, 1e-7, 1 / 3, -7.3, 1234.7])
def test_rounding_does_not_refuse_windows_at_the_edge(start):
    # The extent is a whole number of pixels: the outermost windows end at the canvas edge.
    for steps in range(1, 40):
        positions_px = start + np.array([[0.0, 0.0], [steps, 3 * steps]])
        image = stitch(np.ones((2, N, N), np.complex64), positions_px, ONES)
        assert image.coverage.sum() == pytest.approx(2 * N * N, rel=1e-5)


def test_bright_pixel_lies_at_its_scan_coordinate():
    # Window pixel [N//2, N//2] lies at the position, pixel (1, 6) at position + (1 − 4, 6 − 4).
    positions_px = np.array([[100.0, -20.0], [110.0, -3.0]])
    patches = np.zeros((2, N, N), np.complex64)
    patches[0, 1, 6] = 2 - 1j
    image = stitch(patches, positions_px, ONES)
    found = np.argwhere(image.obj)[0] + np.array(image.origin_px)
    np.testing.assert_allclose(found, [100 + 1 - 4, -20 + 6 - 4])
    np.testing.assert_allclose(image.obj[np.nonzero(image.obj)], [2 - 1j])


@given(rng=generators(), position=offsets(1, 30.0))
def test_sub_pixel_positions_keep_the_centre_of_mass(rng, position):
    patch = rng.random((1, N, N)).astype(np.complex64)
    frame = CanvasFrame((80, 90), (-40.0, -45.5))
    stitcher = Stitcher(frame, ONES)
    stitcher.add(patch, position)
    image = stitcher.result()
    summed = (image.obj * image.coverage).real
    y, x = np.indices(frame.shape, dtype=float)
    py, px = np.indices((N, N)) - N // 2
    weight = patch[0].real
    for axis, (canvas, window) in enumerate(((y - 40.0, py), (x - 45.5, px))):
        expected = position[0, axis] + (window * weight).sum() / weight.sum()
        assert (canvas * summed).sum() / summed.sum() == pytest.approx(expected, abs=1e-3)


@given(rng=generators(), positions_px=positions(1, 9, 10.0))
def test_unweighted_stitching_is_the_adjoint_of_extraction(rng, positions_px):
    frame = CanvasFrame.around(positions_px, N)
    patches, obj = single(rng, len(positions_px), N, N), single(rng, *frame.shape)

    def add(p):
        stitcher = Stitcher(frame, ONES)
        stitcher.add(p, positions_px)
        image = stitcher.result()
        return image.obj * image.coverage

    assert_adjoint(add, lambda o: extract_patches_at(o, positions_px, N, frame.origin_px), patches, obj, STITCH32)


@given(rng=generators(), positions_px=positions(1, 9, 10.0, whole=True))
def test_stitching_inverts_extraction_at_whole_pixels(rng, positions_px):
    frame = CanvasFrame.around(positions_px, N)
    if not (np.array(frame.origin_px) % 1 == 0).all():  # the canvas of an odd bounding box lies between pixels
        return
    obj, weight = single(rng, *frame.shape), rng.uniform(0.1, 1, size=(N, N))
    image = stitch(extract_patches_at(obj, positions_px, N, frame.origin_px), positions_px, weight)
    covered = image.coverage > 0
    assert_close(image.obj[covered], obj[covered], STITCH32)
    np.testing.assert_array_equal(image.obj[~covered], 0)


@given(rng=generators(), positions_px=positions(2, 9, 10.0))
def test_result_is_independent_of_the_order_of_positions(rng, positions_px):
    patches, weight = single(rng, len(positions_px), N, N), rng.uniform(0.1, 1, size=(N, N))
    order = rng.permutation(len(positions_px))
    one, other = stitch(patches, positions_px, weight), stitch(patches[order], positions_px[order], weight)
    assert one.origin_px == other.origin_px
    assert_close(other.coverage, one.coverage, STITCH32)
    assert_close(other.obj * other.coverage, one.obj * one.coverage, STITCH32)


@given(rng=generators(), positions_px=positions(1, 9, 10.0))
def test_weighted_mean_does_not_amplify(rng, positions_px):
    weight = rng.uniform(0.01, 1, size=(N, N))
    patches = single(rng, len(positions_px), N, N)
    assert np.abs(stitch(patches, positions_px, weight).obj).max() <= np.abs(patches).max() * (1 + 1e-4)
    equal = stitch(np.full(patches.shape, 0.6 - 0.3j, np.complex64), positions_px, weight)
    np.testing.assert_allclose(equal.obj[equal.coverage > 1e-3], 0.6 - 0.3j, atol=1e-4)


def test_overlapping_patches_are_weighted():
    weight = np.zeros((N, N))
    weight[4, 4], weight[4, 6] = 1.0, 0.25
    patches = np.stack([np.full((N, N), 2.0), np.full((N, N), 7.0)]).astype(np.complex64)
    # Position (0, 2) lies under pixel (4, 4) of the second patch and (4, 6) of the first.
    image = stitch(patches, np.array([[0.0, 0.0], [0.0, 2.0]]), weight)
    y, x = (np.array([0.0, 2.0]) - np.array(image.origin_px)).astype(int)
    assert image.obj[y, x] == pytest.approx((7 * 1.0 + 2 * 0.25) / 1.25, rel=1e-5)
    assert image.coverage[y, x] == pytest.approx(1.25, rel=1e-6)
    assert image.coverage[y + 1, x] == 0.0


def test_windows_outside_the_canvas_are_refused():
    stitcher, patch = Stitcher(CanvasFrame((100, 110), (-4.0, 2.0)), ONES), np.zeros((1, N, N), np.complex64)
    for inside in ((0.0, 6.0), (92.0, 108.0)):
        stitcher.add(patch, np.array([inside]))
    for outside in ((-0.01, 6.0), (0.0, 5.99), (92.01, 108.0), (92.0, 108.01)):
        with pytest.raises(ShapeError, match="canvas"):
            stitcher.add(patch, np.array([outside]))


def test_patches_without_a_position_are_refused():
    with pytest.raises(ShapeError, match="one position"):
        stitch(np.zeros((3, N, N), np.complex64), np.zeros((2, 2)), ONES)


def test_chunks_add_up_to_the_same_image(rng):
    positions_px = rng.uniform(-20, 20, size=(150, 2))
    patches = single(rng, 150, N, N)
    expected = stitch(patches, positions_px, ONES)
    stitcher = Stitcher(CanvasFrame.around(positions_px, N), ONES)
    for row in range(0, 150, 7):
        stitcher.add(patches[row : row + 7], positions_px[row : row + 7])
    assert_close(stitcher.result().obj, expected.obj, STITCH32)


@pytest.mark.parametrize("side", [100, 1600])
def test_memory_to_add_patches_is_independent_of_the_canvas(side, rng):
    stitcher = Stitcher(CanvasFrame((side, side), (0.0, 0.0)), ONES)
    patches, positions_px = single(rng, 4, N, N), rng.uniform(20, 60, size=(4, 2))
    stitcher.add(patches, positions_px)
    tracemalloc.start()
    try:
        stitcher.add(patches, positions_px)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 * patches.nbytes


def test_extraction_uses_the_origin_of_the_object():
    obj = np.arange(30 * 40).reshape(30, 40).astype(np.complex64)
    patch = extract_patches_at(obj, np.array([[-94.0, 8.0]]), 4, origin_px=(-100.0, 2.0))[0]
    np.testing.assert_array_equal(patch, obj[4:8, 4:8])
    between = extract_patches_at(obj, np.array([[-93.75, 8.5]]), 4, origin_px=(-100.0, 2.0))[0]
    np.testing.assert_allclose(between, obj[4:8, 4:8] + 0.25 * 40 + 0.5)


def test_patches_are_zero_outside_the_object():
    patch = extract_patches_at(np.ones((5, 5)), np.array([[0.0, 4.5], [100.0, 0.0]]), 4)
    expected = np.zeros((4, 4))
    expected[2:, :2] = 1.0
    expected[2:, 2] = 0.5
    np.testing.assert_array_equal(patch[0], expected)
    np.testing.assert_array_equal(patch[1], 0)


@given(st.integers(1, 4))
def test_coverage_is_the_number_of_patches(n):
    image = stitch(np.ones((n, N, N), np.complex64), np.zeros((n, 2)), ONES)
    assert image.coverage.max() == n
