"""Scan geometry: windows on a canvas, counts of windows, sub-pixel shifts (physics 7.7, 8.2, 9.3)."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.scan_geometry import ScanGeometry, shift_ramps
from ptycho_backend.testing.scans import calibration_of_scan, small_scan


@pytest.mark.parametrize("half_px", [1, 7, 16])
def test_window_count_is_that_of_a_plain_loop(half_px):
    geometry = ScanGeometry(small_scan(n_positions=25))
    expected = np.zeros(geometry.canvas_shape)
    for y, x in geometry.corners_px + geometry.N // 2:
        expected[y - half_px : y + half_px, x - half_px : x + half_px] += 1
    np.testing.assert_array_equal(geometry.window_count(half_px), expected)


def test_window_count_of_odd_windows_stays_on_the_canvas():
    geometry = ScanGeometry(small_scan(n_positions=25, N=33))
    expected = np.zeros(geometry.canvas_shape)
    for y, x in geometry.corners_px + 16:
        expected[y - 16 : y + 16, x - 16 : x + 16] += 1
    found = geometry.window_count(16)
    np.testing.assert_array_equal(found, expected)
    assert found.sum() == 25 * 32**2


@pytest.mark.parametrize("side", [31, 32])
def test_ramps_shift_odd_and_even_sides(side):
    rng = np.random.default_rng(2)
    spectrum = np.fft.fft2(rng.normal(size=(side, side)))
    for shift in ([1.0, 0.0], [0.0, -1.0], [1.0, 1.0]):
        along_y, along_x = shift_ramps(np.array([shift]), side)
        expected = np.fft.fft2(np.roll(np.fft.ifft2(spectrum), np.array(shift, int), axis=(0, 1)))
        np.testing.assert_allclose(spectrum * along_y[0][:, None] * along_x[0], expected, atol=1e-4)
    half = np.abs(shift_ramps(np.array([[0.5, -0.3]]), side))
    # Only the Nyquist frequency of an even side loses energy.
    np.testing.assert_allclose(np.delete(half, side // 2, axis=-1) if side % 2 == 0 else half, 1.0, atol=1e-6)


def test_amplitudes_of_bad_pixels_are_zero():
    scan = small_scan(n_positions=9, bad_pixels=0.2)
    problem = Problem.of(scan, calibration_of_scan(scan))
    mask = np.fft.ifftshift(scan.mask)
    found = problem.amplitudes(slice(2, 5))
    assert not np.any(found[:, ~mask])
    expected = np.fft.ifftshift(scan.amplitude(slice(2, 5)), axes=(1, 2)) * problem.calibration.rms_input_scale
    np.testing.assert_allclose(found[:, mask], expected[:, mask], rtol=1e-6)
