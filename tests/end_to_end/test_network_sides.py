"""A side that no network takes is an error before any work, and any side suits the flat start (data 2, network 1)."""

from __future__ import annotations

import pytest

import ptycho_backend as pb
from ptycho_backend.errors import ShapeError


@pytest.mark.parametrize("N", [24, 33, 40, 100])
def test_a_start_from_a_network_refuses_the_side_first(N, monkeypatch):
    monkeypatch.setattr("ptycho_backend.reconstruction.load_model", lambda: pytest.fail("the model was loaded"))
    scan = pb.simulate_scan(N=N, n_positions=9)
    with pytest.raises(ShapeError, match="multiple of 16") as error:
        pb.reconstruct(scan, start="network")
    assert "--resize" in str(error.value)


@pytest.mark.parametrize("N", [24, 33, 40])
def test_the_flat_start_takes_any_side(N):
    scan = pb.simulate_scan(N=N, n_positions=9)
    assert pb.reconstruct(scan, iterations=2, probe_iterations=0).obj.shape[0] > N
