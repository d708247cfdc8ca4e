"""Known probes for simulation, centred at ``[N//2, N//2]`` (spec: simulation 2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.errors import ConfigError, nearest_name
from ptycho_backend.physics.propagation import far_field, near_field

Wave = NDArray[np.complex128]
MODE_DECAY = 0.2  # energy of a mode over that of the mode before it
EDGE_PHASE_RAD = 1.0  # curvature of the pinhole's wave: a flat one cannot tell an object from its twin
PUPIL_RADIUS = 0.18  # of the zone plate's pupil on the detector, over N
CENTRAL_STOP = 0.35  # radius of the central stop over that of the pupil


def make_probe(
    name: str, N: int, rng: np.random.Generator, diameter_fraction: float = 0.35, modes: int = 1
) -> NDArray[np.complex64]:
    """
    Make a probe of unit total energy.

    Parameters
    ----------
    name : {"disc", "zone-plate", "gaussian"}
        A pinhole with a soft edge, a defocused focusing optic with a central stop, or a Gaussian beam.
    N : int
        Side of the window, pixels.
    rng : numpy Generator
        Draws the higher modes.
    diameter_fraction : float
        Diameter over N: of the geometric shadow, of the pinhole, of 1/e² of the Gaussian's intensity.
    modes : int
        Orthogonal incoherent modes, each with a fifth of the energy of the one before.

    Returns
    -------
    complex64, shape (mode, y, x)

    Notes
    -----
    Spec: simulation 2.1 to 2.3.
    """
    if name not in PROBES:
        raise ConfigError(
            "This probe is not known.",
            expected=f"one of {', '.join(PROBES)}",
            received=f"probe_name={name!r}",
            fix=f"did you mean {nearest_name(name, PROBES) or 'disc'!r}?",
        )
    main = PROBES[name](N, diameter_fraction * N)
    stack = with_modes(main, modes, diameter_fraction * N / 2, rng)
    return np.ascontiguousarray(stack, dtype=np.complex64)


def disc(N: int, diameter_px: float) -> Wave:
    """Return a slightly curved wave behind a pinhole, whose edge is soft enough for sub-pixel shifts."""
    r = radius(N)
    aperture = edge(diameter_px / 2 - r, 1.5)
    return np.asarray(aperture * np.exp(1j * EDGE_PHASE_RAD * (2 * r / diameter_px) ** 2))


def gaussian(N: int, diameter_px: float) -> Wave:
    """Return a Gaussian beam at its waist; `diameter_px` spans 1/e² of the intensity."""
    return np.exp(-((radius(N) / (diameter_px / 2)) ** 2)).astype(np.complex128)


def zone_plate(N: int, diameter_px: float) -> Wave:
    """Return the beam of a zone plate with a central stop, defocused until its shadow is this wide."""
    q = radius(N)
    outer = PUPIL_RADIUS * N
    pupil = edge(outer - q, 1.0) * edge(q - CENTRAL_STOP * outer, 1.0)
    return focused(pupil, diameter_px / (2 * outer))


def focused(pupil: NDArray[Any], magnification: float) -> Wave:
    """Return the defocused beam of a pupil; the sign of the magnification says on which side of the focus."""
    N = pupil.shape[-1]
    # A phase of π·a·q²/N sends the ray through detector pixel q to sample pixel a·q.
    return np.asarray(near_field(pupil * np.exp(1j * np.pi * magnification * radius(N) ** 2 / N)))


def edge(inside_px: NDArray[Any], softness_px: float) -> NDArray[Any]:
    """Return an aperture's transmission, 0 to 1, at a signed distance inside of its edge."""
    from scipy.special import erf

    return np.asarray(0.5 * (1.0 + erf(inside_px / softness_px)))


PROBES: dict[str, Callable[[int, float], Wave]] = {
    "disc": disc,
    "zone-plate": zone_plate,
    "gaussian": gaussian,
}


def with_modes(main: Wave, modes: int, radius_px: float, rng: np.random.Generator) -> Wave:
    """
    Add higher modes: the main mode times random polynomials, orthogonalised, with decaying energy.

    Returns
    -------
    complex128, shape (mode, y, x)
        Σ_modes Σ |P|² = 1.
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
    orthonormal[0] *= np.exp(1j * np.angle(np.vdot(orthonormal[0], main)))  # QR may flip its sign
    energy = MODE_DECAY ** np.arange(modes)
    return np.asarray(orthonormal * np.sqrt(energy / energy.sum())[:, None, None])


def shifted(probe: NDArray[Any], shift_px: NDArray[np.float64]) -> NDArray[np.complex128]:
    """
    Move a probe by fractions of a pixel, exactly where it is band-limited and dark at the window's edge.

    Parameters
    ----------
    probe : complex, shape (mode, y, x)
    shift_px : float64, shape (position, 2), (y, x)

    Returns
    -------
    complex128, shape (position, mode, y, x)
    """
    N = probe.shape[-1]
    q = (np.arange(N) - N // 2) / N
    ramp_y, ramp_x = (np.exp(-2j * np.pi * shift_px[:, axis, None] * q) for axis in (0, 1))
    spectrum = far_field(np.asarray(probe, dtype=np.complex128))
    return np.asarray(near_field(spectrum * ramp_y[:, None, :, None] * ramp_x[:, None, None, :]))


def radius(N: int) -> NDArray[np.float64]:
    """Return the distance of every pixel (y, x) from pixel ``[N//2, N//2]``."""
    y, x = np.indices((N, N)) - N // 2
    return np.asarray(np.hypot(y, x))
