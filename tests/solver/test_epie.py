"""ePIE finds the object and the probe of a simulated scan (physics 8)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ptycho_backend.data.scan import Scan
from ptycho_backend.events import StageEvent, ignore
from ptycho_backend.solver import scan_geometry
from ptycho_backend.solver.epie import EpieOptions, EpieResult, epie, refine_by_epie
from ptycho_backend.testing.images import error_of, scaled_distance
from ptycho_backend.testing.scans import calibration_of_scan as calibration_of
from ptycho_backend.testing.scans import small_scan as simulated

N = 32


def run(scan, iterations=12, on_event=ignore, **fields) -> EpieResult:
    return epie(scan, calibration_of(scan), EpieOptions(iterations, **fields), np.random.default_rng(0), on_event)


@pytest.fixture(scope="module")
def scan() -> Scan:
    return simulated()


@pytest.fixture(scope="module")
def result(scan) -> EpieResult:
    return run(scan, update_probe=False)


def test_object_is_found_at_sub_pixel_positions(scan, result):
    # Bilinear interpolation of the truth causes part of the error.
    assert (scan.positions_px % 1 != 0).any()
    assert error_of(result.image, scan) < 0.04
    rounded = dataclasses.replace(scan, positions_px=np.rint(scan.positions_px))
    assert run(rounded, update_probe=False).errors[-1] > 5 * result.errors[-1]
    assert error_of(run(scan, 1, update_probe=False).image, scan) > 2 * error_of(result.image, scan)


@pytest.mark.parametrize("side", [31, 32])
def test_fourier_ramps_shift_odd_and_even_sides(side):
    rng = np.random.default_rng(2)
    spectrum = np.fft.fft2(rng.normal(size=(side, side)))
    for fraction in ([1.0, 0.0], [0.0, -1.0], [1.0, 1.0]):
        fy, fx = scan_geometry.shift_ramps(np.array([fraction]), side)
        expected = np.fft.fft2(np.roll(np.fft.ifft2(spectrum), np.array(fraction, int), axis=(0, 1)))
        np.testing.assert_allclose(spectrum * fy[0][:, None] * fx[0], expected, atol=1e-4)
    half = np.abs(scan_geometry.shift_ramps(np.array([[0.5, -0.3]]), side))
    # Only the Nyquist frequency of an even side loses energy.
    np.testing.assert_allclose(np.delete(half, side // 2, axis=-1) if side % 2 == 0 else half, 1.0, atol=1e-6)


def test_error_falls_to_the_noise(result):
    assert len(result.errors) == 12
    assert result.errors[-1] < 1e-3 < result.errors[0]


def test_probe_changes_from_the_second_iteration_on_unless_fixed(scan, result):
    np.testing.assert_allclose(result.probe, calibration_of(scan).probe, atol=1e-5)
    assert np.abs(run(scan, 2).probe - calibration_of(scan).probe).max() > 1e-4
    np.testing.assert_allclose(run(scan, 1).probe, calibration_of(scan).probe, atol=1e-5)


def test_equal_seeds_give_equal_images(scan):
    one, other = run(scan, 2), run(scan, 2)
    np.testing.assert_array_equal(one.image.obj, other.image.obj)
    assert one.errors == other.errors
    assert epie(scan, calibration_of(scan), EpieOptions(2), np.random.default_rng(1)).errors != one.errors


def test_start_is_the_initial_object(scan, result):
    more = run(scan, 1, start=result.image, update_probe=False)
    assert more.errors[0] < 1.5 * result.errors[-1]
    shifted = dataclasses.replace(result.image, origin_px=tuple(np.add(result.image.origin_px, (3.0, -2.0))))
    assert run(scan, 1, start=shifted, update_probe=False).errors[0] > 10 * more.errors[0]


def test_zero_iterations_return_the_same_image(scan, result):
    rng = np.random.default_rng(0)
    assert refine_by_epie(scan, calibration_of(scan), result.image, 0, rng) is result.image
    refined = refine_by_epie(scan, calibration_of(scan), result.image, 1, rng)
    assert refined.origin_px == result.image.origin_px
    assert error_of(refined, scan) < 0.04


def test_masked_pixels_are_ignored():
    damaged = simulated(bad_pixels=0.05)
    assert (~damaged.mask).sum() > 20
    masked = run(damaged, update_probe=False)
    assert error_of(masked.image, damaged) < 0.04
    rng = np.random.default_rng(5)
    patterns = np.where(damaged.mask, damaged.patterns, rng.integers(0, 60000, size=damaged.patterns.shape))
    other = run(dataclasses.replace(damaged, patterns=patterns), update_probe=False)
    np.testing.assert_allclose(other.image.obj, masked.image.obj, atol=1e-5)
    assert other.errors == pytest.approx(masked.errors, rel=1e-4)


def test_incoherent_modes_are_separated():
    mixed = simulated(modes=2)
    both = run(mixed, update_probe=False)
    assert both.errors[-1] < 2e-3
    alone = dataclasses.replace(mixed, probe=mixed.probe[:1])
    assert run(alone, update_probe=False).errors[-1] > 5 * both.errors[-1]


def test_wrong_probe_is_corrected():
    guessed, true = simulated(probe_error=0.25), simulated()
    np.testing.assert_array_equal(guessed.patterns, true.patterns)
    probe = run(guessed, 12).probe
    exact, guess = calibration_of(true).probe, calibration_of(guessed).probe
    assert scaled_distance(probe, exact) < 0.3 * scaled_distance(guess, exact)


def test_every_iteration_is_reported(scan):
    events = []
    run(scan, 3, on_event=events.append)
    assert [(event.stage, event.done, event.total) for event in events] == [("ePIE", n, 3) for n in (1, 2, 3)]
    assert all(isinstance(event, StageEvent) for event in events)


def test_uncovered_pixels_are_zero_and_coverage_is_centred(scan, result):
    image = result.image
    assert image.obj.dtype == np.complex64
    np.testing.assert_array_equal(image.obj[image.coverage == 0], 0)
    peak = np.unravel_index(image.coverage.argmax(), image.coverage.shape) + np.array(image.origin_px)
    assert np.linalg.norm(peak - scan.positions_px.mean(axis=0)) < 10
