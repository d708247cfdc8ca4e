"""Probes of optics (spec: data 12), compared with geometrical optics and the Airy and Gaussian laws."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ptycho_backend.errors import ConfigError
from ptycho_backend.importing.description import GeometryDescription as Geometry
from ptycho_backend.importing.description import ProbeDescription as Probe
from ptycho_backend.importing.geometry import electron_wavelength_m
from ptycho_backend.importing.optics import FIELDS, optics_probe

XRAY = Geometry(wavelength_m=1e-10)
PLATE = Probe(optics="zone-plate", diameter_m=100e-6, outermost_zone_m=50e-9)  # NA of 1 mrad, focal length 50 mm
STEM = Geometry(voltage_kv=200, convergence_mrad=20)
STEM_WAVELENGTH = electron_wavelength_m(200)
ANGSTROM = 1e-10
EVERY = {
    "pinhole": (Probe(optics="pinhole", diameter_m=1e-6, defocus_m=1e-4), XRAY, 20e-9),
    "zone-plate": (dataclasses.replace(PLATE, defocus_m=3e-4, central_stop_m=30e-6), XRAY, 15e-9),
    "lens": (Probe(optics="lens", defocus_m=2e-8, cs_m=1e-4), STEM, 0.25 * ANGSTROM),
    "gaussian": (Probe(optics="gaussian", diameter_m=500e-9, defocus_m=5e-3), XRAY, 20e-9),
}


def intensity(probe, geometry, N, pixel_m):
    wave = optics_probe(probe, geometry, N, (pixel_m, pixel_m))
    return np.abs(wave[0].astype(np.complex128)) ** 2


def propagated(wave, wavelength, z_m, pixel_m):
    """Return a wave moved downstream by `z_m`: Fresnel's law with the plain FFT, independent of the package."""
    k2 = sum(f**2 for f in np.meshgrid(*[np.fft.fftfreq(side, pixel_m) for side in wave.shape], indexing="ij"))
    return np.fft.ifft2(np.fft.fft2(wave) * np.exp(-1j * np.pi * wavelength * z_m * k2))


