"""One FFT, centred and unitary (physics 3)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from ptycho_backend.physics.propagation import far_field, near_field
from ptycho_backend.testing import assert_adjoint, assert_close
from ptycho_backend.testing.strategies import complex_noise, generators, sides, waves
from ptycho_backend.testing.tolerances import EXACT32, EXACT64


@given(wave=waves())
def test_parseval(wave):
    energy = (np.abs(wave) ** 2).sum(axis=(-2, -1))
    np.testing.assert_allclose((np.abs(far_field(wave)) ** 2).sum(axis=(-2, -1)), energy, rtol=1e-12)


@given(wave=waves())
def test_near_field_is_the_inverse(wave):
    assert_close(near_field(far_field(wave)), wave, EXACT64)
    assert_close(far_field(near_field(wave)), wave, EXACT64)


@given(rng=generators(), n=sides(), m=sides())
def test_near_field_is_the_adjoint(rng, n, m):
    assert_adjoint(far_field, near_field, complex_noise(rng, n, m), complex_noise(rng, n, m), EXACT64)


@given(wave=waves(2, 7))
def test_far_field_is_the_discrete_fourier_sum(wave):
    def kernel(n):
        index = np.arange(n) - n // 2
        return np.exp(-2j * np.pi * np.outer(index, index) / n) / np.sqrt(n)

    expected = kernel(wave.shape[-2]) @ wave @ kernel(wave.shape[-1])
    assert_close(far_field(wave), expected, EXACT64)


@pytest.mark.parametrize(("n", "m"), [(8, 8), (7, 7), (8, 5), (64, 32)])
def test_zero_frequency_lands_on_the_middle_pixel(n, m):
    spectrum = far_field(np.ones((n, m)))
    assert np.argwhere(np.abs(spectrum) > 1e-9).tolist() == [[n // 2, m // 2]]
    assert spectrum[n // 2, m // 2] == pytest.approx(np.sqrt(n * m))


def test_phase_ramp_shifts_the_spot_by_its_cycles():
    y, x = np.indices((16, 16)) - 8
    spectrum = far_field(np.exp(2j * np.pi * (3 * y - 2 * x) / 16))
    assert np.argwhere(np.abs(spectrum) > 1e-9).tolist() == [[8 + 3, 8 - 2]]


def test_central_point_gives_a_flat_real_wave():
    point = np.zeros((9, 9))
    point[4, 4] = 3.0
    np.testing.assert_allclose(far_field(point), np.full((9, 9), 3.0 / 9.0), atol=1e-14)


def test_precision_follows_the_input(rng):
    wave = complex_noise(rng, 2, 16, 16)
    assert far_field(wave).dtype == np.complex128
    single = far_field(wave.astype(np.complex64))
    assert single.dtype == np.complex64
    assert_close(single, far_field(wave), EXACT32)
