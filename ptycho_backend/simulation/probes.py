"""Known probes for simulation, centred at ``[N//2, N//2]`` (spec: simulation 2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.errors import ConfigError
from ptycho_backend.physics.propagation import far_field, near_field
from ptycho_backend.physics.translation import fourier_shift_ramps

Wave = NDArray[np.complex128]
MODE_DECAY = 0.2  # energy of a mode over that of the previous mode
EDGE_PHASE_RAD = 1.0  # curvature of the pinhole's wave; a flat wave leaves the twin-image ambiguity
PUPIL_RADIUS = 0.18  # of the zone plate's pupil on the detector, over N
CENTRAL_STOP = 0.35  # radius of the central stop over that of the pupil


def make_probe(
    name: str, N: int, rng: np.random.Generator, diameter_fraction: float = 0.35, modes: int = 1
) -> NDArray[np.complex64]:
    """
    Draw a probe of unit total energy.

    Parameters
    ----------
    name : {"disc", "zone-plate", "gaussian"}
        Pinhole with a soft edge, defocused zone plate with a central stop, or Gaussian beam.
    N : int
        Side of the window, pixels.
    rng : numpy Generator
        Source of the higher modes.
    diameter_fraction : float
        Diameter over N, of the pinhole, of the geometric shadow, or at 1/e² of the Gaussian's intensity.
    modes : int
        Orthogonal incoherent modes, each with a fifth of the energy of the previous one.

    Returns
    -------
    complex64, shape (mode, y, x)

    Notes
    -----
    Spec: simulation 2.1 to 2.3.
    """
    if name not in PROBES:
        raise ConfigError.unknown("probe", name, PROBES, f"probe_name={name!r}")
    main = PROBES[name](N, diameter_fraction * N)
    stack = with_modes(main, modes, diameter_fraction * N / 2, rng)
    return np.ascontiguousarray(stack, dtype=np.complex64)


def pinhole(N: int, diameter_px: float) -> Wave:
    """Return a slightly curved wave behind a pinhole; its soft edge allows sub-pixel shifts."""
    r = radius(N)
    aperture = edge(diameter_px / 2 - r, 1.5)
    return np.asarray(aperture * np.exp(1j * EDGE_PHASE_RAD * (2 * r / diameter_px) ** 2))


def gaussian(N: int, diameter_px: float) -> Wave:
    """Return a Gaussian beam at its waist; `diameter_px` spans 1/e² of the intensity."""
    return np.exp(-((radius(N) / (diameter_px / 2)) ** 2)).astype(np.complex128)


def zone_plate(N: int, diameter_px: float) -> Wave:
    """Return the defocused beam of a zone plate with a central stop; `diameter_px` is that of its shadow."""
    q = radius(N)
    outer = PUPIL_RADIUS * N
    pupil = edge(outer - q, 1.0) * edge(q - CENTRAL_STOP * outer, 1.0)
    return focused(pupil, diameter_px / (2 * outer))


def focused(pupil: NDArray[Any], magnification: float) -> Wave:
    """Return the defocused beam of a pupil; the sign of the magnification gives the side of the focus."""
    N = pupil.shape[-1]
    # A phase of π·a·q²/N sends the ray through detector pixel q to sample pixel a·q.
    return np.asarray(near_field(pupil * np.exp(1j * np.pi * magnification * radius(N) ** 2 / N)))


def edge(inside_px: NDArray[Any], softness_px: float) -> NDArray[Any]:
    """Return the transmission of an aperture, 0 to 1, at a signed distance inside of its edge."""
    from scipy.special import erf

    return np.asarray(0.5 * (1.0 + erf(inside_px / softness_px)))


PROBES: dict[str, Callable[[int, float], Wave]] = {
    "disc": pinhole,
    "zone-plate": zone_plate,
    "gaussian": gaussian,
}


def with_modes(main: Wave, modes: int, radius_px: float, rng: np.random.Generator) -> Wave:
    """
    Add higher modes: the main mode times random polynomials, QR-orthogonalised, with decaying energy.

    Returns
    -------
    complex128, shape (mode, y, x)
        Modes with Σ_modes Σ |P|² = 1.
    """
    N = main.shape[-1]
    y, x = (np.indices((N, N)) - N // 2) / radius_px
    basis = [y, x, y * x, y**2 - x**2, y**2 + x**2, y**3, x**3]
    stack = [main.ravel()]
    for order in range(1, modes):
        terms = basis[: max(2, min(len(basis), 2 * order))]
        weights = rng.normal(size=(len(terms), 2)) @ np.array([1.0, 1.0j])
        stack.append((main * sum(w * t for w, t in zip(weights, terms, strict=True))).ravel())
    orthonormal = np.linalg.qr(np.stack(stack, axis=1))[0].T.reshape(modes, N, N)
    orthonormal[0] *= np.exp(1j * np.angle(np.vdot(orthonormal[0], main)))  # QR may flip the sign
    energy = MODE_DECAY ** np.arange(modes)
    return np.asarray(orthonormal * np.sqrt(energy / energy.sum())[:, None, None])


def shifted_probes(probe: NDArray[Any], shift_px: NDArray[np.float64]) -> NDArray[np.complex128]:
    """
    Shift a probe by fractions of a pixel in Fourier space.

    The shift is exact for a band-limited probe that is dark at the edge of the window.

    Parameters
    ----------
    probe : complex, shape (mode, y, x)
    shift_px : float64, shape (position, 2), (y, x)

    Returns
    -------
    complex128, shape (position, mode, y, x)
    """
    ramps = np.fft.fftshift(fourier_shift_ramps(shift_px, probe.shape[-1]), axes=-1)
    spectrum = far_field(np.asarray(probe, dtype=np.complex128))
    return np.asarray(near_field(spectrum * ramps[:, 0, None, :, None] * ramps[:, 1, None, None, :]))


def radius(N: int) -> NDArray[np.float64]:
    """Return the distance of every pixel (y, x) from pixel ``[N//2, N//2]``."""
    y, x = np.indices((N, N)) - N // 2
    return np.asarray(np.hypot(y, x))
