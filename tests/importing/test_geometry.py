"""Wavelength and object pixel (spec: data 12), compared with published numbers and with simulated discs."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_backend.errors import ConfigError, DataError
from ptycho_backend.importing.description import GeometryDescription as Geometry
from ptycho_backend.importing.geometry import (
    bright_field_radius,
    electron_wavelength_m,
    geometry_text,
    needs_bright_field_radius,
    object_pixel_m,
    wavelength_m,
)


@pytest.mark.parametrize(("voltage_kv", "picometres"), [(300, 1.9687), (200, 2.5079), (100, 3.7014), (80, 4.1757)])
def test_electrons_have_the_published_relativistic_wavelength(voltage_kv, picometres):
    assert electron_wavelength_m(voltage_kv) * 1e12 == pytest.approx(picometres, abs=6e-5)


def test_photons_have_the_published_wavelength():
    assert wavelength_m(Geometry(energy_kev=12.39842)) == pytest.approx(1e-10, rel=1e-6)
    assert wavelength_m(Geometry(wavelength_m=2e-10)) == 2e-10
    assert wavelength_m(Geometry(detector_pixel_m=1e-4)) is None


def test_energies_and_wavelengths_that_agree_are_accepted_and_others_are_an_error():
    assert wavelength_m(Geometry(energy_kev=12.398, wavelength_m=1e-10)) == 1e-10
    with pytest.raises(ConfigError) as error:
        wavelength_m(Geometry(energy_kev=12.42, wavelength_m=1e-10))
    assert "--geometry.energy_kev 12.42" in str(error.value)
    assert "--geometry.wavelength_m 1e-10" in str(error.value)
    with pytest.raises(ConfigError, match=r"energy_kev 80 .*voltage_kv 80"):  # keV of electrons, not of photons
        wavelength_m(Geometry(energy_kev=80, voltage_kv=80))


def test_an_energy_in_another_unit_is_an_error_that_names_the_option_for_it():
    assert wavelength_m(Geometry(energy_ev=12398.42)) == pytest.approx(1e-10, rel=1e-6)
    with pytest.raises(ConfigError, match=r"--geometry\.energy_ev takes the other unit"):
        wavelength_m(Geometry(energy_kev=8800))
    with pytest.raises(ConfigError, match=r"--geometry\.energy_kev takes the other unit"):
        wavelength_m(Geometry(energy_ev=0.8))
    with pytest.raises(ConfigError, match=r"electrons have --geometry\.voltage_kv"):
        wavelength_m(Geometry(energy_kev=300))


def test_distance_and_detector_pixel_give_the_pixel_along_each_axis():
    # 10 keV, 5 m, 75 µm, 128 pixels: 1.239842 Å · 5 m / 9.6 mm
    geometry = Geometry(energy_kev=10, distance_m=5, detector_pixel_m=75e-6)
    assert object_pixel_m(geometry, (128, 64)) == pytest.approx((64.575e-9, 129.150e-9), rel=1e-4)
    geometry.detector_pixel_x_m = 150e-6
    assert object_pixel_m(geometry, (128, 64)) == pytest.approx((64.575e-9, 64.575e-9), rel=1e-4)


def test_a_reciprocal_step_needs_no_wavelength():
    # 100 pixels of 0.02 1/Å span 2 1/Å: pixels of half an ångström
    assert object_pixel_m(Geometry(reciprocal_step_per_angstrom=0.02), (100, 50)) == pytest.approx((0.5e-10, 1e-10))


def test_three_ways_to_the_pixel_agree_for_one_microscope():
    wavelength, step_rad, radius_px = electron_wavelength_m(200), 0.5e-3, 40.0
    by_disc = Geometry(voltage_kv=200, convergence_mrad=20, bright_field_radius_px=radius_px)
    by_step = Geometry(reciprocal_step_per_angstrom=step_rad / wavelength * 1e-10)
    by_distance = Geometry(voltage_kv=200, distance_m=0.1, detector_pixel_m=step_rad * 0.1)
    pixels = [object_pixel_m(geometry, (128, 128)) for geometry in (by_disc, by_step, by_distance)]
    assert pixels[0] == pytest.approx((wavelength / (128 * step_rad),) * 2)
    assert pixels[1] == pytest.approx(pixels[0])
    assert pixels[2] == pytest.approx(pixels[0])


def test_ways_that_disagree_are_an_error_with_both_pixels():
    geometry = Geometry(reciprocal_step_per_angstrom=0.02, object_pixel_m=0.504e-10)
    assert object_pixel_m(geometry, (100, 100)) == (0.504e-10, 0.504e-10)  # 0.8 %
    geometry.object_pixel_m = 0.51e-10
    with pytest.raises(ConfigError) as error:
        object_pixel_m(geometry, (100, 100))
    assert "51 pm from --geometry.object_pixel_m" in str(error.value)
    assert "50 pm from --geometry.reciprocal_step_per_angstrom" in str(error.value)


def test_a_measured_disc_counts_only_where_nothing_else_gives_the_pixel():
    measured = Geometry(voltage_kv=300, convergence_mrad=20)
    assert needs_bright_field_radius(measured)
    expected = electron_wavelength_m(300) / (128 * 20e-3 / 32)
    assert object_pixel_m(measured, (128, 128), 32.0) == pytest.approx((expected, expected))
    declared = Geometry(voltage_kv=300, convergence_mrad=20, bright_field_radius_px=16)
    assert not needs_bright_field_radius(declared)
    assert object_pixel_m(declared, (128, 128), 32.0) == pytest.approx((expected / 2, expected / 2))
    assert not needs_bright_field_radius(Geometry(voltage_kv=300, convergence_mrad=20, object_pixel_m=1e-11))


@pytest.mark.parametrize(
    ("geometry", "missing"),
    [
        (Geometry(energy_kev=8, distance_m=2), "--geometry.detector_pixel_m"),
        (Geometry(distance_m=2, detector_pixel_m=1e-4), "--geometry.energy_kev or --geometry.voltage_kv"),
        (Geometry(voltage_kv=200, convergence_mrad=20), "--geometry.bright_field_radius_px"),
        (Geometry(detector_pixel_x_m=1e-4), "--geometry.detector_pixel_m"),
    ],
)
def test_an_incomplete_geometry_names_what_is_missing(geometry, missing):
    with pytest.raises(ConfigError) as error:
        object_pixel_m(geometry, (64, 64))
    assert missing in error.value.fix


def test_a_description_without_geometry_gives_no_pixel():
    assert object_pixel_m(Geometry(), (64, 64)) is None
    assert object_pixel_m(Geometry(energy_kev=8), (64, 64)) is None


def test_the_text_gives_pixel_and_resolution():
    assert geometry_text((8.4e-9, 8.4e-9)) == (
        "object pixel 8.4 nm, the resolution of the detector's edge is 16.8 nm (Nyquist: two pixels)"
    )
    assert "8.4 nm × 10 nm (y, x)" in geometry_text((8.4e-9, 1e-8), 1e-10)
    assert geometry_text(None, 1.9687e-12) == "wavelength 1.969 pm, object pixel unknown"


def disc(N, radius, centre, blur=0.0):
    """Return a disc with anti-aliased edge: the mean of 8×8 points in each pixel."""
    from scipy.ndimage import gaussian_filter

    points = (np.arange(8 * N) + 0.5) / 8 - 0.5
    inside = np.hypot(points[:, None] - centre[0], points[None, :] - centre[1]) <= radius
    image = inside.reshape(N, 8, N, 8).mean(axis=(1, 3))
    return gaussian_filter(image, blur) if blur else image


@pytest.mark.parametrize("radius", [4.3, 9.7, 20.5])
@pytest.mark.parametrize("centre", [(32.0, 32.0), (30.4, 33.3)])
@pytest.mark.parametrize("blur", [0.0, 1.0])
def test_the_radius_of_a_noisy_disc_with_scattered_dark_field_is_good_to_two_percent(radius, centre, blur):
    rng = np.random.default_rng(round(10 * radius))
    y, x = np.indices((64, 64))
    dark_field = 0.25 / (1 + ((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / radius**2)
    mean = rng.poisson(200 * (disc(64, radius, centre, blur) + dark_field))
    mean[5, 5] = 10_000  # a hot pixel elsewhere
    assert bright_field_radius(mean, (32, 32)) == pytest.approx(radius, rel=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_the_radius_is_as_good_at_eight_counts_a_pixel(seed):
    y, x = np.indices((64, 64))
    dark_field = 0.2 / (1 + ((y - 32) ** 2 + (x - 32) ** 2) / 20**2)
    mean = np.random.default_rng(seed).poisson(8 * (disc(64, 12.4, (31.6, 32.3)) + dark_field))
    assert bright_field_radius(mean, (32, 32)) == pytest.approx(12.4, rel=0.02)


def test_masked_pixels_inside_the_disc_are_filled_in():
    image = 100 * disc(64, 15.2, (32, 32))
    mask = np.ones((64, 64), dtype=bool)
    mask[28:33, 29:31], mask[:, 60] = False, False
    image[~mask] = np.nan
    assert bright_field_radius(image, (32, 32), mask) == pytest.approx(15.2, rel=0.01)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (disc(64, 40, (32, 32)), "edge of the pattern cuts"),
        (disc(64, 1.5, (32, 32)), "no disc"),
        (disc(64, 10, (32, 50)) * 100, "no bright region"),
        (np.exp(-(np.hypot(*(np.indices((64, 64)) - 32)) ** 2) / 200), "without a plateau"),
        (np.repeat(disc(64, 8, (32, 32))[:, 16:48], 2, axis=1), "no disc"),
    ],
    ids=["cut", "spot", "elsewhere", "gaussian", "ellipse"],
)
def test_a_pattern_without_a_disc_is_an_error_that_names_the_option(image, reason):
    with pytest.raises(DataError, match=reason) as error:
        bright_field_radius(image, (32, 32))
    assert "--geometry.bright_field_radius_px" in error.value.fix
