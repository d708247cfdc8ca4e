"""Random probes of a training set: the optics of beamlines, with random parameters (spec: simulation 5.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.physics.propagation import far_field, near_field
from ptycho_backend.pretraining.objects import random_field
from ptycho_backend.simulation.probes import Wave, edge, focused, radius, with_modes

Rng = np.random.Generator


def draw_probe(kind: str, N: int, diameter_px: float, modes: int, rng: Rng) -> Wave:
    """
    Draw a probe of one kind; equal generators give the same optic for every diameter.

    Parameters
    ----------
    kind : {"disc", "gaussian", "zone-plate", "aberrated", "speckle"}
    N : int
        Side of the window, pixels.
    diameter_px : float
        Diameter of the geometric shadow, or at 1/e² of the intensity.
    modes : int
        Number of incoherent modes.
    rng : numpy Generator

    Returns
    -------
    complex128, shape (mode, y, x)
        Modes with Σ_modes Σ |P|² = 1.

    Notes
    -----
    Spec: simulation 5.3.
    """
    return with_modes(KINDS[kind](N, diameter_px, rng), modes, diameter_px / 2, rng)


def pinhole(N: int, diameter_px: float, rng: Rng) -> Wave:
    """Draw the wave behind a pinhole with a soft edge, converging or diverging."""
    r = radius(N) / (diameter_px / 2)
    softness = rng.uniform(1.0, 2.5) / (diameter_px / 2)
    return np.asarray(edge(1.0 - r, softness) * np.exp(1j * _random_sign_uniform(0.3, 4.0, rng) * r**2))


def gaussian(N: int, diameter_px: float, rng: Rng) -> Wave:
    """Draw a slightly elliptical Gaussian beam, before or behind its waist."""
    y, x = _axes(N) / (diameter_px / 2)
    squeeze, angle = rng.uniform(0.8, 1.0), rng.uniform(0, np.pi)
    along, across = y * np.cos(angle) + x * np.sin(angle), x * np.cos(angle) - y * np.sin(angle)
    r = np.sqrt(along**2 + (across / squeeze) ** 2)
    return np.asarray(np.exp(-(r**2) + 1j * _random_sign_uniform(0.0, 3.0, rng) * r**2))


def zone_plate(N: int, diameter_px: float, rng: Rng) -> Wave:
    """Draw the beam of a zone plate with a central stop, before or behind its focus."""
    pupil_px, stop = rng.uniform(0.1, 0.25) * N, rng.uniform(0.2, 0.6)
    q = radius(N)
    pupil = edge(pupil_px - q, 1.0) * edge(q - stop * pupil_px, 1.0)
    return focused(pupil, diameter_px / (2 * pupil_px) * _sign(rng))


def aberrated(N: int, diameter_px: float, rng: Rng) -> Wave:
    """Draw the beam of a lens with astigmatism, coma and spherical aberration."""
    pupil_px = rng.uniform(0.1, 0.25) * N
    y, x = _axes(N) / pupil_px
    r = np.hypot(y, x)
    polynomials = (y**2 - x**2, 2 * x * y, (3 * r**2 - 2) * y, (3 * r**2 - 2) * x, 6 * r**4 - 6 * r**2)
    phase = sum(a * p for a, p in zip(rng.normal(0.0, 0.7, len(polynomials)), polynomials, strict=True))
    pupil = edge(1.0 - r, 1.0 / pupil_px) * np.exp(1j * phase)
    return focused(pupil, 0.8 * diameter_px / (2 * pupil_px) * _sign(rng))


def speckle(N: int, diameter_px: float, rng: Rng) -> Wave:
    """Draw a beam behind a diffuser: a disc of speckles on an unscattered wave of random strength."""
    grain_px = max(2.0, diameter_px / rng.uniform(3.0, 7.0))
    # Low-pass filter at the speckle size.
    low_pass = np.exp(-((np.hypot(*(_axes(N) / N)) * grain_px) ** 2) * 2.0)
    noise = random_field((N, N), 0.0, rng) + 1j * random_field((N, N), 0.0, rng)
    field = near_field(far_field(noise) * low_pass)
    field /= np.sqrt((np.abs(field) ** 2).mean())
    envelope = edge(1.0 - radius(N) / (diameter_px / 2), 4.0 / diameter_px)
    return np.asarray(envelope * (rng.uniform(0.0, 1.5) + field))


KINDS: dict[str, Callable[[int, float, Rng], Wave]] = {
    "disc": pinhole,
    "gaussian": gaussian,
    "zone-plate": zone_plate,
    "aberrated": aberrated,
    "speckle": speckle,
}


def defocused(probe: NDArray[Any], edge_rad: float) -> Wave:
    """
    Propagate a probe along the beam.

    Parameters
    ----------
    probe : complex, shape (mode, y, x)
    edge_rad : float
        Phase added at twice the rms radius of the probe's spectrum; either sign.
    """
    spectrum = far_field(np.asarray(probe, dtype=np.complex128))
    q = radius(probe.shape[-1])
    power = (np.abs(spectrum) ** 2).sum(axis=0)
    edge_squared = 4.0 * (q**2 * power).sum() / power.sum()
    return np.asarray(near_field(spectrum * np.exp(1j * edge_rad * q**2 / edge_squared)))


def _random_sign_uniform(low: float, high: float, rng: Rng) -> float:
    return float(rng.uniform(low, high) * _sign(rng))


def _sign(rng: Rng) -> float:
    return 1.0 if rng.random() < 0.5 else -1.0


def _axes(N: int) -> NDArray[Any]:
    return np.indices((N, N)) - float(N // 2)
