"""Scan patterns for simulation: raster, spiral and random, at sub-pixel positions (spec: simulation 3)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.errors import ConfigError

Positions = NDArray[np.float64]
JITTER = 0.2  # of the raster, in steps either way; a strict raster causes a lattice in the image


def make_positions(name: str, n_positions: int, step_px: float, rng: np.random.Generator) -> Positions:
    """
    Draw scan positions with a density of one per step².

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
        Positions with their centre near (0, 0).

    Notes
    -----
    Spec: simulation 3.1.
    """
    if name not in SCANS:
        raise ConfigError.unknown("scan pattern", name, SCANS, f"scan_name={name!r}")
    return SCANS[name](n_positions, rng) * step_px


def raster(n_positions: int, rng: np.random.Generator) -> Positions:
    """Draw rows of positions with jitter, in steps."""
    cells = _cells(n_positions)
    return cells + rng.uniform(-JITTER, JITTER, size=cells.shape)


def spiral(n_positions: int, rng: np.random.Generator) -> Positions:
    """Draw a Fermat spiral with a random first angle, in steps."""
    k = np.arange(n_positions) + 0.5
    angle = k * np.pi * (3 - np.sqrt(5)) + rng.uniform(0, 2 * np.pi)
    return np.asarray(np.sqrt(k / np.pi)[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=1))


def scattered(n_positions: int, rng: np.random.Generator) -> Positions:
    """Draw one position in each cell of a grid, in random order, in steps: no period and no large gap."""
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
