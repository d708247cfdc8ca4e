"""Extreme simulated scans: refused before they take memory, or simulated with finite counts."""

import time
import warnings

import numpy as np
import pytest

import ptycho_backend as pb
from ptycho_backend.errors import ConfigError
from ptycho_backend.simulation import limits

HUGE = [
    *({"n_positions": 10**12}, {"n_positions": 10**30}, {"step_px": 1e300}, {"step_px": 1e6, "n_positions": 10**4}),
    *({"photons_per_pattern": 1e300}, {"photons_per_pattern": 1e13}, {"photons_per_pattern": 1e-300}),
    *({"photons_per_pattern": float("nan")}, {"photons_per_pattern": float("inf")}, {"seed": -1}, {"N": 10**6}),
    *({"diameter_fraction": 1e-300}, {"phase_range_rad": float("inf")}, {"phase_range_rad": 1e300}, {"modes": 10**9}),
    {"photons_per_pattern": 1e300, "noise": False},
]


@pytest.mark.parametrize("fields", HUGE, ids=str)
def test_an_impossible_scan_is_refused_at_once(fields):
    started = time.monotonic()
    with pytest.raises(ConfigError):
        pb.simulate_scan(**({"N": 32, "n_positions": 9} | fields))
    assert time.monotonic() - started < 5


POSSIBLE = [
    *({"step_px": 1e-300}, {"diameter_fraction": 1e-4}, {"phase_range_rad": 1e4}, {"seed": 10**500}, {"N": 17}),
    *({"n_positions": 1}, {"bad_pixels": 0.499}, {"photons_per_pattern": 1e12, "noise": False}),
]


@pytest.mark.parametrize("fields", POSSIBLE, ids=lambda fields: next(iter(fields)))
def test_an_extreme_scan_has_finite_counts(fields):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scan = pb.simulate_scan(**({"N": 32, "n_positions": 9} | fields))
    assert np.isfinite(scan.patterns).all()
    assert scan.patterns.max() > 0


def test_memory_is_compared_before_it_is_taken(monkeypatch):
    monkeypatch.setattr(limits, "free_memory_bytes", lambda: 2**20)
    with pytest.raises(ConfigError, match="fits in memory"):
        pb.simulate_scan(N=64, n_positions=1024)
