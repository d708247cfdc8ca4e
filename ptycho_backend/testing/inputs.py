"""Random inputs of the physics, drawn by NumPy: what checks and Hypothesis strategies have in common."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.engines.operators import as_float32
from ptycho_backend.physics.forward import intensity
from ptycho_backend.physics.translation import canvas_size

DARK = 0.1  # of the root mean square amplitude of a pattern
NEAREST_KINK = 0.05  # of a pixel: bilinear weights have kinks at whole offsets, where no slope is defined


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
    """Draw a mask (N, N) with some bad pixels; one pixel at least is good."""
    mask = rng.random((N, N)) >= bad
    mask[rng.integers(N), rng.integers(N)] = True
    return mask


def fractional_offsets(rng: np.random.Generator, *shape: int, largest_px: float = 3.0) -> NDArray[np.float64]:
    """Draw offsets (*shape, 2) that stay away from whole pixels, where bilinear interpolation has no slope."""
    whole = rng.integers(-int(largest_px), int(largest_px), (*shape, 2))
    return whole + rng.uniform(NEAREST_KINK, 1 - NEAREST_KINK, (*shape, 2))


def lit(patches: NDArray[Any], probe: NDArray[Any]) -> NDArray[np.float64]:
    """
    Return 1 where a pattern of some patches is bright, falling to 0 where it is dark.

    The phase of a dark pixel, and its slope, are rounding errors; a measured amplitude that is dark too keeps them
    small.
    """
    amplitude = np.sqrt(intensity(patches, probe))
    return np.asarray(np.minimum(1.0, amplitude / (DARK * np.sqrt(np.square(amplitude).mean()))))


def operator_arguments(rng: np.random.Generator) -> dict[str, Any]:
    """
    Draw one value for every argument that an operator can have, float32 and complex64, all of one size.

    Groups of four, one to three modes, bad pixels, dark and lit pixels; sides are odd or even.
    """
    N, groups, modes = int(rng.integers(7, 17)), int(rng.integers(1, 3)), int(rng.integers(1, 4))
    patches, probe = complex_noise(rng, groups, 4, N, N), speckled_probe(rng, N, modes)
    offsets = fractional_offsets(rng, groups, 4)
    S = canvas_size(N, offsets)
    stack = (groups, 4, N, N)
    expected = rng.uniform(0.05, 8.0, stack)
    drawn: dict[str, Any] = {
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
        "x": rng.uniform(0.0, 3.0, stack) * lit(patches, probe) * lit(np.ones((1, 1, N, N)), probe),
        "expected": expected,
        "counts": rng.poisson(expected),
    }
    arrays = {name: as_float32(value) for name, value in drawn.items()}
    return {**arrays, "S": S, "N": N, "r": float(rng.uniform(0.05, 2.0)), "sigma_px": float(rng.uniform(0.5, 1.2))}
