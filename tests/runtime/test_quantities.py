"""Lengths, resolutions and photon numbers as text."""

from __future__ import annotations

import math

import pytest

from ptycho_backend.runtime.quantities import (
    length_text,
    period_text,
    photons_text,
    pixel_text,
    resolution_m,
    resolution_text,
)


@pytest.mark.parametrize(
    ("length_m", "text"),
    [(2.0, "2 m"), (1.5e-3, "1.5 mm"), (1e-6, "1 µm"), (999e-9, "999 nm"), (5e-15, "0.005 pm"), (0.0, "0 pm")],
)
def test_a_length_has_a_fitting_unit(length_m, text):
    assert length_text(length_m) == text


def test_a_square_pixel_has_one_length():
    assert pixel_text((1e-8, 1e-8)) == "10 nm"
    assert pixel_text((1e-8, 2e-8)) == "10 nm × 20 nm (y, x)"


def test_the_resolution_is_a_full_period_of_the_longer_side():
    assert resolution_m(1.0, (1e-8, 1e-8)) == pytest.approx(2e-8)
    assert resolution_m(0.5, (1e-8, 3e-8)) == pytest.approx(1.2e-7)
    assert resolution_text(0.85, (1e-8, 1e-8)) == "0.85 of Nyquist (period 23.5 nm)"


@pytest.mark.parametrize(("fraction", "pixel"), [(0.0, (1e-8, 1e-8)), (math.nan, (1e-8, 1e-8)), (0.5, None)])
def test_a_resolution_without_a_length(fraction, pixel):
    assert resolution_m(fraction, pixel) is None
    assert resolution_text(fraction, pixel) == f"{fraction:.2f} of Nyquist"


@pytest.mark.parametrize(
    ("period_m", "text"), [(9.9996e-7, "1000 nm"), (2.345e-8, "23.4 nm"), (1.2e-10, "120 pm"), (1.5e-6, "1.5 µm")]
)
def test_a_period_has_three_digits(period_m, text):
    assert period_text(period_m) == text


@pytest.mark.parametrize(
    ("photons", "text"),
    [(0.5, "0.5"), (53.2, "53"), (1234.0, "1234"), (9949, "9949"), (9951, "1.0·10⁴"), (123456, "1.2·10⁵"), (0.0, "0")],
)
def test_many_photons_are_a_power_of_ten(photons, text):
    assert photons_text(photons) == text
