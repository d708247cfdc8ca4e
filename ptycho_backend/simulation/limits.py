"""Limits of a simulated scan: memory before it is taken, and counts that its dtype can hold (spec: simulation 4)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.errors import ConfigError
from ptycho_backend.runtime.free_memory import free_memory_bytes

BYTES_PER_COUNT = 24  # expected counts, drawn counts and the counts of the scan: 8 bytes each at most
BYTES_PER_OBJECT_PIXEL = 64  # object, random textures and their Fourier transforms
LARGEST_DRAWN = 2.0**32 - 2.0**20  # sixteen standard deviations below the end of uint32
LARGEST_EXPECTED = 1e30  # float32, with room for sums
MAX_BYTES = 2.0**46  # of any machine; an unknown amount of free memory is no reason to try more


def check_size(n_positions: int, N: int, step_px: float) -> None:
    """
    Check that the patterns and the object of a scan fit in memory.

    Raises
    ------
    ConfigError
    """
    side_px = math.sqrt(n_positions) * step_px + 2.0 * N
    needed = float(n_positions) * N**2 * BYTES_PER_COUNT + side_px * side_px * BYTES_PER_OBJECT_PIXEL
    available = min(float(free_memory_bytes()), MAX_BYTES)
    if not needed <= available:
        raise ConfigError(
            "A simulated scan fits in memory.",
            expected=f"at most {available / 2**30:.3g} GiB, the free memory of this machine",
            received=f"n_positions={n_positions}, N={N}, step_px={step_px:.4g}: about {needed / 2**30:.3g} GiB",
            fix="simulate fewer or smaller patterns, or a smaller step",
        )


def check_expected(expected: NDArray[Any], photons: float, noise: bool) -> None:
    """
    Check that the dtype of the patterns can hold the expected counts.

    Parameters
    ----------
    expected : float64, shape (position, y, x)
    photons : float
        Photons per pattern, for the message.
    noise : bool
        True for counts that are drawn as uint32, False for float32.

    Raises
    ------
    ConfigError
    """
    largest, limit = float(expected.max()), LARGEST_DRAWN if noise else LARGEST_EXPECTED
    if not (np.isfinite(largest) and 0 < largest <= limit):
        raise ConfigError(
            "The counts of a simulated scan fit in their dtype.",
            expected=f"at most {limit:.3g} photons in a pixel ({'uint32' if noise else 'float32'}), and more than 0",
            received=f"photons_per_pattern={photons:g}: {largest:.3g} in the brightest pixel",
            fix="choose photons_per_pattern between 1 and 1e9, and a probe of several pixels",
        )
