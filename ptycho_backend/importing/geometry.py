"""Wavelength and object pixel from the numbers of an instrument, and the bright-field disc (spec: data 12)."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.cxi import JOULE_PER_EV, PLANCK_LIGHT_J_M
from ptycho_backend.errors import ConfigError, DataError
from ptycho_backend.importing.description import GeometryDescription
from ptycho_backend.runtime.quantities import Pair, length_text, pixel_text

ELECTRON_REST_ENERGY_EV = 510_998.950_69  # CODATA 2022
PHOTON_EV = (1.0, 2e5)  # from the near infrared to hard X-rays
WAVELENGTHS = ("energy_kev", "energy_ev", "wavelength_m", "voltage_kv")
SAME_WAVELENGTH = 1e-3  # relative difference of two wavelengths that agree
SAME_PIXEL = 1e-2  # relative difference of two object pixels that agree
MIN_DISC_RADIUS_PX = 3.0
MAX_ELONGATION = 1.1  # radius from the second moment over that from the area: 1 for a disc
MAX_UNEVENNESS = 2.4  # brightness in a disc at the quantiles 0.9 and 0.1, divided: 3 for a Gaussian
EDGE_BAND_PX = 2  # width of the blurred edge of a disc, on both sides

# Fields of each way to the object's pixel, besides the wavelength.
ROUTES = {
    "distance": ("distance_m", "detector_pixel_m"),
    "reciprocal step": ("reciprocal_step_per_angstrom",),
    "bright-field disc": ("convergence_mrad", "bright_field_radius_px"),
}


def electron_wavelength_m(voltage_kv: float) -> float:
    """
    Return the relativistic wavelength of electrons, metres, from their acceleration voltage, kV.

    References
    ----------
    Kirkland, *Advanced Computing in Electron Microscopy*, equation 2.5: λ = hc / √(eV (2 m₀c² + eV)).
    """
    energy_ev = voltage_kv * 1e3
    momentum_ev = math.sqrt(energy_ev * (2 * ELECTRON_REST_ENERGY_EV + energy_ev))
    return PLANCK_LIGHT_J_M / JOULE_PER_EV / momentum_ev


def wavelength_m(description: GeometryDescription) -> float | None:
    """
    Return the wavelength, metres, or None if the description has none.

    Raises
    ------
    ConfigError
        If energy, wavelength and voltage differ by more than 0.1 %, or if an energy of photons is in another unit.

    Notes
    -----
    Spec: data 12.
    """
    found: dict[str, float] = {}
    if description.wavelength_m is not None:
        found["wavelength_m"] = description.wavelength_m
    for name, unit_ev in (("energy_kev", 1e3), ("energy_ev", 1.0)):
        if (energy := getattr(description, name)) is not None:
            _require_photon(name, energy * unit_ev)
            found[name] = PLANCK_LIGHT_J_M / JOULE_PER_EV / (energy * unit_ev)
    if description.voltage_kv is not None:
        found["voltage_kv"] = electron_wavelength_m(description.voltage_kv)
    if found and max(found.values()) > min(found.values()) * (1 + SAME_WAVELENGTH):
        values = [f"{option(name)} {getattr(description, name):g} gives {length_text(found[name])}" for name in found]
        raise ConfigError(
            "A scan has one wavelength.",
            expected=f"one of {', '.join(option(name) for name in WAVELENGTHS)}",
            received="; ".join(values),
            fix="leave out the wrong one; energy_kev is for photons, voltage_kv for electrons",
        )
    return next(iter(found.values()), None)


def _require_photon(name: str, energy_ev: float) -> None:
    """Raise an error for an energy far from those of coherent sources: its unit is another one."""
    low, high = PHOTON_EV
    if not low <= energy_ev <= high:
        others = {"energy_kev": "energy_ev", "energy_ev": "energy_kev"}
        raise ConfigError(
            "The energy of photons is that of a coherent source.",
            expected=f"{low:g} eV to {high / 1e3:g} keV",
            received=f"{option(name)}, which gives {energy_ev:g} eV",
            fix=f"{option(others[name])} takes the other unit; electrons have {option('voltage_kv')}",
        )


def object_pixel_m(
    description: GeometryDescription, sides_px: Pair, bright_field_radius_px: float | None = None
) -> Pair | None:
    """
    Return the object's pixel (y, x), metres, or None for a description without geometry.

    Parameters
    ----------
    description : GeometryDescription
    sides_px : tuple of float
        Sides (y, x) of the window that is written, detector pixels before binning.
    bright_field_radius_px : float, optional
        Measured radius, detector pixels before binning. It counts only if :func:`needs_bright_field_radius`.

    Raises
    ------
    ConfigError
        If two ways differ by more than 1 %, or if every way lacks a field.

    Notes
    -----
    Spec: data 1.2, 11. The pixel is λ·z / (side · detector pixel), or 1 / (side · reciprocal step). A bright-field
    disc of semi-angle α and radius r has the step α / (λ·r).
    """
    declared = _declared_pixels(description, sides_px)
    if not declared and (measured := _disc_pixel(description, sides_px, bright_field_radius_px)) is not None:
        return measured
    _require_agreement(declared)
    if not declared:
        _refuse_incomplete(description)
    return next(iter(declared.values()), None)


def needs_bright_field_radius(description: GeometryDescription) -> bool:
    """Return True if the object's pixel follows from a convergence angle and a disc that is not yet measured."""
    if description.convergence_mrad is None or wavelength_m(description) is None:
        return False
    return not _declared_pixels(description, (1.0, 1.0))


