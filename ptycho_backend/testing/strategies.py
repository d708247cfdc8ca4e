"""Hypothesis strategies for scans, probes, models and trainings; NumPy draws arrays from a drawn seed."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from ptycho_backend.config import ModelConfig, TrainingConfig
from ptycho_backend.data.grouping import Groups, group_positions
from ptycho_backend.data.scan import Measurement, Scan
from ptycho_backend.simulation.simulate import covering_frame
from ptycho_backend.testing.cases import random_weights
from ptycho_backend.testing.inputs import complex_noise, detector_mask, speckled_probe

Strategy = st.SearchStrategy
STORED: tuple[tuple[Measurement, Any], ...] = (
    ("counts", np.uint16),
    ("counts", np.int32),
    ("counts", np.float32),
    ("amplitude", np.float64),
)


def generators() -> Strategy[np.random.Generator]:
    """Return NumPy generators; large arrays are cheap for Hypothesis and shrink to a small seed."""
    return st.integers(0, 2**16).map(np.random.default_rng)


def sides(smallest: int = 2, largest: int = 17) -> Strategy[int]:
    """Return side lengths, odd and even."""
    return st.integers(smallest, largest)


@st.composite
def waves(draw: st.DrawFn, smallest: int = 2, largest: int = 17) -> NDArray[np.complex128]:
    """Draw waves (batch, y, x); sides are odd or even, equal or different."""
    shape = (draw(st.integers(1, 3)), draw(sides(smallest, largest)), draw(sides(smallest, largest)))
    return complex_noise(draw(generators()), *shape)


def offsets(n: int, largest_px: float = 6.0, whole: bool = False) -> Strategy[NDArray[np.float64]]:
    """Return n offsets (n, 2), (y, x) pixels, fractional or whole."""
    limit = int(largest_px)
    number: Strategy[Any] = st.integers(-limit, limit) if whole else st.floats(-largest_px, largest_px, width=32)
    return st.lists(st.tuples(number, number), min_size=n, max_size=n).map(lambda pairs: np.array(pairs, float))


@st.composite
def positions(
    draw: st.DrawFn, smallest: int = 1, largest: int = 12, radius_px: float = 40.0, whole: bool = False
) -> NDArray[np.float64]:
    """Draw scan positions (position, 2), pixels, around any origin; some may coincide."""
    n = draw(st.integers(smallest, largest))
    centre = draw(offsets(1, 1000.0, whole))
    return draw(offsets(n, radius_px, whole)) + centre


@st.composite
def probes(draw: st.DrawFn, N: int, modes: int | None = None) -> NDArray[np.complex128]:
    """Draw probes (mode, N, N): speckle under a Gaussian envelope, with energy (N/2)²."""
    n = draw(st.integers(1, 3)) if modes is None else modes
    return speckled_probe(draw(generators()), N, n)


@st.composite
def masks(draw: st.DrawFn, N: int) -> NDArray[np.bool_]:
    """Draw detector masks (N, N) with 0, 5 or 50 percent of bad pixels and at least one good pixel."""
    bad = draw(st.sampled_from((0.0, 0.05, 0.5)))
    return detector_mask(draw(generators()), N, bad)


@st.composite
def groups(draw: st.DrawFn, positions_px: NDArray[np.float64], gridsize: int | None = None) -> Groups:
    """Draw groups of gridsize² neighbours; gridsize is at most 3 and limited by the number of positions."""
    largest = int(np.sqrt(len(positions_px)))
    size = draw(st.integers(1, min(largest, 3))) if gridsize is None else gridsize
    n_groups = draw(st.none() | st.integers(1, len(positions_px)))
    neighbours = draw(st.integers(size**2 - 1 or 1, size**2 + 4))
    return group_positions(positions_px, size, neighbours, n_groups, draw(generators()))


@st.composite
def scans(draw: st.DrawFn, N: int | None = None, smallest: int = 1, largest: int = 9) -> Scan:
    """
    Draw scans of few small patterns: counts or amplitudes of several dtypes, with at least one photon.

    Scans have one to three probe modes and any origin; bad pixels and a known object are optional.
    """
    side = draw(st.sampled_from((8, 12, 16))) if N is None else N
    positions_px, rng = draw(positions(smallest, largest)), draw(generators())
    origin, shape = covering_frame(positions_px, side)
    probe, with_object = draw(probes(side)), draw(st.booleans())
    counts = rng.poisson(draw(st.sampled_from((0.1, 3.0, 1e3))), (len(positions_px), side, side))
    mask = draw(masks(side))
    y, x = np.argwhere(mask)[0]
    counts[0, y, x] += 1
    measurement, dtype = draw(st.sampled_from(STORED))
    return Scan(
        patterns=(counts if measurement == "counts" else np.sqrt(counts)).astype(dtype),
        positions_px=positions_px,
        probe=probe.astype(np.complex64),
        measurement=measurement,
        mask=mask,
        obj=complex_noise(rng, *shape).astype(np.complex64) if with_object else None,
        obj_origin_px=origin,
        source="a drawn scan",
    )


@st.composite
def model_configs(draw: st.DrawFn, /, **fixed: Any) -> ModelConfig:
    """Draw valid configurations of small models; `fixed` holds fields that are not drawn."""
    drawn = {
        "N": draw(st.sampled_from((32, 48, 64))),
        "gridsize": draw(st.integers(1, 2)),
        "architecture": draw(st.sampled_from(("unet", "cnn"))),
        "model_type": draw(st.sampled_from(("pinn", "supervised"))),
        "n_filters_scale": 1,
        "unrolled_steps": draw(st.integers(1, 3)),
        "initial_iterations": draw(st.integers(0, 2)),
        "amp_activation": draw(st.sampled_from(("sigmoid", "swish", "silu", "softplus", "relu"))),
        "decoder_outputs": draw(st.sampled_from(("amplitude_phase", "real_imaginary"))),
        "object_big": draw(st.booleans()),
        "probe_big": draw(st.booleans()),
        "pad_object": draw(st.booleans()),
        "probe_mask": draw(st.booleans()),
        "gaussian_smoothing_sigma": draw(st.sampled_from((0.0, 0.8))),
    }
    return ModelConfig(**{**drawn, **fixed})


@st.composite
def training_configs(draw: st.DrawFn, /, model: ModelConfig | None = None, **fixed: Any) -> TrainingConfig:
    """Draw valid trainings of small models with at least one loss."""
    model = draw(model_configs()) if model is None else model
    nll, mae, labels = draw(st.tuples(*[st.sampled_from((0.0, 0.5, 1.0))] * 3).filter(any))
    drawn = {
        "model": model,
        "nepochs": draw(st.integers(1, 3)),
        "batch_size": draw(st.integers(1, 8)),
        "learning_rate": draw(st.sampled_from((1e-4, 1e-3, 1e-2))),
        "nll_weight": nll,
        "mae_weight": mae,
        "realspace_mae_weight": labels,
        "realspace_weight": draw(st.sampled_from((0.0, 0.1))),
        "constraint_share": draw(st.sampled_from((0.0, 0.3, 1.0))),
        "probe_trainable": draw(st.booleans()),
        "intensity_scale_trainable": draw(st.booleans()),
        "validation_fraction": draw(st.sampled_from((0.0, 0.05, 0.5))),
        "seed": draw(st.integers(0, 2**16)),
    }
    return TrainingConfig(**{**drawn, **fixed})


@st.composite
def weights(draw: st.DrawFn, config: ModelConfig, modes: int | None = None) -> dict[str, NDArray[np.float32]]:
    """Draw all weights of a model by canonical name: large kernels, and biases other than 0."""
    return random_weights(config, draw(probes(config.N, modes)), draw(generators()))
