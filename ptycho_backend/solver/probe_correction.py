"""
Probe correction: a phase of the exit waves' spectra that no pattern measures (spec: physics 9.7).

A factor exp(i·p(q)) on the spectrum of an exit wave leaves its pattern as it is. Probe and object, both filtered by
such a factor, therefore explain the data nearly as well as before. A probe with an error of this kind, defocus first,
converges slowly in alternating updates. Here p is a short cosine series, and one least squares finds its coefficients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from ptycho_backend.engines.solver_contract import SolverKernels

AXES = (-2, -1)
PATTERNS = 128  # patterns of the least squares, spread over the scan
RIDGE = 1e-4  # of the scaled diagonal
# Shifts (y, x) of the cosine series: all pairs ±s within two pixels.
SHIFTS_PX = ((0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0))


@dataclass(frozen=True, eq=False)
class ProbeCorrection:
    """
    Phase of the spectra of probe and object, p(q) = Σ_s c_s·(1 − cos 2πq·s).

    Parameters
    ----------
    coefficients_rad : float64, shape (shift,)
    phase_rad : float
        Root mean square of p over the probe's spectrum.
    """

    coefficients_rad: NDArray[np.float64]
    phase_rad: float

    def apply(self, array: NDArray[Any]) -> NDArray[np.complex64]:
        """Return a probe (mode, y, x) or an object (y, x), filtered by exp(i·p)."""
        factor = np.exp(1j * phase(self.coefficients_rad, array.shape[-2:])).astype(np.complex64)
        spectrum = scipy.fft.fft2(array, axes=AXES) * factor
        return np.asarray(scipy.fft.ifft2(spectrum, axes=AXES, overwrite_x=True))


def probe_correction(kernels: SolverKernels, obj: Any, probe: Any, n_patterns: int) -> ProbeCorrection:
    """
    Fit the phase to patterns spread over the scan.

    Parameters
    ----------
    kernels : SolverKernels
        Kernels with a loaded problem.
    obj, probe : array
        On the kernels' device.
    n_patterns : int
        Number of patterns of the problem.
    """
    canvas, modes = kernels.to_numpy(obj), kernels.to_numpy(probe)
    objects, probes = ([kernels.from_numpy(each) for each in directions(array)] for array in (canvas, modes))
    rows = np.unique(np.linspace(0, n_patterns - 1, min(n_patterns, PATTERNS)).round().astype(np.intp))
    equations = kernels.normal_equations(obj, probe, objects, probes, rows)
    scale = np.sqrt(np.maximum(np.diagonal(equations.information), np.finfo(float).tiny))
    matrix = equations.information / scale[:, None] / scale + RIDGE * np.eye(len(scale))
    coefficients = np.linalg.solve(matrix, equations.gradient / scale) / scale
    intensity = (np.abs(scipy.fft.fft2(modes, axes=AXES)) ** 2).sum(axis=0)
    squared = phase(coefficients, modes.shape[-2:]) ** 2
    return ProbeCorrection(coefficients, float(np.sqrt((intensity * squared).sum() / max(intensity.sum(), 1e-30))))


def directions(array: NDArray[Any]) -> list[NDArray[np.complex64]]:
    """Return the derivatives of a filtered array by the coefficients: i·(array − mean of the array at ±s)."""
    moved = (
        np.roll(array, shift, axis=AXES) + np.roll(array, tuple(-step for step in shift), axis=AXES)
        for shift in SHIFTS_PX
    )
    return [(1j * (array - 0.5 * pair)).astype(np.complex64) for pair in moved]


def phase(coefficients_rad: NDArray[np.float64], shape: Sequence[int]) -> NDArray[np.float64]:
    """Return p on the frequencies of an array, shape (y, x), in the order of the FFT."""
    y, x = np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])
    terms = (
        c * (1 - np.cos(2 * np.pi * (y * down + x * right)))
        for c, (down, right) in zip(coefficients_rad, SHIFTS_PX, strict=True)
    )
    return np.asarray(sum(terms))
