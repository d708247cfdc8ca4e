"""The oracle of the solver: updates are minus derivatives, windows and patches are adjoint, smooth errors are found."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ptycho_backend.physics.updates import (
    Patterns,
    extract_patches,
    illumination,
    modelled,
    normal_equations,
    phase_slopes,
    scatter_add,
    shift_factors,
    shifted_probes,
    updates,
)

SHAPE, STEP = (16, 17), 1e-5


def complex_noise(rng, *shape):
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


@pytest.fixture(params=[8, 7], ids=["even", "odd"])
def case(request, rng):
    """Return an object, a probe of two modes, and five patterns that they do not explain."""
    N, n = request.param, 5
    corners = rng.integers(0, np.asarray(SHAPE) - N + 1, (n, 2))
    mask = (rng.random((N, N)) > 0.1).astype(float)
    amplitudes = 3.0 * np.abs(complex_noise(rng, n, N, N))
    patterns = Patterns(amplitudes, mask, corners, rng.uniform(-0.5, 0.5, (n, 2)))
    return complex_noise(rng, *SHAPE), complex_noise(rng, 2, N, N), patterns


def slope_of(function, h=STEP):
    """Return the derivative at 0 by central differences."""
    return (function(h) - function(-h)) / (2 * h)


@pytest.mark.parametrize("name", ["obj", "probe"])
def test_updates_of_fields_are_minus_derivatives(case, rng, name):
    obj, probe, patterns = case
    fields = {"obj": obj, "probe": probe}
    direction = complex_noise(rng, *fields[name].shape)

    def error(h):
        return updates(**{**fields, name: fields[name] + h * direction}, patterns=patterns).squared_error

    found = getattr(updates(obj, probe, patterns), name)
    assert slope_of(error) == pytest.approx(-2 * np.real(np.vdot(found, direction)), rel=1e-6)


def test_updates_of_positions_are_minus_derivatives(case, rng):
    obj, probe, patterns = case
    direction = rng.normal(size=patterns.shifts_px.shape)

    def error(h):
        moved = dataclasses.replace(patterns, shifts_px=patterns.shifts_px + h * direction)
        return updates(obj, probe, moved).squared_error

    assert slope_of(error) == pytest.approx(-(updates(obj, probe, patterns).positions_px * direction).sum(), rel=1e-6)


def test_updates_of_scales_are_minus_derivatives(case, rng):
    obj, probe, patterns = case
    patches = extract_patches(obj, patterns.corners_px, probe.shape[-1])[:, None]
    _, amplitude = modelled(shifted_probes(probe, patterns.shifts_px) * patches)
    direction = rng.normal(size=len(amplitude))

    def error(h):
        scaled = (1 + h * direction)[:, None, None] * amplitude
        return (patterns.mask * (scaled - patterns.amplitudes) ** 2).sum()

    assert slope_of(error) == pytest.approx(-(updates(obj, probe, patterns).scales * direction).sum(), rel=1e-6)


def test_error_and_norm_are_sums_over_good_pixels(case):
    obj, probe, patterns = case
    found = updates(obj, probe, patterns)
    assert found.norm == pytest.approx(float((patterns.amplitudes**2 * patterns.mask).sum()))
    bad = np.where(patterns.mask > 0, patterns.amplitudes, 1e6)
    again = updates(obj, probe, dataclasses.replace(patterns, amplitudes=bad))
    assert again.squared_error == found.squared_error
    np.testing.assert_array_equal(again.obj, found.obj)


def test_patterns_that_are_explained_ask_for_nothing(case):
    obj, probe, patterns = case
    patches = extract_patches(obj, patterns.corners_px, probe.shape[-1])[:, None]
    _, amplitude = modelled(shifted_probes(probe, patterns.shifts_px) * patches)
    found = updates(obj, probe, dataclasses.replace(patterns, amplitudes=amplitude))
    assert found.squared_error == 0.0
    assert not np.any(found.obj)
    assert not np.any(found.probe)


def test_dark_exit_waves_have_the_amplitude_of_the_background():
    detector, amplitude = modelled(np.zeros((1, 2, 8, 8), complex))
    assert not np.any(detector)
    np.testing.assert_allclose(amplitude, 1e-4, rtol=1e-12)


def test_extract_and_scatter_are_adjoint(case, rng):
    obj, probe, patterns = case
    N = probe.shape[-1]
    patches = complex_noise(rng, len(patterns.corners_px), N, N)
    one = np.vdot(extract_patches(obj, patterns.corners_px, N), patches)
    assert one == pytest.approx(np.vdot(obj, scatter_add(patches, patterns.corners_px, SHAPE)))


def test_a_bright_pixel_lands_where_the_shift_says():
    probe = np.zeros((1, 8, 8), complex)
    probe[0, 4, 4] = 1.0
    moved = shifted_probes(probe, np.array([[1.0, -2.0]]))[0, 0]
    assert np.unravel_index(np.abs(moved).argmax(), moved.shape) == (5, 2)
    assert np.abs(moved).max() == pytest.approx(1.0)


def test_illumination_is_the_energy_of_all_windows(case):
    _, probe, patterns = case
    found = illumination(probe, patterns, SHAPE)
    expected = (np.abs(shifted_probes(probe, patterns.shifts_px)) ** 2).sum()
    assert found.sum() == pytest.approx(expected)


@pytest.mark.parametrize("N", [7, 8])
def test_derivatives_of_shifts_are_derivatives(N):
    shifts = np.array([[0.3, -0.2]])
    for axis in range(2):
        step = np.eye(2)[axis] * STEP
        expected = (shift_factors(shifts + step, N) - shift_factors(shifts - step, N)) / (2 * STEP)
        np.testing.assert_allclose(shift_factors(shifts, N, axis), expected, atol=1e-8)


def test_a_phase_ramp_and_a_factor_are_found(rng):
    """A pattern whose object is wrong by a small ramp and factor shows both, with the right sign and unit."""
    N, slope, factor = 16, np.array([2e-4, -1e-4]), 3e-4
    y, x = np.indices((N, N)) - N // 2
    probe = np.exp(-(y**2 + x**2) / 18.0 + 0.2j * y * x / N)[None]
    truth = 1.0 + 0.1 * complex_noise(rng, N, N)
    patterns = Patterns(np.ones((1, N, N)), np.ones((N, N)), np.zeros((1, 2), int), np.zeros((1, 2)))
    wrong = truth * np.exp(-factor - 1j * (slope[0] * y + slope[1] * x))
    measured = modelled(probe[None, 0:1] * truth)[1]
    found = phase_slopes(wrong, probe, dataclasses.replace(patterns, amplitudes=measured))
    solved = np.linalg.solve(found.information[0], found.gradient[0])
    np.testing.assert_allclose(solved, [*slope, 0, 0, factor], rtol=0.01, atol=1e-6)


@pytest.fixture
def fitted(rng):
    """Patterns with scales, a background and moved positions, with an object and a probe."""
    N, n = 12, 5
    corners, shifts = rng.integers(0, 8, (n, 2)), rng.uniform(-0.7, 0.7, (n, 2))
    patterns = Patterns(
        rng.uniform(0, 2, (n, N, N)), np.ones((N, N)), corners, shifts, rng.uniform(0.7, 1.3, n), background=0.05
    )
    return patterns, complex_noise(rng, 20, 20), complex_noise(rng, 2, N, N)


@pytest.mark.parametrize("axis", [0, 1])
def test_updates_of_fitted_patterns_are_minus_derivatives(fitted, axis):
    patterns, obj, probe = fitted
    found, step = updates(obj, probe, patterns), 1e-6
    change = np.zeros((5, 2))
    change[3, axis] = step

    def error(**changes):
        return updates(obj, probe, dataclasses.replace(patterns, **changes)).squared_error

    by_shift = error(shifts_px=patterns.shifts_px + change) - error(shifts_px=patterns.shifts_px - change)
    assert -by_shift / (2 * step) == pytest.approx(found.positions_px[3, axis], rel=1e-5)
    factor = np.exp(change[:, axis])
    by_scale = error(scales=patterns.scales * factor) - error(scales=patterns.scales / factor)
    assert -by_scale / (2 * step) == pytest.approx(found.scales[3], rel=1e-5)


def test_object_and_probe_updates_include_scales_and_background(fitted, rng):
    patterns, obj, probe = fitted
    found, step = updates(obj, probe, patterns), 1e-6
    for name, array in (("obj", obj), ("probe", probe)):
        change = complex_noise(rng, *array.shape)
        pair = [{"obj": obj, "probe": probe} | {name: array + sign * step * change} for sign in (1, -1)]
        high, low = (updates(each["obj"], each["probe"], patterns).squared_error for each in pair)
        expected = -2 * np.real(np.vdot(getattr(found, name), change))
        assert (high - low) / (2 * step) == pytest.approx(expected, rel=1e-5)


def test_normal_equations_are_those_of_finite_differences(fitted, rng):
    patterns, obj, probe = fitted
    directions = [(complex_noise(rng, *obj.shape), complex_noise(rng, *probe.shape)) for _ in range(2)]
    found = normal_equations(obj, probe, *(list(each) for each in zip(*directions, strict=True)), patterns)
    step, x = 1e-6, patterns.amplitudes

    def amplitude(obj, probe):
        patches = extract_patches(obj, patterns.corners_px, 12)[:, None]
        return modelled(patterns.probes(probe) * patches, patterns.background)[1]

    columns = [
        (amplitude(obj + step * o, probe + step * p) - amplitude(obj - step * o, probe - step * p)) / (2 * step)
        for o, p in directions
    ]
    jacobian = np.stack([column.ravel() for column in columns])
    np.testing.assert_allclose(found.information, jacobian @ jacobian.T, rtol=1e-6)
    np.testing.assert_allclose(found.gradient, jacobian @ (x - amplitude(obj, probe)).ravel(), rtol=1e-5)


COUNTS = 40.0  # per unit of intensity: 10 of a mean pixel (physics 4.1)


@pytest.fixture
def dark_pixels(rng):
    """Return patterns of a Gaussian beam with bad pixels, and their object, probe and noise-free intensities."""
    N, n = 32, 40
    y, x = np.indices((N, N)) - N // 2
    probe = np.exp(-(y**2 + x**2) / 18.0)[None]
    probe = probe * np.sqrt(0.25 * N**2 / (probe**2).sum())
    obj = np.exp(0.3j * rng.normal(size=(N + 8, N + 8)))
    corners, shifts = rng.integers(0, 9, (n, 2)), rng.uniform(-0.5, 0.5, (n, 2))
    patterns = Patterns(np.zeros((n, N, N)), (rng.random((N, N)) > 0.1).astype(float), corners, shifts)
    patches = extract_patches(obj, corners, N)[:, None]
    detector, _ = modelled(patterns.probes(probe) * patches)
    return patterns, obj, probe, (np.abs(detector) ** 2).sum(axis=1)


def with_intensities(patterns, intensities, background):
    """Return the patterns with measured intensities, a background of the model, and anything in bad pixels."""
    amplitudes = np.where(patterns.mask > 0, np.sqrt(intensities), 1e3)
    return dataclasses.replace(patterns, amplitudes=amplitudes, background=background)


@pytest.mark.parametrize("start", [0.0, 0.05, 0.3])
def test_one_step_finds_a_background_without_noise(dark_pixels, start):
    patterns, obj, probe, intensities = dark_pixels
    found = updates(obj, probe, with_intensities(patterns, intensities + 0.06, start))
    assert start + found.background / found.background_weight == pytest.approx(0.06, rel=1e-6)


@pytest.mark.parametrize("counts", [0.5, 2.0, 20.0])
def test_background_of_counts_with_noise_is_unbiased(dark_pixels, rng, counts):
    """The same step from amplitudes, Σ g·(x − a)/(2ã) over Σ g/(4ã²), is many standard errors too small."""
    patterns, obj, probe, intensities = dark_pixels
    expected = intensities * COUNTS + counts
    measured = rng.poisson(expected) / COUNTS
    background = 0.0
    for _ in range(4):
        noisy = with_intensities(patterns, measured, background)
        found = updates(obj, probe, noisy)
        background += found.background / found.background_weight
    amplitude, good = np.sqrt(intensities + background + 1e-8), patterns.mask
    damped = amplitude**2 + 1e-3
    assert found.background_weight == pytest.approx((good / damped).sum(), rel=1e-3)
    deviation = np.sqrt((good * expected / damped**2).sum()) / (good / damped).sum() / COUNTS
    assert abs(background - counts / COUNTS) < 3 * deviation

    true = np.sqrt(expected / COUNTS)
    by_amplitude = (good * (np.sqrt(measured) - true) / (2 * true)).sum() / (good / (4 * true**2)).sum()
    assert by_amplitude < -10 * deviation


def test_dark_pixels_have_a_bounded_weight(dark_pixels):
    """A pixel without any modelled light has the weight 1000, not 1e8."""
    patterns, obj, probe, intensities = dark_pixels
    found = updates(0 * obj, probe, with_intensities(patterns, intensities, 0.0))
    pixels = len(patterns.amplitudes) * patterns.mask.sum()
    assert found.background_weight == pytest.approx(1000 * pixels, rel=1e-4)