def moments(light, N, pixel_m):
    """Return the middle (y, x), pixels from N//2, and the covariance (y, x), metres²."""
    y, x = (axis - N // 2 for axis in np.indices((N, N)))
    mean = np.array([np.sum(light * y), np.sum(light * x)]) / light.sum()
    offsets = np.stack([(y - mean[0]).ravel(), (x - mean[1]).ravel()])
    return mean, (offsets * light.ravel()) @ offsets.T / light.sum() * pixel_m**2


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("N", [128, 129])
def test_every_beam_has_unit_energy_and_stands_on_the_middle_pixel(name, N):
    probe, geometry, pixel_m = EVERY[name]
    wave = optics_probe(probe, geometry, N, (pixel_m, pixel_m))
    assert wave.shape == (1, N, N)
    assert wave.dtype == np.complex64
    assert np.sum(np.abs(wave) ** 2, dtype=np.float64) == pytest.approx(1, abs=1e-5)
    light = np.abs(wave[0]) ** 2
    inner = light[1:, 1:] if N % 2 == 0 else light  # symmetric about pixel N//2
    np.testing.assert_allclose(inner, inner[::-1, ::-1], atol=1e-5 * light.max())
    np.testing.assert_allclose(moments(inner, len(inner), 1.0)[0], 0, atol=1e-3)


def test_no_optics_give_no_probe():
    assert optics_probe(Probe(), XRAY, 64, (1e-8, 1e-8)) is None


def test_a_zone_plate_in_focus_gives_the_airy_pattern():
    first_zero_m = 1.22 * 1e-10 / (2 * 1e-3)  # 61 nm
    pixel_m, N = first_zero_m / 8, 256
    light = intensity(PLATE, XRAY, N, pixel_m)
    row = light[N // 2, N // 2 :]
    assert np.argmin(row[:12]) == 8
    assert row[8] < 1e-4 * row[0]
    inside = np.hypot(*(np.indices((N, N)) - N // 2)) <= 8
    assert light[inside].sum() == pytest.approx(0.838, abs=0.02)  # the window cuts rings far outside


@pytest.mark.parametrize("defocus_m", [2e-3, -2e-3])
def test_a_defocused_beam_is_as_wide_as_its_cone(defocus_m):
    probe, pixel_m, N = dataclasses.replace(PLATE, defocus_m=defocus_m), 10e-9, 512
    light = intensity(probe, XRAY, N, pixel_m)
    radius_m = np.hypot(*(np.indices((N, N)) - N // 2)).ravel() * pixel_m
    order = np.argsort(radius_m)
    half_m = radius_m[order][np.searchsorted(np.cumsum(light.ravel()[order]), 0.5)]
    assert np.sqrt(2) * half_m == pytest.approx(1e-3 * 2e-3, rel=0.02)  # half of the light is in half of the area


def test_the_shadow_of_the_central_stop_is_dark():
    pixel_m, N = 10e-9, 256
    probe = dataclasses.replace(PLATE, defocus_m=6e-4, central_stop_m=50e-6)
    light = intensity(probe, XRAY, N, pixel_m)
    radius_m = np.hypot(*(np.indices((N, N)) - N // 2)) * pixel_m
    ring = light[(radius_m > 0.35e-6) & (radius_m < 0.55e-6)].mean()
    assert light[(radius_m < 0.25e-6) & (radius_m > 0.05e-6)].mean() < 0.25 * ring  # outside of the spot of Arago


@pytest.mark.parametrize("name", ["zone-plate", "lens", "gaussian"])
def test_a_defocused_beam_moved_back_by_the_defocus_is_the_focused_beam(name):
    probe, geometry, pixel_m = EVERY[name]
    wavelength = STEM_WAVELENGTH if name == "lens" else 1e-10
    wave, focus = (
        optics_probe(item, geometry, 128, (pixel_m, pixel_m))[0]
        for item in (probe, dataclasses.replace(probe, defocus_m=0.0))
    )
    back = propagated(np.fft.ifftshift(wave), wavelength, -probe.defocus_m, pixel_m)
    overlap = np.abs(np.vdot(np.fft.fftshift(back), focus))
    assert overlap == pytest.approx(1, abs=1e-3)
    assert np.abs(np.vdot(wave, focus)) < 0.8


@pytest.mark.parametrize("name", ["zone-plate", "lens", "gaussian"])
@pytest.mark.parametrize("sign", [1, -1])
def test_light_diverges_downstream_of_the_focus_and_converges_upstream(name, sign):
    """At positive defocus the right half of the beam moves to the right: its far field is at positive frequencies."""
    probe, geometry, pixel_m = EVERY[name]
    probe = dataclasses.replace(probe, defocus_m=sign * probe.defocus_m, cs_m=0.0)
    wave = optics_probe(probe, geometry, 128, (pixel_m, pixel_m))[0]
    wave[:, : 128 // 2 + 8] = 0
    far = np.abs(np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(wave)))) ** 2
    right, left = far[:, 65:].sum(), far[:, :64].sum()
    assert (right > 5 * left) if sign > 0 else (left > 5 * right)


def test_a_pinhole_has_its_width_and_keeps_its_energy_in_the_near_field():
    probe, pixel_m, N = Probe(optics="pinhole", diameter_m=1e-6), 20e-9, 128
    light = intensity(probe, Geometry(), N, pixel_m)  # in the plane of the hole no wavelength is needed
    area_m2 = np.sum(light > 0.5 * np.median(light[light > 0.5 * light.max()])) * pixel_m**2
    assert 2 * np.sqrt(area_m2 / np.pi) == pytest.approx(1e-6, rel=0.02)
    assert np.ptp(light[60:69, 60:69]) < 1e-6 * light.max()


def test_a_pinhole_far_away_gives_the_airy_pattern():
    z_m, diameter_m, pixel_m, N = 50e-3, 1e-6, 100e-9, 256  # Fresnel number 0.05
    light = intensity(Probe(optics="pinhole", diameter_m=diameter_m, defocus_m=z_m), XRAY, N, pixel_m)
    zero_px = 1.22 * 1e-10 * z_m / diameter_m / pixel_m  # 61
    row = light[N // 2, N // 2 :]
    assert np.argmin(row[:80]) == pytest.approx(zero_px, abs=2)
    assert row[61] < 0.003 * row[0]
    assert row[0] == light.max()


def test_a_pinhole_in_a_narrow_window_is_that_of_a_wide_one():
    """Light that leaves the window does not come back on its other side."""
    probe = Probe(optics="pinhole", diameter_m=1e-6, defocus_m=1e-3)
    narrow, wide = (optics_probe(probe, XRAY, N, (10e-9, 10e-9))[0] for N in (128, 512))
    middle = wide[192:320, 192:320]
    factor = np.vdot(middle, narrow) / np.vdot(middle, middle)
    assert np.linalg.norm(narrow - factor * middle) < 0.03 * np.linalg.norm(narrow)


@pytest.mark.parametrize("defocus_m", [0.0, 2e-3, -4e-3])
def test_a_gaussian_beam_widens_as_the_rayleigh_range_says(defocus_m):
    waist_m, pixel_m, N = 250e-9, 20e-9, 128
    probe = Probe(optics="gaussian", diameter_m=2 * waist_m, defocus_m=defocus_m)
    _, covariance = moments(intensity(probe, XRAY, N, pixel_m), N, pixel_m)
    rayleigh_m = np.pi * waist_m**2 / 1e-10
    expected_m = waist_m * np.sqrt(1 + (defocus_m / rayleigh_m) ** 2)
    assert 2 * np.sqrt(covariance[0, 0]) == pytest.approx(expected_m, rel=0.01)
    assert 2 * np.sqrt(covariance[1, 1]) == pytest.approx(expected_m, rel=0.01)


@pytest.mark.parametrize("angle_deg", [0.0, 30.0, 90.0, 135.0])
def test_the_line_focus_downstream_lies_along_the_angle_and_the_one_upstream_across_it(angle_deg):
    half_m, pixel_m, N = 3e-8, 0.3 * ANGSTROM, 128
    for sign, line_deg in ((1, angle_deg), (-1, angle_deg + 90)):
        probe = Probe(optics="lens", defocus_m=sign * half_m, astigmatism_m=half_m, astigmatism_deg=angle_deg)
        light = intensity(probe, STEM, N, pixel_m)
        light[light < 0.02 * light.max()] = 0  # the tails of a sharp aperture have no second moment
        _, covariance = moments(light, N, pixel_m)
        values, vectors = np.linalg.eigh(covariance)
        y, x = vectors[:, 1]
        turn = np.degrees(np.arctan2(y, x)) - line_deg
        assert abs((turn + 90) % 180 - 90) < 1
        assert values[1] > 50 * values[0]
        # A disc of rays pressed to a line of length 2·2a·α has the standard deviation of a quarter of it.
        assert np.sqrt(values[1]) == pytest.approx(half_m * 20e-3, rel=0.1)


def test_spherical_aberration_moves_the_marginal_rays_beyond_the_axis():
    """The circle of least confusion of Cs > 0 lies upstream, at −3/4 Cs α², with a quarter of the diameter."""
    cs_m, N, pixel_m = 0.5e-3, 256, 0.3 * ANGSTROM
    radius_m = np.hypot(*(np.indices((N, N)) - N // 2)) * pixel_m
    blur_m = cs_m * 0.02**3  # 4 nm: the whole radius in the focus of the axis

    def enclosed(defocus_m, limit_m):
        light = intensity(Probe(optics="lens", defocus_m=defocus_m, cs_m=cs_m / 2), STEM, N, pixel_m)
        return light[radius_m < limit_m].sum()

    least = -0.75 * cs_m / 2 * 0.02**2
    quarter = 0.25 * blur_m / 2 + 0.61 * STEM_WAVELENGTH / 0.02
    assert enclosed(least, quarter) > 0.9
    assert enclosed(0.0, quarter) < 0.7


def test_a_beam_on_pixels_that_are_not_square_is_round_in_metres():
    probe = dataclasses.replace(PLATE, defocus_m=4e-4)
    light = np.abs(optics_probe(probe, XRAY, 256, (8e-9, 12e-9))[0]) ** 2
    inside = light > 0.5 * np.median(light[light > 0.3 * light.max()])
    y, x = np.nonzero(inside)
    assert y.std() * 8e-9 == pytest.approx(x.std() * 12e-9, rel=0.02)


def test_the_aperture_of_a_lens_is_its_own_or_the_convergence_angle():
    own = Probe(optics="lens", aperture_mrad=20, defocus_m=1e-8)
    bare = dataclasses.replace(own, aperture_mrad=None)
    pixel = (0.25 * ANGSTROM, 0.25 * ANGSTROM)
    by_probe = optics_probe(own, Geometry(voltage_kv=200), 64, pixel)
    np.testing.assert_array_equal(by_probe, optics_probe(bare, STEM, 64, pixel))
    with pytest.raises(ConfigError, match=r"aperture_mrad 20 and --geometry\.convergence_mrad 25"):
        optics_probe(own, Geometry(voltage_kv=200, convergence_mrad=25), 64, pixel)


@pytest.mark.parametrize(
    ("probe", "geometry", "pixel_m", "texts"),
    [
        (Probe(optics="pinhole"), XRAY, 1e-8, ["add --probe.diameter_m"]),
        (Probe(optics="zone-plate"), XRAY, 1e-8, ["--probe.diameter_m and --probe.outermost_zone_m"]),
        (Probe(optics="lens"), Geometry(voltage_kv=200), 1e-11, ["--probe.aperture_mrad"]),
        (PLATE, Geometry(), 1e-8, ["--geometry.energy_kev"]),
        (Probe(optics="gaussian", diameter_m=1e-7, defocus_m=1e-6), Geometry(), 1e-8, ["--geometry.energy_kev"]),
        (dataclasses.replace(PLATE, cs_m=1e-3), XRAY, 1e-8, ["--probe.cs_m", "--probe.optics lens"]),
        (Probe(optics="none", diameter_m=1e-6), XRAY, 1e-8, ["--probe.diameter_m"]),
        (Probe(optics="lens", outermost_zone_m=5e-8), STEM, 1e-11, ["--probe.outermost_zone_m", "zone-plate"]),
        (Probe(optics="lens", astigmatism_deg=10), STEM, 1e-11, ["--probe.astigmatism_deg", "--probe.astigmatism_m"]),
        (dataclasses.replace(PLATE, array="a.npy"), XRAY, 1e-8, ["--probe.array", "not both"]),
        (dataclasses.replace(PLATE, central_stop_m=1e-4), XRAY, 1e-8, ["--probe.central_stop_m"]),
        (PLATE, XRAY, 60e-9, ["0.8333 mrad", "--probe.outermost_zone_m", "--detector.size_px"]),
        (dataclasses.replace(PLATE, outermost_zone_m=5e-6), XRAY, 1e-8, ["resolves the aperture"]),
        (dataclasses.replace(PLATE, defocus_m=1e-3), XRAY, 10e-9, ["2.122 µm", "1.28 µm", "--detector.bin"]),
        (Probe(optics="lens", defocus_m=1e-6), STEM, 0.2 * ANGSTROM, ["--probe.defocus_m", "2.56 nm"]),
        (Probe(optics="lens", cs_m=1e-3), STEM, 0.2 * ANGSTROM, ["16.15 nm"]),
        (Probe(optics="pinhole", diameter_m=5e-6), XRAY, 20e-9, ["5 µm", "2.56 µm"]),
        (Probe(optics="pinhole", diameter_m=1e-6, defocus_m=0.1), XRAY, 20e-9, ["--probe.defocus_m 0.1", "light"]),
        (Probe(optics="pinhole", diameter_m=1e-9), XRAY, 20e-9, ["--probe.diameter_m 1e-09", "80 nm"]),
        (Probe(optics="gaussian", diameter_m=3e-6), XRAY, 20e-9, ["3 µm"]),
        (Probe(optics="gaussian", diameter_m=0.2e-6, defocus_m=0.01), XRAY, 20e-9, ["--probe.defocus_m"]),
    ],
)
def test_optics_that_cannot_be_are_an_error_that_says_what_to_change(probe, geometry, pixel_m, texts):
    with pytest.raises(ConfigError) as error:
        optics_probe(probe, geometry, 128, (pixel_m, pixel_m))
    for text in texts:
        assert text in str(error.value)


def test_the_table_of_fields_names_every_field_of_the_description():
    fields = {item.name for item in dataclasses.fields(Probe)} - {"array", "optics"}
    assert {name for groups in FIELDS.values() for group in groups for name in group} == fields
