"""Scan patterns for simulation: sub-pixel positions on no grid (spec: simulation 3)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.errors import ConfigError, nearest_name

Positions = NDArray[np.float64]
JITTER = 0.2  # of the raster, in steps either way: a strict raster shows in the image as a lattice


def make_positions(name: str, n_positions: int, step_px: float, rng: np.random.Generator) -> Positions:
    """
    Make scan positions of about one per step².

    Parameters
    ----------
    name : {"raster", "spiral", "random"}
        Rows with jitter, a Fermat spiral, or one position anywhere in each cell of a grid.
    n_positions : int
    step_px : float
        Mean distance of neighbours, pixels.
    rng : numpy Generator

    Returns
    -------
    float64, shape (position, 2), pixels, (y, x)
        The middle of the scan lies near (0, 0).

    Notes
    -----
    Spec: simulation 3.1.
    """
    if name not in SCANS:
        raise ConfigError(
            "This scan pattern is not known.",
            expected=f"one of {', '.join(SCANS)}",
            received=f"scan_name={name!r}",
            fix=f"did you mean {nearest_name(name, SCANS) or 'raster'!r}?",
        )
    return SCANS[name](n_positions, rng) * step_px


def raster(n_positions: int, rng: np.random.Generator) -> Positions:
    """Return rows of positions with jitter, in steps."""
    cells = _cells(n_positions)
    return cells + rng.uniform(-JITTER, JITTER, size=cells.shape)


def spiral(n_positions: int, rng: np.random.Generator) -> Positions:
    """Return a Fermat spiral from a random angle on, in steps."""
    k = np.arange(n_positions) + 0.5
    angle = k * np.pi * (3 - np.sqrt(5)) + rng.uniform(0, 2 * np.pi)
    return np.asarray(np.sqrt(k / np.pi)[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=1))


def scattered(n_positions: int, rng: np.random.Generator) -> Positions:
    """Return one position anywhere in each cell, in random order, in steps: no period and no large hole."""
    cells = _cells(n_positions)
    return rng.permutation(cells + rng.uniform(-0.5, 0.5, size=cells.shape))


SCANS: dict[str, Callable[[int, np.random.Generator], Positions]] = {
    "raster": raster,
    "spiral": spiral,
    "random": scattered,
}


def _cells(n_positions: int) -> Positions:
    rows = max(1, int(np.sqrt(n_positions)))
    columns = -(-n_positions // rows)
    cells = np.stack(np.divmod(np.arange(n_positions), columns), axis=1).astype(np.float64)
    return cells - [(rows - 1) / 2, (columns - 1) / 2]
