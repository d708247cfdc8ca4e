"""
Probe at the sample from the optics that form it (spec: data 12).

The beam moves downstream. A positive `defocus_m` means that the sample stands downstream of the focus, or of the
pinhole. A propagation by z multiplies the spectrum by exp(−iπ λ z k²), with k in cycles per metre.

References
----------
Goodman, *Introduction to Fourier Optics*, section 4.2 (Fresnel propagation).
Kirkland, *Advanced Computing in Electron Microscopy*, section 2.4; his underfocus is a negative defocus here.
Born, Wolf, *Principles of Optics*, section 8.5.2 (Airy pattern).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.errors import ConfigError
from ptycho_backend.importing.description import GeometryDescription, ProbeDescription
from ptycho_backend.importing.geometry import wavelength_m
from ptycho_backend.physics.propagation import far_field, near_field
from ptycho_backend.runtime.quantities import length_text
from ptycho_backend.simulation.probes import edge

Wave = NDArray[np.complex128]
Real = NDArray[np.float64]
Pair = tuple[float, float]

EDGE_SOFTNESS = 0.5  # of an aperture, pixels; removes the steps of its outline
MIN_DIAMETER_PX = 4.0  # of a pinhole, a waist or an aperture on its grid
MAX_LOST_ENERGY = 0.1  # of a pinhole's beam, outside of the window
AIRY_DIAMETER = 1.22  # of the first dark ring, in λ / NA
SAME_ANGLE = 1e-2  # relative difference of two apertures that agree
FIELDS = {  # options of each kind of optics: those it needs, those it can have
    "none": ((), ()),
    "pinhole": (("diameter_m",), ("defocus_m",)),
    "zone-plate": (("diameter_m", "outermost_zone_m"), ("central_stop_m", "defocus_m")),
    "lens": ((), ("aperture_mrad", "defocus_m", "cs_m", "astigmatism_m", "astigmatism_deg")),
    "gaussian": (("diameter_m",), ("defocus_m",)),
}


@dataclass(frozen=True)
class Grid:
    """
    Grid of the window at the sample, with pixel [N//2, N//2] on the axis.

    Parameters
    ----------
    N : int
        Side, pixels.
    pixel_m : tuple of float
        Pixel (y, x), metres.
    wavelength_m : float
        Wavelength, metres; 0 without one, for a beam that is not propagated.
    """

    N: int
    pixel_m: Pair
    wavelength_m: float

    @property
    def width_m(self) -> float:
        """Return the shorter side of the window."""
        return self.N * min(self.pixel_m)

    def places_m(self) -> tuple[Real, Real]:
        """Return y (y, 1) and x (1, x) of the pixels, metres."""
        indices: Real = np.arange(self.N, dtype=np.float64) - self.N // 2
        return indices[:, None] * self.pixel_m[0], indices[None, :] * self.pixel_m[1]

    def frequencies(self) -> tuple[Real, Real]:
        """Return the frequencies (y, 1) and (1, x) of the far field, cycles per metre."""
        indices: Real = np.arange(self.N, dtype=np.float64) - self.N // 2
        return indices[:, None] / (self.N * self.pixel_m[0]), indices[None, :] / (self.N * self.pixel_m[1])


def optics_probe(
    description: ProbeDescription, geometry: GeometryDescription, N: int, pixel_m: Pair
) -> NDArray[np.complex64] | None:
    """
    Return the probe of the optics at the sample, or None for optics "none".

    Parameters
    ----------
    description : ProbeDescription
    geometry : GeometryDescription
        Source of the wavelength, and of the convergence angle for a lens without an aperture of its own.
    N : int
        Side of the window as it is written, pixels.
    pixel_m : tuple of float
        Object pixel (y, x), metres.

    Returns
    -------
    complex64, shape (1, y, x)
        Unit total energy; the axis of the optics is on pixel ``[N//2, N//2]``.

    Raises
    ------
    ConfigError
        If a field is missing or not used by the optics, or if the window cannot hold the beam or its spectrum.

    Notes
    -----
    Spec: data 12.
    """
    _require_fields(description)
    if description.optics == "none":
        return None
    wavelength = wavelength_m(geometry)
    moved = description.optics not in ("pinhole", "gaussian") or description.defocus_m != 0
    if wavelength is None and moved:
        raise ConfigError(
            "The optics need the wavelength.",
            expected="--geometry.energy_kev, --geometry.wavelength_m or --geometry.voltage_kv",
            received=f"--probe.optics {description.optics} without any of them",
            fix="give one of the three options",
        )
    wave = BEAMS[description.optics](description, geometry, Grid(N, pixel_m, wavelength or 0.0))
    wave /= np.sqrt(np.sum(np.abs(wave) ** 2))
    return np.ascontiguousarray(wave[None], dtype=np.complex64)


def pinhole(description: ProbeDescription, geometry: GeometryDescription, grid: Grid) -> Wave:
    """Return the wave of an evenly illuminated disc, propagated to the sample."""
    diameter = _length(description.diameter_m)
    _require_room(diameter, grid, "--probe.diameter_m")
    _require_fine_pixel(diameter, grid)
    # The beam of twice the window is propagated, so that no light comes back around the edges.
    wide = Grid(2 * grid.N, grid.pixel_m, grid.wavelength_m)
    y, x = wide.places_m()
    hole = edge((diameter / 2 - np.hypot(y, x)) / max(grid.pixel_m), EDGE_SOFTNESS).astype(np.complex128)
    if description.defocus_m == 0:
        return _middle(hole, grid.N)
    wave = _middle(near_field(far_field(hole) * _propagator(wide, description.defocus_m)), grid.N)
    lost = 1 - float(np.sum(np.abs(wave) ** 2) / np.sum(np.abs(hole) ** 2))
    if lost > MAX_LOST_ENERGY:
        raise _too_wide(f"{lost:.0%} of the light outside of the window at {_distance(description)}", grid)
    return wave


def zone_plate(description: ProbeDescription, geometry: GeometryDescription, grid: Grid) -> Wave:
    """Return the first-order beam of a zone plate with NA = λ / (2·outermost zone), at its focus or beside it."""
    diameter, stop = _length(description.diameter_m), description.central_stop_m
    if stop >= diameter:
        raise ConfigError(
            "A central stop is smaller than its zone plate.",
            expected=f"--probe.central_stop_m below {diameter:g}",
            received=f"{stop:g}",
            fix="give diameters in metres",
        )
    aperture = grid.wavelength_m / (2 * _length(description.outermost_zone_m))
    _require_spectrum(aperture, grid, "--probe.outermost_zone_m")
    width = 2 * aperture * abs(description.defocus_m)
    _require_room(width + AIRY_DIAMETER * grid.wavelength_m / aperture, grid, "--probe.defocus_m")
    pupil = _disc(aperture, grid)
    if stop > 0:
        pupil = pupil - _disc(aperture * stop / diameter, grid)
    return near_field(pupil * _propagator(grid, description.defocus_m))


def lens(description: ProbeDescription, geometry: GeometryDescription, grid: Grid) -> Wave:
    """
    Return the beam of a round aperture with aberrations: the inverse transform of A·exp(−iχ).

    χ(k) = π λ k² (Δf + a·cos 2(φ − φ₀)) + ½ π Cs λ³ k⁴, with the defocus Δf, positive downstream.

    Notes
    -----
    `astigmatism_deg` is φ₀, from +x to +y. Rays in the plane of φ₀ cross first, at Δf = −a; their line focus is
    perpendicular to φ₀. The line focus at Δf = +a lies along φ₀.
    """
    aperture = _aperture_rad(description, geometry)
    _require_spectrum(aperture, grid, "--probe.aperture_mrad")
    width = _aberrated_width(description, aperture)
    _require_room(width + AIRY_DIAMETER * grid.wavelength_m / aperture, grid, "--probe.defocus_m")
    ky, kx = grid.frequencies()
    k2 = ky**2 + kx**2
    twice = 2 * math.radians(description.astigmatism_deg)
    # k²·cos 2(φ − φ₀) without the angle φ, which the zero frequency lacks
    oval = (kx**2 - ky**2) * math.cos(twice) + 2 * kx * ky * math.sin(twice)
    wavelength = grid.wavelength_m
    chi = math.pi * wavelength * (description.defocus_m * k2 + description.astigmatism_m * oval)
    chi = chi + 0.5 * math.pi * description.cs_m * wavelength**3 * k2**2
    return near_field(_disc(aperture, grid) * np.exp(-1j * chi))


def gaussian(description: ProbeDescription, geometry: GeometryDescription, grid: Grid) -> Wave:
    """Return a Gaussian beam; `diameter_m` is that of its waist, and the sample stands `defocus_m` behind it."""
    waist = _length(description.diameter_m) / 2
    _require_fine_pixel(2 * waist, grid)
    bend = grid.wavelength_m * description.defocus_m / (math.pi * waist**2)  # z over the Rayleigh range
    _require_room(2 * waist * math.hypot(1, bend), grid, "--probe.diameter_m and --probe.defocus_m")
    y, x = grid.places_m()
    return np.exp(-(y**2 + x**2) / (waist**2 * (1 + 1j * bend)))


BEAMS: dict[str, Callable[[ProbeDescription, GeometryDescription, Grid], Wave]] = {
    "pinhole": pinhole,
    "zone-plate": zone_plate,
    "lens": lens,
    "gaussian": gaussian,
}


def _require_fields(description: ProbeDescription) -> None:
    """Raise an error for missing fields, and for fields without effect."""
    optics, empty = description.optics, ProbeDescription()
    names = {name for needed, possible in FIELDS.values() for name in (*needed, *possible)}
    given = {name for name in names if getattr(description, name) != getattr(empty, name)}
    needed, possible = FIELDS[optics]
    missing = sorted(set(needed) - given)
    if description.array and optics != "none":
        raise _inert(["array"], optics, "give an array or optics, not both")
    if missing:
        options = " and ".join(f"--probe.{name}" for name in missing)
        raise ConfigError(
            "Optics need their dimensions.",
            expected=", ".join(f"--probe.{name}" for name in needed),
            received=f"--probe.optics {optics} without {options}",
            fix=f"add {options}",
        )
    unused = sorted(given - set(needed) - set(possible))
    if description.astigmatism_m == 0 and "astigmatism_deg" in given and not unused:
        unused = ["astigmatism_deg"]
    if unused:
        users = [name for name, (first, second) in FIELDS.items() if set(unused) <= {*first, *second}]
        hint = f"leave them out, or choose --probe.optics {' or '.join(users)}" if users else "leave them out"
        raise _inert(unused, optics, hint if optics not in users else "add --probe.astigmatism_m, or leave it out")


def _inert(names: list[str], optics: str, fix: str) -> ConfigError:
    return ConfigError(
        "Every option of the probe has an effect.",
        expected=f"options that --probe.optics {optics} uses",
        received=", ".join(f"--probe.{name}" for name in names),
        fix=fix,
    )


def _length(value: float | None) -> float:
    """Return a length that `_require_fields` has found."""
    assert value is not None
    return value


def _distance(description: ProbeDescription) -> str:
    return f"--probe.defocus_m {description.defocus_m:g}"


def _middle(wave: Wave, N: int) -> Wave:
    """Return the N×N pixels around the middle of a window of side 2N."""
    first = wave.shape[-1] // 2 - N // 2
    return wave[first : first + N, first : first + N]


def _propagator(grid: Grid, z_m: float) -> NDArray[Any]:
    """
    Return the Fresnel propagator by `z_m` in the spectrum.

    Frequencies whose rays leave the window are 0: they would come back around its edge.

    References
    ----------
    Matsushima, Shimobaba, Optics Express 17, 19662 (2009): band-limited angular spectrum.
    """
    ky, kx = grid.frequencies()
    reach = grid.wavelength_m * abs(z_m)
    inside = (np.abs(ky) * reach <= grid.N * grid.pixel_m[0] / 2) & (np.abs(kx) * reach <= grid.N * grid.pixel_m[1] / 2)
    return inside * np.exp(-1j * np.pi * grid.wavelength_m * z_m * (ky**2 + kx**2))


def _disc(aperture_rad: float, grid: Grid) -> Real:
    """Return a pupil of the numerical aperture `aperture_rad` on the grid of frequencies, with a soft edge."""
    ky, kx = grid.frequencies()
    step = 1 / grid.width_m
    return edge((aperture_rad / grid.wavelength_m - np.hypot(ky, kx)) / step, EDGE_SOFTNESS)


def _aperture_rad(description: ProbeDescription, geometry: GeometryDescription) -> float:
    own, convergence = description.aperture_mrad, geometry.convergence_mrad
    if own is not None and convergence is not None and abs(own / convergence - 1) > SAME_ANGLE:
        raise ConfigError(
            "A lens has one aperture.",
            expected="--probe.aperture_mrad or --geometry.convergence_mrad",
            received=f"--probe.aperture_mrad {own:g} and --geometry.convergence_mrad {convergence:g}",
            fix="leave out --probe.aperture_mrad: the convergence angle is used",
        )
    angle = own if own is not None else convergence
    if angle is None:
        raise ConfigError(
            "Optics need their dimensions.",
            expected="--probe.aperture_mrad or --geometry.convergence_mrad",
            received="--probe.optics lens without either",
            fix="add --probe.aperture_mrad",
        )
    return angle * 1e-3


def _aberrated_width(description: ProbeDescription, aperture_rad: float) -> float:
    """Return the diameter of the bundle of rays at the sample, metres; rays in between can go farthest."""
    angles = np.linspace(0, aperture_rad, 101)
    radial = np.abs(description.defocus_m * angles + description.cs_m * angles**3)
    return 2 * float(np.max(radial + abs(description.astigmatism_m) * angles))


def _require_spectrum(aperture_rad: float, grid: Grid, option: str) -> None:
    """Raise an error if the detector does not hold the whole aperture, or hardly resolves it."""
    highest = grid.wavelength_m / (2 * max(grid.pixel_m))
    if aperture_rad > highest:
        raise ConfigError(
            "The detector holds the whole aperture.",
            expected=f"a numerical aperture of at most {highest * 1e3:.4g} mrad, λ / (2·object pixel)",
            received=f"{aperture_rad * 1e3:.4g} mrad",
            fix=f"check {option} and the geometry; a larger --detector.size_px makes the object pixel smaller",
        )
    diameter_px = 2 * aperture_rad / grid.wavelength_m * grid.width_m
    if diameter_px < MIN_DIAMETER_PX:
        raise ConfigError(
            "The detector resolves the aperture.",
            expected=f"an aperture of at least {MIN_DIAMETER_PX:g} detector pixels",
            received=f"{diameter_px:.3g} pixels, {aperture_rad * 1e3:.4g} mrad",
            fix=f"check {option} and the geometry, or use a smaller --detector.bin",
        )


def _require_fine_pixel(diameter: float, grid: Grid) -> None:
    pixel = max(grid.pixel_m)
    if diameter < MIN_DIAMETER_PX * pixel:
        raise ConfigError(
            "The object pixel resolves the beam.",
            expected=f"a diameter of {MIN_DIAMETER_PX:g} object pixels or more, {length_text(MIN_DIAMETER_PX * pixel)}",
            received=f"--probe.diameter_m {diameter:g}",
            fix="check the unit (metres) and the geometry; a larger --detector.size_px makes the object pixel smaller",
        )


def _require_room(width: float, grid: Grid, option: str) -> None:
    if width > grid.width_m:
        raise _too_wide(f"a beam of {length_text(width)} at the sample, by {option}", grid)


def _too_wide(received: str, grid: Grid) -> ConfigError:
    return ConfigError(
        "The window holds the whole beam.",
        expected=f"a beam narrower than the window of {length_text(grid.width_m)}, N·object pixel",
        received=received,
        fix="check lengths (metres) and geometry; a smaller --detector.bin makes the window larger",
    )
