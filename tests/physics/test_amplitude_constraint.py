"""Initial estimate, amplitude constraint and accelerated steps (physics 6)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from ptycho_backend.config import ModelConfig
from ptycho_backend.physics.amplitude_constraint import (
    BACKGROUND,
    REGULARISATION,
    accelerated,
    constrain_amplitude,
    fill_amplitude,
    initial_estimate,
    regularised_intensity,
)
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.physics.forward import intensity
from ptycho_backend.physics.propagation import far_field, near_field
from ptycho_backend.simulation.probes import make_probe
from ptycho_backend.simulation.simulate import simulate_scan
from ptycho_backend.testing import assert_close
from ptycho_backend.testing.strategies import complex_noise, generators, probes
from ptycho_backend.testing.tolerances import EXACT64, Tolerance

N = 16
SINGLE = Tolerance(1e-3, "float32 rounding over eight steps; 1e-2 if a dark pixel has an arbitrary phase")


def measured(patches, probe):
    return np.sqrt(intensity(patches, probe))


def constrained_amplitude(predicted, x):
    """Return the amplitude that replaces the predicted one: x, damped by the background."""
    return predicted * np.sqrt((x**2 + BACKGROUND) / (predicted**2 + BACKGROUND))


@given(rng=generators(), probe=probes(N, 1))
def test_initial_estimate_is_the_formula_of_the_specification(rng, probe):
    x = rng.uniform(0.5, 2.0, size=(3, N, N))
    P = probe[0]
    denominator = np.abs(P) ** 2 + 0.05 * (np.abs(P) ** 2).max()
    wave = far_field(P)
    exit_wave = near_field(constrained_amplitude(np.abs(wave), x) * np.exp(1j * np.angle(wave)))
    expected = exit_wave * np.conj(P) / denominator + 1 - np.abs(P) ** 2 / denominator
    assert_close(initial_estimate(x, probe), expected, EXACT64)


@given(probe=probes(N))
def test_initial_estimate_of_an_empty_sample_is_one(probe):
    x = fill_amplitude(probe)
    np.testing.assert_allclose(initial_estimate(x, probe), 1.0, atol=1e-12)
    assert (x**2).sum() == pytest.approx((N / 2) ** 2)


@given(rng=generators(), probe=probes(N))
def test_true_object_is_a_fixed_point(rng, probe):
    truth = 1 + 0.4 * complex_noise(rng, 2, N, N)
    assert_close(constrain_amplitude(truth, measured(truth, probe), probe), truth, EXACT64)


@given(rng=generators(), probe=probes(N), phase=st.floats(-3, 3))
def test_global_phase_is_preserved(rng, probe, phase):
    patches, x = complex_noise(rng, 2, N, N), rng.uniform(0.5, 2.0, size=(2, N, N))
    factor = np.exp(1j * phase)
    once = constrain_amplitude(patches, x, probe)
    assert_close(constrain_amplitude(factor * patches, x, probe), factor * once, EXACT64)
    assert_close(constrain_amplitude(patches, x, factor * probe), once, EXACT64)


@given(rng=generators(), probe=probes(N))
def test_bad_pixels_keep_the_predicted_wave(rng, probe):
    patches, x = complex_noise(rng, 2, N, N), rng.uniform(0.5, 2.0, size=(2, N, N))
    mask = (rng.random((N, N)) < 0.7).astype(float)
    predicted = measured(patches, probe)
    expected = constrain_amplitude(patches, np.where(mask, x, predicted), probe)
    assert_close(constrain_amplitude(patches, x, probe, mask), expected, EXACT64)
    np.testing.assert_array_equal(constrain_amplitude(patches, x, probe, 0.0), patches)


def test_flat_probe_changes_the_amplitude_by_the_regularised_share(rng):
    # |P| = 1: without background D changes |ψ| to |ψ| + (x − |ψ|)/1.05 and keeps its phase.
    probe = np.exp(1j * rng.uniform(0, 6, size=(1, N, N)))
    patch, x = complex_noise(rng, 1, N, N), rng.uniform(0.5, 2.0, size=(1, N, N))
    before, after = (far_field(o * probe[0]) for o in (patch, constrain_amplitude(patch, x, probe)))
    new = constrained_amplitude(np.abs(before), x)
    expected = (np.abs(before) + (new - np.abs(before)) / (1 + REGULARISATION)) * np.exp(1j * np.angle(before))
    assert_close(after, expected, EXACT64)
    np.testing.assert_allclose(np.where(np.abs(before) > 0.2, new - x, 0), 0, atol=0.1)


@given(rng=generators(), probe=probes(N, 1))
def test_pixels_without_illumination_do_not_change(rng, probe):
    dark = rng.random((N, N)) < 0.3
    partial_probe = np.where(dark, 0, probe)
    patches, x = complex_noise(rng, 2, N, N), rng.uniform(0.5, 2.0, size=(2, N, N))
    update = constrain_amplitude(patches, x, partial_probe) - patches
    np.testing.assert_array_equal(update[:, dark], 0)
    assert np.abs(update[:, ~dark]).max() > 1e-3


@given(rng=generators(), probe=probes(N))
def test_step_reduces_the_amplitude_error(rng, probe):
    truth = 1 + 0.3 * complex_noise(rng, 1, N, N)
    start, x = np.ones((1, N, N), complex), measured(truth, probe)
    errors = [((x - measured(o, probe)) ** 2).sum() for o in (start, constrain_amplitude(start, x, probe))]
    assert errors[1] < errors[0]


def test_modes_keep_their_shares_of_the_amplitude(rng):
    probe = complex_noise(rng, 2, N, N)
    patch, x = complex_noise(rng, N, N), rng.uniform(0.5, 2.0, size=(N, N))
    waves = far_field(patch * probe)
    total = np.sqrt((np.abs(waves) ** 2).sum(axis=0))
    targets = near_field(constrained_amplitude(total, x) * np.abs(waves) / total * np.exp(1j * np.angle(waves)))
    update = (np.conj(probe) * (targets - patch * probe)).sum(axis=0) / regularised_intensity(probe)
    assert_close(constrain_amplitude(patch, x, probe), patch + update, EXACT64)


def test_regularisation_bounds_the_division():
    probe = np.zeros((2, 4, 4))
    probe[0, 1, 1], probe[1, 1, 1] = 3.0, 4.0
    expected = np.full((4, 4), 0.05 * 25)
    expected[1, 1] = 25 * 1.05
    np.testing.assert_allclose(regularised_intensity(probe), expected)


@given(rng=generators(), probe=probes(N))
def test_accelerated_steps_use_momentum_from_the_second_step_on(rng, probe):
    patches, x = 1 + 0.2 * complex_noise(rng, 2, N, N), rng.uniform(0.5, 2.0, size=(2, N, N))
    once = constrain_amplitude(patches, x, probe)
    twice = constrain_amplitude(once + (once - patches) / 4, x, probe)
    assert_close(accelerated(patches, x, probe, 1.0, 0), patches, EXACT64)
    assert_close(accelerated(patches, x, probe, 1.0, 1), once, EXACT64)
    assert_close(accelerated(patches, x, probe, 1.0, 2), twice, EXACT64)


def test_accelerated_steps_converge_faster_than_plain_ones():
    rng = np.random.default_rng(0)
    probe = make_probe("disc", 32, rng).astype(complex) * 16
    truth = np.exp(1j * gaussian_filter(rng.normal(size=(4, 32, 32)), (0, 2, 2)) * 4)
    x = measured(truth, probe)
    first = initial_estimate(x, probe)
    plain = first
    for _ in range(8):
        plain = constrain_amplitude(plain, x, probe)

    def error(patches):
        return np.linalg.norm(measured(patches, probe) - x)

    assert error(accelerated(first, x, probe, 1.0, 8)) < 0.8 * error(plain) < 0.5 * error(first)


def test_photons_on_dark_pixels_do_not_amplify_rounding():
    # A Gaussian beam is below rounding on half of the detector: its phase is arbitrary there.
    scan = simulate_scan(N=32, n_positions=16, object_name="lines", probe_name="gaussian", photons_per_pattern=2e4)
    calibration = calibrate(scan, ModelConfig(N=32))
    x, probe = calibration.rms_input_scale * np.sqrt(scan.patterns), calibration.probe
    assert x[:, np.abs(far_field(probe[0])) < 1e-4].max() > 0.05  # a photon

    def estimate(x, probe):
        return accelerated(initial_estimate(x, probe), x, probe, np.float32(1), 8)

    single = estimate(x.astype(np.float32), probe)
    assert single.dtype == np.complex64
    assert_close(single, estimate(x.astype(np.float64), probe.astype(np.complex128)), SINGLE)
