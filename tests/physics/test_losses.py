"""Losses against their definitions, and the shot-noise floor (physics 5)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import kl_div

from ptycho_backend.physics.losses import (
    MIN_COUNTS,
    amplitude_mae,
    half_deviance,
    label_mae,
    poisson,
    shot_noise_floor,
    smooth_abs,
    total_variation,
)
from ptycho_backend.testing import assert_close
from ptycho_backend.testing.strategies import complex_noise, generators
from ptycho_backend.testing.tolerances import EXACT64, FINITE_DIFFERENCE64

counts = st.one_of(st.just(0.0), st.integers(1, 10**7).map(float), st.floats(1e-3, 1e4))
rates = st.floats(MIN_COUNTS, 1e7)


@given(lam=rates, k=counts)
def test_half_deviance_is_the_poisson_formula(lam, k):
    # scipy's kl_div is k·ln(k/λ) − k + λ, with 0·ln 0 = 0.
    expected = kl_div(k, lam)
    scale = max(lam, k)
    assert half_deviance(np.array(lam), np.array(k)) == pytest.approx(expected, rel=1e-9, abs=1e-14 * scale)


@given(k=st.integers(1, 10**7).map(float))
def test_half_deviance_is_zero_at_the_measured_count_and_else_positive(k):
    assert half_deviance(np.array(k), np.array(k)) == 0.0
    assert half_deviance(np.array([k * 0.999, k * 1.001]), np.array(k)).min() > 0.0


def test_half_deviance_is_accurate_for_large_well_predicted_counts():
    # Near λ = k it is (λ − k)²/(2k); the textbook formula loses all digits by cancellation.
    k, step = 1e10, 1.0
    assert half_deviance(np.array(k + step), np.array(k)) == pytest.approx(step**2 / (2 * k), rel=1e-6)


@given(lam=st.floats(0.01, 1e5), k=counts)
def test_gradient_is_that_of_the_log_likelihood(lam, k):
    h = 1e-4 * lam
    up, down = half_deviance(np.array([lam + h, lam - h]), np.array(k))
    assert (up - down) / (2 * h) == pytest.approx(1 - k / lam, abs=FINITE_DIFFERENCE64.relative * (1 + k / lam))


def test_dark_prediction_has_a_finite_loss():
    assert half_deviance(np.array(0.0), np.array(5.0)) == half_deviance(np.array(MIN_COUNTS), np.array(5.0))
    assert np.isfinite(half_deviance(np.array([0.0, 1e-300]), np.array([1e12, 0.0]))).all()


@given(rng=generators(), share=st.floats(0.1, 1.0))
def test_bad_pixels_do_not_change_the_losses(rng, share):
    lam, k = rng.uniform(1, 50, size=(2, 3, 2, 8, 8))
    mask = rng.random((8, 8)) < share
    mask[3, 4] = True
    damaged = np.where(mask, k, 1e6)
    assert poisson(lam, damaged, mask) == poisson(lam, k, mask)
    assert amplitude_mae(lam, damaged, mask, 2.0) == amplitude_mae(lam, k, mask, 2.0)
    assert poisson(lam, k, mask) == pytest.approx(half_deviance(lam, k)[..., mask].mean())


def test_amplitude_error_is_in_normalised_amplitude():
    lam, k = np.full((1, 4, 4), 9.0), np.full((1, 4, 4), 25.0)
    assert amplitude_mae(lam, k, np.ones((4, 4)), r=0.5) == pytest.approx(0.5 * 2.0)


def test_total_variation_of_a_ramp_is_its_slope():
    y, x = np.indices((8, 8))
    weight = np.ones((8, 8))
    assert total_variation((0.5j * y)[None], weight) == pytest.approx(0.5 * 7 / 8, abs=1e-5)
    assert total_variation((0.5j * y - 2.0 * x)[None, None], weight) == pytest.approx(2.5 * 7 / 8, abs=1e-5)
    assert total_variation(np.full((2, 3, 8, 8), 1j), weight) == pytest.approx(0.0, abs=1e-5)


def test_total_variation_weights_a_step_by_its_first_pixel():
    patch = np.zeros((1, 4, 4), complex)
    patch[0, 2:, :] = 3.0
    weight = np.arange(16.0).reshape(4, 4)
    assert total_variation(patch, weight) == pytest.approx(3.0 * weight[1].sum() / weight.sum(), abs=1e-5)


@given(rng=generators())
def test_label_error_is_independent_of_one_phase_per_group(rng):
    patches, weight = complex_noise(rng, 3, 4, 8, 8), rng.random((8, 8))
    labels = complex_noise(rng, 3, 4, 8, 8)
    factors = np.exp(1j * rng.uniform(0, 2 * np.pi, size=(3, 1, 1, 1)))
    assert label_mae(factors * patches, labels, weight) == pytest.approx(label_mae(patches, labels, weight), rel=1e-9)
    assert label_mae(factors * labels, labels, weight) == pytest.approx(0.0, abs=2e-6)
    within = np.exp(1j * rng.uniform(0, 2 * np.pi, size=(3, 4, 1, 1)))
    assert label_mae(within * labels, labels, weight) > 0.1


def test_label_error_of_a_known_difference():
    labels = np.ones((1, 1, 4, 4), complex)
    assert label_mae(1.25 * labels, labels, np.eye(4)) == pytest.approx(0.25, abs=1e-6)


def test_smooth_abs_is_the_modulus_away_from_zero(rng):
    z = complex_noise(rng, 100)
    assert_close(smooth_abs(z), np.sqrt(np.abs(z) ** 2 + 1e-12), EXACT64)
    assert smooth_abs(np.array(0.0)) == 1e-6


@pytest.mark.parametrize("lam", [0.01, 0.3, 2.0, 20.0, 59.0, 61.0, 1000.0])
def test_floor_is_the_mean_loss_of_a_perfect_prediction(lam, rng):
    k = rng.poisson(lam, size=(400, 40, 40))
    measured = half_deviance(np.full(k.shape, lam), k)
    error = 4 * measured.std() / np.sqrt(measured.size)
    floor = shot_noise_floor(np.full((1, 40, 40), lam), np.ones((40, 40)))
    assert floor == pytest.approx(measured.mean(), abs=error + 1e-3 * measured.mean())


def test_floor_approaches_one_half_and_uses_good_pixels_only():
    lam = np.full((2, 4, 4), 1e9)
    lam[:, 0, 0] = 1e-3
    mask = np.ones((4, 4), bool)
    mask[0, 0] = False
    assert shot_noise_floor(lam, mask) == pytest.approx(0.5, rel=1e-6)
    assert shot_noise_floor(lam, np.ones((4, 4))) < 0.5 * 15.5 / 16
