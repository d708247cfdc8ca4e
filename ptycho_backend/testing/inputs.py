"""Random inputs for operators: complex noise, speckled probes, masks and offsets, drawn by NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.engines.operators import as_float32
from ptycho_backend.physics.forward import intensity
from ptycho_backend.physics.translation import canvas_size

DARK = 0.1  # share of a pattern's root mean square amplitude
NEAREST_KINK = 0.05  # pixels; bilinear weights have no derivative at whole offsets


def complex_noise(rng: np.random.Generator, *shape: int) -> NDArray[np.complex128]:
    """Draw complex normal numbers."""
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def speckled_probe(rng: np.random.Generator, N: int, modes: int) -> NDArray[np.complex128]:
    """Draw a probe (mode, N, N): speckle under a Gaussian envelope, with energy (N/2)²."""
    y, x = np.indices((N, N)) - N // 2
    envelope = np.exp(-(y**2 + x**2) / (2 * (N / 5) ** 2))
    probe = envelope * (1.0 + 0.3 * complex_noise(rng, modes, N, N))
    return np.asarray(probe * (N / 2) / np.sqrt((np.abs(probe) ** 2).sum()))


def detector_mask(rng: np.random.Generator, N: int, bad: float = 0.2) -> NDArray[np.bool_]:
    """Draw a mask (N, N), true on good pixels, with a share of bad pixels and at least one good pixel."""
    mask = rng.random((N, N)) >= bad
    mask[rng.integers(N), rng.integers(N)] = True
    return mask


def fractional_offsets(rng: np.random.Generator, *shape: int, largest_px: float = 3.0) -> NDArray[np.float64]:
    """Draw offsets (*shape, 2), pixels, away from whole pixels, where bilinear interpolation has no derivative."""
    whole = rng.integers(-int(largest_px), int(largest_px), (*shape, 2))
    return whole + rng.uniform(NEAREST_KINK, 1 - NEAREST_KINK, (*shape, 2))


def bright_weight(patches: NDArray[Any], probe: NDArray[Any]) -> NDArray[np.float64]:
    """
    Return a weight for detector pixels: 1 where the predicted pattern is bright, falling to 0 where it is dark.

    The phase of a dark pixel is a rounding error, and so is its derivative. The product of measured amplitude and
    weight keeps both small.
    """
    amplitude = np.sqrt(intensity(patches, probe))
    return np.asarray(np.minimum(1.0, amplitude / (DARK * np.sqrt(np.square(amplitude).mean()))))


def operator_arguments(rng: np.random.Generator) -> dict[str, Any]:
    """
    Draw one value for every argument of every operator, float32 and complex64, with matching sizes.

    Groups have four members, probes one to three modes, patterns bad and dark pixels; sides are odd or even.
    """
    N, groups, modes = int(rng.integers(7, 17)), int(rng.integers(1, 3)), int(rng.integers(1, 4))
    patches, probe = complex_noise(rng, groups, 4, N, N), speckled_probe(rng, N, modes)
    offsets = fractional_offsets(rng, groups, 4)
    S = canvas_size(N, offsets)
    stack = (groups, 4, N, N)
    expected = rng.uniform(0.05, 8.0, stack)
    arguments: dict[str, Any] = {
        "exit_wave": complex_noise(rng, 2, int(rng.integers(1, 18)), int(rng.integers(1, 18))),
        "detector_wave": complex_noise(rng, 2, int(rng.integers(1, 18)), int(rng.integers(1, 18))),
        "patch": complex_noise(rng, *stack),
        "patches": patches,
        "labels": complex_noise(rng, *stack),
        "canvas": complex_noise(rng, groups, 4, S, S),
        "offset_px": offsets,
        "offsets_px": offsets,
        "probe": probe,
        "weight": rng.uniform(0.05, 1.0, (N, N)),
        "mask": detector_mask(rng, N),
        "x": rng.uniform(0.0, 3.0, stack) * bright_weight(patches, probe) * bright_weight(np.ones((1, 1, N, N)), probe),
        "expected": expected,
        "counts": rng.poisson(expected),
    }
    arrays = {name: as_float32(value) for name, value in arguments.items()}
    return {**arrays, "S": S, "N": N, "r": float(rng.uniform(0.05, 2.0)), "sigma_px": float(rng.uniform(0.5, 1.2))}
