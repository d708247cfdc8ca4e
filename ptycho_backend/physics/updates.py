"""
Updates of object, probe, positions and scales: minus the derivative of the squared amplitude error (spec: physics 9).

Exit waves are ψ_jm = P_jm·O_j; P_jm is the probe, shifted to position j. Detector waves are Ψ = Fψ.
Modelled amplitudes are a_j = sqrt(c_j²·Σ_m|Ψ_jm|² + b + ε), c_j the amplitude scale of a pattern, b the background.
The squared error of a scan is E = Σ_j Σ_r g·(a_j − x_j)², g = 1 on good pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.physics.propagation import far_field, near_field
from ptycho_backend.physics.translation import fourier_shift_ramps

BACKGROUND = 1e-8  # ε: (normalised amplitude 1e-4)², keeps Ψ/a finite on dark pixels
DARK = 1e-3  # added to a² where a background is fitted: bounds the weight of dark pixels
Real = NDArray[np.float64]
Complex = NDArray[np.complex128]


@dataclass(frozen=True, eq=False)
class Updates:
    """
    Sums over the patterns of a scan.

    Parameters
    ----------
    obj : complex128, shape (y, x)
        −∂E/∂Ō: Σ_j scatter(Σ_m P̄_jm·χ_jm), χ the exit-wave update.
    probe : complex128, shape (mode, y, x)
        −∂E/∂P̄: Σ_j S_j⁻¹(Ō_j·χ_jm), S_j the shift to position j.
    positions_px : float64, shape (position, 2), (y, x)
        −∂E/∂(sub-pixel shift).
    positions_weight : float64, shape (position, 2), (y, x)
        2·Σ|P_j|²·|∂O_j|², ∂ the central difference: curvature of E for a weakly scattering object.
    scales : float64, shape (position,)
        −∂E/∂(log c).
    scales_weight : float64, shape (position,)
        Gauss-Newton curvature of E by log c.
    squared_errors : float64, shape (position,)
        Share of each pattern in E.
    background, background_weight : float
        Σ g·(x² − a²)/ã² and Σ g/ã², ã² = a² + 1e-3: their ratio, the mean of x² − a², is a step of b.
    squared_error, norm : float
        E, and Σx² over good pixels.
    """

    obj: Complex
    probe: Complex
    positions_px: Real
    positions_weight: Real
    scales: Real
    scales_weight: Real
    squared_errors: Real
    background: float
    background_weight: float
    squared_error: float
    norm: float


@dataclass(frozen=True, eq=False)
class Patterns:
    """
    Measured amplitudes with the windows that they belong to.

    Parameters
    ----------
    amplitudes : float64, shape (position, y, x)
        Normalised, zero frequency at ``[N // 2, N // 2]``.
    mask : float64, shape (y, x)
        1 for good pixels.
    corners_px : int, shape (position, 2), (y, x)
        Canvas coordinates of pixel (0, 0) of each window.
    shifts_px : float64, shape (position, 2), (y, x)
        Sub-pixel rest of each position, by which the probe is shifted.
    scales : float64, shape (position,), optional
        Amplitude scale c of each pattern; None: 1.
    background : float
        Intensity that every pixel of every pattern contains.
    """

    amplitudes: Real
    mask: Real
    corners_px: NDArray[np.intp]
    shifts_px: Real
    scales: Real | None = None
    background: float = 0.0

    @property
    def scale_factors(self) -> Real:
        """Amplitude scales, shape (position, 1, 1, 1)."""
        scales = np.ones(len(self.amplitudes)) if self.scales is None else self.scales
        return scales[:, None, None, None]

    def probes(self, probe: NDArray[Any], derivative: int | None = None) -> Complex:
        """Return scaled and shifted probes (position, mode, y, x), or their derivative by the shift."""
        return self.scale_factors * shifted_probes(probe, self.shifts_px, derivative)


def extract_patches(canvas: NDArray[Any], corners_px: NDArray[np.intp], N: int) -> NDArray[Any]:
    """Return the windows (position, y, x) of a canvas."""
    return np.stack([canvas[y : y + N, x : x + N] for y, x in corners_px])


def scatter_add(patches: NDArray[Any], corners_px: NDArray[np.intp], shape: tuple[int, int]) -> NDArray[Any]:
    """Return a canvas with all patches (position, y, x) added: the adjoint of :func:`extract_patches`."""
    canvas, N = np.zeros(shape, patches.dtype), patches.shape[-1]
    for (y, x), patch in zip(corners_px, patches, strict=True):
        canvas[y : y + N, x : x + N] += patch
    return canvas


def shift_factors(shifts_px: Real, N: int, derivative: int | None = None) -> Complex:
    """
    Return the Fourier factors (position, y, x) of shifts (position, 2), or their derivative along axis 0 or 1.

    The Nyquist component of an even side is the mean of both signs: a real cosine.
    """
    ramps, factors = fourier_shift_ramps(shifts_px, N), []
    for axis in range(2):
        shift, factor = shifts_px[:, axis, None], ramps[:, axis]
        slope = -2j * np.pi * np.fft.fftfreq(N) * factor
        if N % 2 == 0:
            factor[:, N // 2] = np.cos(np.pi * shift[:, 0])
            slope[:, N // 2] = -np.pi * np.sin(np.pi * shift[:, 0])
        factors.append(slope if derivative == axis else factor)
    return factors[0][:, :, None] * factors[1][:, None, :]


def shifted_probes(probe: NDArray[Any], shifts_px: Real, derivative: int | None = None) -> Complex:
    """Return the probe (mode, y, x) at sub-pixel positions (position, mode, y, x), or its derivative."""
    factors = shift_factors(shifts_px, probe.shape[-1], derivative)
    return np.fft.ifft2(np.fft.fft2(probe) * factors[:, None])


def illumination(probe: NDArray[Any], patterns: Patterns, shape: tuple[int, int]) -> Real:
    """Return Σ_j Σ_m |P_jm|² on the canvas, shape (y, x)."""
    intensity = (np.abs(patterns.probes(probe)) ** 2).sum(axis=1)
    return scatter_add(intensity, patterns.corners_px, shape)


def updates(obj: NDArray[Any], probe: NDArray[Any], patterns: Patterns) -> Updates:
    """
    Compute all updates of a scan in float64.

    Parameters
    ----------
    obj : complex, shape (y, x)
        Object on the canvas.
    probe : complex, shape (mode, y, x)
        Centred probe.
    patterns : Patterns

    Returns
    -------
    Updates

    Notes
    -----
    Spec: physics 9.1. Every field is minus a derivative of E; for complex fields, that by the conjugate.
    """
    x, good, N = patterns.amplitudes, patterns.mask, patterns.amplitudes.shape[-1]
    probes = patterns.probes(probe)
    patches = extract_patches(obj, patterns.corners_px, N)[:, None]
    detector, amplitude = modelled(probes * patches, patterns.background)
    residual = (x - amplitude) * good
    exit_wave_update = near_field(detector * (residual / amplitude)[:, None])
    spectrum = np.fft.fft2(np.conj(patches) * exit_wave_update) * patterns.scale_factors
    spectrum *= np.conj(shift_factors(patterns.shifts_px, N))[:, None]
    slopes = [patterns.probes(probe, axis) * patches for axis in range(2)]
    intensity = (np.abs(probes) ** 2).sum(axis=1)
    scattering = [np.abs(np.gradient(patches[:, 0], axis=1 + axis)) ** 2 for axis in range(2)]
    by_scale, damped = (np.abs(detector) ** 2).sum(axis=1) / amplitude * good, amplitude**2 + DARK
    return Updates(
        obj=scatter_add((np.conj(probes) * exit_wave_update).sum(axis=1), patterns.corners_px, obj.shape),
        probe=np.fft.ifft2(spectrum.sum(axis=0)),
        positions_px=np.stack([2 * np.real(np.conj(exit_wave_update) * s).sum(axis=(1, 2, 3)) for s in slopes], axis=1),
        positions_weight=np.stack([2 * (intensity * each).sum(axis=(1, 2)) for each in scattering], axis=1),
        scales=2 * (residual * by_scale).sum(axis=(1, 2)),
        scales_weight=2 * (by_scale**2).sum(axis=(1, 2)),
        squared_errors=(residual**2).sum(axis=(1, 2)),
        background=float((residual * (x + amplitude) / damped).sum()),
        background_weight=float((good / damped).sum()),
        squared_error=float((residual**2).sum()),
        norm=float((x**2 * good).sum()),
    )


def modelled(exit_waves: Complex, background: float = 0.0) -> tuple[Complex, Real]:
    """Return detector waves (position, mode, y, x) and modelled amplitudes (position, y, x)."""
    detector = far_field(exit_waves)
    return detector, np.sqrt((np.abs(detector) ** 2).sum(axis=1) + background + BACKGROUND)


@dataclass(frozen=True, eq=False)
class PhaseSlopes:
    """
    Smooth errors of single patterns: least squares of the amplitude error over five tangents.

    Parameters
    ----------
    information : float64, shape (position, 5, 5)
        JᵀJ by phase slope (y, x), rad per pixel; slope of the log amplitude (y, x), per pixel; log amplitude.
    gradient : float64, shape (position, 5)
        Jᵀ(x − a).
    centres_px : float64, shape (position, 2), (y, x)
        Canvas coordinates of the centre of the exit wave's intensity.
    """

    information: Real
    gradient: Real
    centres_px: Real


def phase_slopes(obj: NDArray[Any], probe: NDArray[Any], patterns: Patterns) -> PhaseSlopes:
    """
    Linearise the amplitude error of every pattern in a phase ramp, a ramp of the log amplitude, and a factor.

    An object that is wrong by exp((α + i·φ)·(r − r₀) + β) changes a by Re(Ψ̄/a·F((α + i·φ)·(r − r₀)·ψ)) + β·|Ψ|²/a.

    Notes
    -----
    Spec: physics 9.4.
    """
    x, N = patterns.amplitudes, patterns.amplitudes.shape[-1]
    exit_waves = patterns.probes(probe) * extract_patches(obj, patterns.corners_px, N)[:, None]
    detector, amplitude = modelled(exit_waves, patterns.background)
    intensity = (np.abs(exit_waves) ** 2).sum(axis=1)
    axis = np.arange(N, dtype=np.float64)
    total = np.maximum(intensity.sum(axis=(1, 2)), np.finfo(float).tiny)  # a dark exit wave has no centre
    centre = np.stack([intensity.sum(axis=2) @ axis, intensity.sum(axis=1) @ axis], axis=1) / total[:, None]
    along_y = (axis - centre[:, :1])[:, None, :, None]
    along_x = (axis - centre[:, 1:])[:, None, None, :]
    tangents = [
        tangent(detector, amplitude, far_field(factor * along * exit_waves))
        for factor in (1j, 1)
        for along in (along_y, along_x)
    ]
    jacobian = np.stack([*tangents, tangent(detector, amplitude, detector)], axis=1) * patterns.mask
    return PhaseSlopes(
        information=np.einsum("jayx,jbyx->jab", jacobian, jacobian),
        gradient=np.einsum("jayx,jyx->ja", jacobian, (x - amplitude) * patterns.mask),
        centres_px=patterns.corners_px + centre,
    )


def tangent(detector: Complex, amplitude: Real, change: Complex) -> Real:
    """Return the derivative of the modelled amplitudes, Re(Σ_m Ψ̄_m·δΨ_m)/a, shape (position, y, x)."""
    return np.asarray(np.real(np.conj(detector) * change).sum(axis=1) / amplitude)


@dataclass(frozen=True, eq=False)
class NormalEquations:
    """
    Least squares of the amplitude error over common directions of object and probe.

    Parameters
    ----------
    information : float64, shape (direction, direction)
        JᵀJ, summed over patterns.
    gradient : float64, shape (direction,)
        Jᵀ(x − a).
    """

    information: Real
    gradient: Real


def normal_equations(
    obj: NDArray[Any],
    probe: NDArray[Any],
    objects: list[NDArray[Any]],
    probes: list[NDArray[Any]],
    patterns: Patterns,
) -> NormalEquations:
    """
    Linearise the amplitude error in directions (δO_k, δP_k): δψ = δP·O + P·δO.

    Notes
    -----
    Spec: physics 9.7.
    """
    N = patterns.amplitudes.shape[-1]

    def patches(canvas: NDArray[Any]) -> NDArray[Any]:
        return extract_patches(canvas, patterns.corners_px, N)[:, None]

    detector, amplitude = modelled(patterns.probes(probe) * patches(obj), patterns.background)
    jacobian = np.stack(
        [
            tangent(
                detector,
                amplitude,
                far_field(patterns.probes(delta_probe) * patches(obj) + patterns.probes(probe) * patches(delta_object)),
            )
            for delta_object, delta_probe in zip(objects, probes, strict=True)
        ]
    )
    jacobian = jacobian * patterns.mask
    residual = (patterns.amplitudes - amplitude) * patterns.mask
    return NormalEquations(
        information=np.einsum("ajyx,bjyx->ab", jacobian, jacobian, optimize=True),
        gradient=np.einsum("ajyx,jyx->a", jacobian, residual, optimize=True),
    )
