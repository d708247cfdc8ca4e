"""Zero frequency of mean patterns: beams at known places, with scatter, gaps, beam stop and hot pixels."""

import numpy as np
import pytest

from ptycho_backend.errors import DataError
from ptycho_backend.importing.centre import found_centre_px, is_in_corner
from ptycho_backend.simulation.simulate import simulate_scan

SHAPE = (100, 128)
Y, X = np.indices(SHAPE).astype(float)
CENTRES = [(50.0, 64.0), (43.3, 70.6), (58.5, 55.5), (47.25, 60.9)]
BEAMS = {
    "disc": lambda r: 1 / (1 + np.exp((r - 14) * 3)),
    "ring": lambda r: 1 / (1 + np.exp((r - 20) * 3)) - 1 / (1 + np.exp((r - 9) * 3)),
    "gaussian": lambda r: np.exp(-(r**2) / 40),
    "narrow": lambda r: np.exp(-(r**2) / 2),
    "wide": lambda r: 1 / (1 + np.exp((r - 40) * 3)),
}
each_beam = pytest.mark.parametrize("beam", BEAMS)
each_centre = pytest.mark.parametrize("centre", CENTRES)


def mean_pattern(beam, centre, scatter=30.0, background=2.0):
    """Return a noisy beam of 1000 counts, with a patch of scatter on one side of it and a uniform background."""
    y, x = Y - centre[0], X - centre[1]
    beside = scatter * np.exp(-((y - 18) ** 2 + (x - 25) ** 2) / 400)
    expected = 1000 * BEAMS[beam](np.hypot(y, x)) + beside + background
    return np.random.default_rng(0).poisson(50 * expected) / 50


def error(found, centre):
    return np.abs(np.subtract(found, centre)).max()


@pytest.fixture(scope="module", params=["disc", "zone-plate", "gaussian"])
def simulated(request):
    scan = simulate_scan(N=64, n_positions=36, probe_name=request.param, photons_per_pattern=1e5, seed=1)
    return scan.patterns.mean(axis=0, dtype=np.float64)


def moved(pattern, dy, dx):
    """Return a pattern moved by whole pixels; 0 where nothing was measured."""
    padded = np.pad(pattern, 32)
    side = len(pattern)
    return padded[32 - dy : 32 - dy + side, 32 - dx : 32 - dx + side]


@each_beam
@each_centre
def test_centre_of_beams_with_scatter_on_one_side(beam, centre):
    assert error(found_centre_px(mean_pattern(beam, centre)), centre) < 0.25


@each_beam
@each_centre
def test_centre_behind_a_mask(beam, centre):
    """Gaps of a detector and a beam stop with an arm hold anything."""
    pattern, good = mean_pattern(beam, centre), np.ones(SHAPE, dtype=bool)
    good[:, 80:84] = good[60:63] = False
    if beam != "narrow":  # a stop would cover all of it
        stop = np.hypot(Y - centre[0], X - centre[1]) < 4
        good &= ~stop & ~((np.abs(Y - centre[0]) < 2) & (centre[1] > X))
    pattern[~good] = 1e9
    assert error(found_centre_px(pattern, good), centre) < 0.5


@pytest.mark.parametrize("shift", [(0, 0), (5, -7), (-11, 3)])
def test_centre_of_simulated_scans(simulated, shift):
    assert error(found_centre_px(moved(simulated, *shift)), (32 + shift[0], 32 + shift[1])) < 0.2


def test_a_hot_pixel_is_not_the_centre():
    pattern = mean_pattern("disc", CENTRES[1])
    pattern[20, 30] = 1e7
    assert error(found_centre_px(pattern), CENTRES[1]) < 0.25


def test_a_pattern_without_light_has_no_centre():
    with pytest.raises(DataError, match=r"--detector\.centre_y_px"):
        found_centre_px(np.full((32, 32), 3.0))


@each_beam
@each_centre
def test_corner_and_middle_are_told_apart(beam, centre):
    pattern = mean_pattern(beam, centre)
    assert not is_in_corner(pattern)
    assert is_in_corner(np.fft.ifftshift(pattern))


@pytest.mark.parametrize("shift", [(0, 0), (2, -3)])
def test_corner_of_simulated_scans(simulated, shift):
    pattern = moved(simulated, *shift)
    assert not is_in_corner(pattern)
    assert is_in_corner(np.fft.ifftshift(pattern))


def test_corner_behind_a_beam_stop():
    pattern, good = mean_pattern("disc", (50.0, 64.0)), np.hypot(Y - 50, X - 64) > 10
    pattern[~good] = 0
    assert is_in_corner(np.fft.ifftshift(pattern), np.fft.ifftshift(good))
    assert not is_in_corner(pattern, good)


def test_a_beam_of_one_pixel():
    pattern = np.zeros((32, 32))
    pattern[0, 0] = 1
    assert is_in_corner(pattern)
    assert not is_in_corner(np.fft.fftshift(pattern))


@pytest.mark.parametrize("centre", [(15.0, 18.0), (84.0, 20.0), (50.0, 14.0)])
def test_a_beam_beside_the_corner_is_not_in_the_corner(centre):
    assert not is_in_corner(mean_pattern("gaussian", centre, scatter=0.0))


@pytest.mark.parametrize("pattern", [np.zeros((16, 16)), np.ones((16, 16))])
def test_an_even_pattern_is_not_in_the_corner(pattern):
    assert not is_in_corner(pattern)