def geometry_text(pixel_m: Pair | None, wavelength: float | None = None) -> str:
    """Return one line with the object's pixel and the resolution it allows, and the wavelength if there is one."""
    parts = [f"wavelength {length_text(wavelength)}"] if wavelength is not None else []
    if pixel_m is None:
        parts.append("object pixel unknown")
    else:
        edge = pixel_text((2 * pixel_m[0], 2 * pixel_m[1]))
        parts.append(f"object pixel {pixel_text(pixel_m)}")
        parts.append(f"the resolution of the detector's edge is {edge} (Nyquist: two pixels)")
    return ", ".join(parts)


def option(name: str) -> str:
    """Return the option of the command for a field of the geometry."""
    return f"--geometry.{name}"


def bright_field_radius(mean_pattern: NDArray[Any], centre: Pair, mask: NDArray[np.bool_] | None = None) -> float:
    """
    Return the radius of the bright-field disc, pixels, from its area: r = √(area / π).

    A disc is the connected region around `centre` above half of its own median. A pixel near its edge counts as its
    fraction between the levels on both sides: the radius is good to a fraction of a pixel.

    Parameters
    ----------
    mean_pattern : real, shape (y, x)
        Mean of the patterns as counts.
    centre : tuple of float
        Middle of the disc (y, x), pixels.
    mask : bool, shape (y, x), optional
        True for good pixels. Bad pixels inside of the disc are filled in.

    Raises
    ------
    DataError
        If there is no disc around the centre, or if the edge of the pattern cuts it.

    Notes
    -----
    Spec: data 12.
    """
    from scipy import ndimage

    image = np.asarray(mean_pattern, dtype=np.float64)
    good = np.isfinite(image) if mask is None else np.isfinite(image) & mask
    image = np.where(good, image, 0.0)
    disc = _plateau(image, good, centre)
    _require_even_disc(image, disc & good, disc)
    if disc[[0, -1]].any() or disc[:, [0, -1]].any():
        raise _no_disc("the edge of the pattern cuts the disc")
    outer = ndimage.binary_dilation(disc, iterations=EDGE_BAND_PX)
    inner = ndimage.binary_erosion(disc, iterations=EDGE_BAND_PX)
    ring = ndimage.binary_dilation(outer, iterations=EDGE_BAND_PX) & ~outer & good
    plateau = np.median(image[(inner if (inner & good).any() else disc) & good])
    outside = np.median(image[ring]) if ring.any() else 0.0
    fractions = np.clip((image - outside) / (plateau - outside), 0.0, 1.0)
    band = outer & ~inner
    area = inner.sum() + np.where(good, fractions, disc)[band].sum()
    return math.sqrt(area / math.pi)


