"""Probe guess from the mean pattern: its far field, defocus, filled pixels and centre (physics 8.6)."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_backend.data import probe_guess
from ptycho_backend.data.probe_guess import centred, filled, guess_of, smoothed, spot, unit_curvature
from ptycho_backend.physics.propagation import far_field
from ptycho_backend.testing.scans import small_scan


def gaussian(N, width, centre=(0.0, 0.0)):
    """Return a smooth mean pattern; `width` is its standard deviation, pixels."""
    y, x = np.indices((N, N)) - N // 2
    return 100.0 * np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * width**2))


def moments(probe):
    """Return the covariance of the light (2, 2), pixels²."""
    light = (np.abs(probe.astype(complex)) ** 2).sum(axis=0)
    axis, total = np.arange(len(light)), light.sum()
    y, x = (axis - (light.sum(axis=1 - k) @ axis) / total for k in (0, 1))
    return np.array([[y**2 @ light.sum(axis=1), y @ light @ x], [y @ light @ x, x**2 @ light.sum(axis=0)]]) / total


@pytest.mark.parametrize("N", [32, 33])
@pytest.mark.parametrize("curvature", [0.0, 90.0, -90.0])
def test_a_spot_has_the_mean_pattern_as_its_far_field(rng, N, curvature):
    mean = rng.uniform(0, 5, (N, N))
    probe = spot(mean, curvature, (12.0, -7.0))
    assert probe.shape == (1, N, N)
    np.testing.assert_allclose(np.abs(far_field(probe[0])) ** 2, mean, atol=1e-5)
    assert (np.abs(probe) ** 2).sum() == pytest.approx(mean.sum(), rel=1e-5)  # Parseval


@pytest.mark.parametrize("N", [64, 65])
def test_a_spot_without_phase_lies_in_the_middle(N):
    light = np.abs(spot(gaussian(N, 6.0))[0])
    assert np.unravel_index(light.argmax(), light.shape) == (N // 2, N // 2)


@pytest.mark.parametrize("centre", [(0.0, 0.0), (3.0, -5.0)])
@pytest.mark.parametrize("blur_px", [1.0, -3.0])
def test_unit_curvature_blurs_by_one_pixel(centre, blur_px):
    """Variances add: that of the sharp spot, and that of the blur."""
    mean = gaussian(128, 9.0, centre)
    blurred, sharp = (moments(spot(mean, factor * unit_curvature(mean))) for factor in (blur_px, 0.0))
    assert np.trace(blurred - sharp) == pytest.approx(blur_px**2, rel=1e-3)


def test_astigmatism_moves_the_blur_to_one_direction():
    mean = gaussian(128, 9.0)
    curvature = 3 * unit_curvature(mean)
    sharp, round_spot = moments(spot(mean)), moments(spot(mean, curvature))
    along_x, diagonal = (moments(spot(mean, curvature, each)) for each in ((curvature, 0.0), (0.0, curvature)))
    # The phases are 2κ·x² and κ·(y + x)²: no blur along y, and none along y = −x.
    assert along_x[0, 0] == pytest.approx(sharp[0, 0], rel=1e-3)
    assert along_x[1, 1] - sharp[1, 1] == pytest.approx(4 * (round_spot - sharp)[1, 1], rel=1e-3)
    assert np.array([1, -1]) @ (diagonal - sharp) @ np.array([1, -1]) == pytest.approx(0, abs=1e-3)
    assert diagonal[0, 1] > 0.9 * (diagonal - sharp)[0, 0]


def test_smoothing_has_a_width_of_one_pixel():
    point = np.zeros((17, 17))
    point[8, 8] = 1.0
    found = smoothed(point)
    assert found.sum() == pytest.approx(1)
    assert ((np.arange(17) - 8) ** 2) @ found.sum(axis=1) == pytest.approx(1)
    np.testing.assert_allclose(found, found.T)


def bad_areas(N):
    """Return masks: a beam stop with its arm, the gaps of a detector of modules, and both."""
    stop, gaps = np.ones((N, N), dtype=bool), np.ones((N, N), dtype=bool)
    middle = slice(N // 2 - 3, N // 2 + 4)
    stop[middle, middle] = stop[N // 2, : N // 2] = False
    gaps[N // 3 : N // 3 + 3] = gaps[:, N // 2 + 5 : N // 2 + 8] = False
    return {"stop": stop, "gaps": gaps, "both": stop & gaps}


@pytest.mark.parametrize("name", ["stop", "gaps", "both"])
def test_smooth_patterns_are_recovered_under_bad_pixels(name):
    mask, true = bad_areas(64)[name], gaussian(64, 12.0)
    found = filled(np.where(mask, true, 1e9), mask)
    # Without filling, the error at bad pixels is all of the pattern.
    assert np.linalg.norm((found - true)[~mask]) < 0.08 * np.linalg.norm(true[~mask])
    assert np.abs(found - true).max() < 0.15 * true.max()


def test_flat_patterns_are_filled_in_exactly():
    mask = np.ones((32, 32), dtype=bool)
    mask[:16] = False
    np.testing.assert_allclose(filled(np.where(mask, 7.0, -1.0), mask), 7.0)


def test_guess_is_free_of_bad_pixels_and_of_the_unit():
    scan = small_scan()
    mask = bad_areas(32)["both"]
    spoiled = np.where(mask, scan.patterns, np.iinfo(scan.patterns.dtype).max).astype(scan.patterns.dtype)
    guess = guess_of(scan.patterns, mask, "counts")
    np.testing.assert_array_equal(guess_of(spoiled, mask, "counts"), guess)
    amplitudes = np.sqrt(scan.patterns.astype(float))
    np.testing.assert_allclose(guess_of(amplitudes, mask, "amplitude"), guess, atol=1e-4 * np.abs(guess).max())


def test_guess_has_the_photons_of_a_pattern():
    scan = small_scan()
    guess = guess_of(scan.patterns, np.ones((32, 32), dtype=bool), "counts")
    assert (np.abs(guess) ** 2).sum() == pytest.approx(scan.patterns.sum(axis=(1, 2)).mean(), rel=0.01)


def test_guess_reads_patterns_of_the_whole_scan(monkeypatch):
    """The second half of the scan is twice as bright."""
    monkeypatch.setattr(probe_guess, "PATTERNS", 10)
    patterns = np.repeat([1.0, 2.0], 18)[:, None, None] * np.ones((36, 32, 32))
    guess = guess_of(patterns, np.ones((32, 32), dtype=bool), "counts")
    assert (np.abs(guess) ** 2).sum() == pytest.approx(1.5 * 32**2, rel=0.06)


@pytest.mark.parametrize("N", [32, 33])
@pytest.mark.parametrize("shift", [(0, 0), (16, 16), (-5, 9)])
def test_a_probe_anywhere_in_its_array_is_centred(N, shift):
    y, x = np.indices((N, N)) - N // 2
    modes = np.stack([np.hypot(y, x) < 6, 0.5 * (np.hypot(y, x) < 3)]) * np.exp(0.1j * y * y)
    modes = modes.astype(np.complex64)
    np.testing.assert_array_equal(centred(np.roll(modes, shift, axis=(1, 2))), modes)
