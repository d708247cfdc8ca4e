"""Hypothesis strategies for the inputs of the physics. Arrays are drawn by NumPy from a drawn seed."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from ptycho_backend.testing.inputs import complex_noise, speckled_probe

Strategy = st.SearchStrategy


def generators() -> Strategy[np.random.Generator]:
    """Return NumPy generators: large arrays cost Hypothesis nothing and still shrink to a small seed."""
    return st.integers(0, 2**16).map(np.random.default_rng)


def sides(smallest: int = 2, largest: int = 17) -> Strategy[int]:
    """Return side lengths, odd and even."""
    return st.integers(smallest, largest)


@st.composite
def waves(draw: st.DrawFn, smallest: int = 2, largest: int = 17) -> NDArray[np.complex128]:
    """Draw waves (batch, y, x) whose sides may be odd and different."""
    shape = (draw(st.integers(1, 3)), draw(sides(smallest, largest)), draw(sides(smallest, largest)))
    return complex_noise(draw(generators()), *shape)


def offsets(n: int, largest_px: float = 6.0, whole: bool = False) -> Strategy[NDArray[np.float64]]:
    """Return n offsets (n, 2), (y, x) pixels, whole ones on request."""
    reach = int(largest_px)
    number: Strategy[Any] = st.integers(-reach, reach) if whole else st.floats(-largest_px, largest_px, width=32)
    return st.lists(st.tuples(number, number), min_size=n, max_size=n).map(lambda pairs: np.array(pairs, float))


@st.composite
def positions(
    draw: st.DrawFn, smallest: int = 1, largest: int = 12, reach_px: float = 40.0, whole: bool = False
) -> NDArray[np.float64]:
    """Draw scan positions (position, 2), some of which may coincide, around any origin."""
    n = draw(st.integers(smallest, largest))
    centre = draw(offsets(1, 1000.0, whole))
    return draw(offsets(n, reach_px, whole)) + centre


@st.composite
def probes(draw: st.DrawFn, N: int, modes: int | None = None) -> NDArray[np.complex128]:
    """Draw probes (mode, N, N): speckle under a Gaussian envelope, with energy (N/2)²."""
    n = draw(st.integers(1, 3)) if modes is None else modes
    return speckled_probe(draw(generators()), N, n)