def _plateau(image: NDArray[np.float64], good: NDArray[np.bool_], centre: Pair) -> NDArray[np.bool_]:
    """Return the region around the centre above half of its own median, with its holes filled."""
    from scipy import ndimage

    smooth = ndimage.median_filter(image, 3)
    y, x = (round(value) for value in centre)
    if not (0 <= y < image.shape[0] and 0 <= x < image.shape[1]):
        raise _no_disc(f"a centre ({y}, {x}) outside of the pattern")
    around = np.s_[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
    level = float(np.median(smooth[around])) / 2
    disc: NDArray[np.bool_] = np.zeros(image.shape, dtype=bool)
    for _ in range(3):  # the median of the region replaces the value at its middle
        labels, _count = ndimage.label((smooth > level) & (level > 0))
        present = labels[around][labels[around] > 0]
        if not present.size:
            raise _no_disc("no bright region at the centre")
        disc = ndimage.binary_fill_holes(labels == np.bincount(present).argmax())
        level = float(np.median(image[disc & good])) / 2
    return disc


def _require_even_disc(image: NDArray[np.float64], measured: NDArray[np.bool_], disc: NDArray[np.bool_]) -> None:
    from scipy import ndimage

    area_radius_px = math.sqrt(disc.sum() / math.pi)
    y, x = np.nonzero(disc)
    moment_radius_px = math.sqrt(2 * (y.var() + x.var()))
    if area_radius_px < MIN_DISC_RADIUS_PX or moment_radius_px > MAX_ELONGATION * area_radius_px:
        raise _no_disc(f"a region of {disc.sum()} px that is no disc")
    dim, bright = np.quantile(ndimage.median_filter(image, 3)[measured], (0.1, 0.9))
    if bright > MAX_UNEVENNESS * dim:
        raise _no_disc(f"a spot whose brightness varies by a factor of {bright / dim:.2g}, without a plateau")


def _no_disc(received: str) -> DataError:
    return DataError(
        "A convergence angle gives the object pixel through the radius of the bright-field disc.",
        expected="a mean pattern with a whole, evenly bright disc of three or more pixels radius around its centre",
        received=received,
        fix="give --geometry.bright_field_radius_px, or the step as --geometry.reciprocal_step_per_angstrom",
    )


def _declared_pixels(description: GeometryDescription, sides_px: Pair) -> dict[str, Pair]:
    """Return the pixel (y, x) of every complete way, by the options that it takes."""
    wavelength, found = wavelength_m(description), {}
    distance, detector = description.distance_m, description.detector_pixel_m
    if description.object_pixel_m is not None:
        found[option("object_pixel_m")] = (description.object_pixel_m, description.object_pixel_m)
    if wavelength is not None and distance is not None and detector is not None:
        width = description.detector_pixel_x_m or detector
        found["distance and detector pixel"] = (
            wavelength * distance / (sides_px[0] * detector),
            wavelength * distance / (sides_px[1] * width),
        )
    elif description.detector_pixel_x_m is not None and detector is None:
        raise ConfigError(
            "The width of a detector pixel adds to its height.",
            expected=option("detector_pixel_m"),
            received=f"{option('detector_pixel_x_m')} {description.detector_pixel_x_m:g} alone",
            fix=f"add {option('detector_pixel_m')}, or give the pixel by it alone",
        )
    if description.reciprocal_step_per_angstrom is not None:
        step = description.reciprocal_step_per_angstrom * 1e10
        found[option("reciprocal_step_per_angstrom")] = (1 / (sides_px[0] * step), 1 / (sides_px[1] * step))
    disc = _disc_pixel(description, sides_px, None)
    if disc is not None:
        found["convergence angle and bright-field radius"] = disc
    return found


def _disc_pixel(description: GeometryDescription, sides_px: Pair, measured_px: float | None) -> Pair | None:
    wavelength, convergence = wavelength_m(description), description.convergence_mrad
    radius_px = description.bright_field_radius_px or measured_px
    if wavelength is None or convergence is None or radius_px is None:
        return None
    step = convergence * 1e-3 / radius_px / wavelength
    return 1 / (sides_px[0] * step), 1 / (sides_px[1] * step)


def _difference(first: Pair, second: Pair) -> float:
    return max(max(a, b) / min(a, b) for a, b in zip(first, second, strict=True)) - 1


def _require_agreement(pixels: dict[str, Pair]) -> None:
    values = list(pixels.values())
    if any(_difference(values[0], other) > SAME_PIXEL for other in values[1:]):
        raise ConfigError(
            "All numbers of the geometry give the same object pixel.",
            expected="object pixels that agree within 1 %",
            received="; ".join(f"{pixel_text(pixel)} from {name}" for name, pixel in pixels.items()),
            fix="leave out the wrong numbers; lengths are in metres, and detector pixels are those before binning",
        )


def _refuse_incomplete(description: GeometryDescription) -> None:
    """Raise an error if a way to the object's pixel has some of its fields."""
    given = [item.name for item in fields(description) if getattr(description, item.name) is not None]
    begun = {name: needed for name, needed in ROUTES.items() if set(needed) & set(given)}
    if not begun:
        return
    lacks_wavelength = wavelength_m(description) is None
    missing = []
    for name, needed in begun.items():
        lacking = [option(key) for key in needed if key not in given]
        if lacks_wavelength:
            lacking.append(f"{option('energy_kev')} or {option('voltage_kv')}")
        missing.append(f"{name}: {' and '.join(lacking)}")
    raise ConfigError(
        "The object pixel follows from a complete geometry.",
        expected="wavelength, distance and detector pixel; or the reciprocal step; or convergence angle and disc",
        received=f"only {', '.join(option(name) for name in given)}",
        fix=f"add what is missing ({'; '.join(missing)}), or give {option('object_pixel_m')}",
    )
