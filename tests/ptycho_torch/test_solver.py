"""Solver kernels in PyTorch: measured amplitudes stay on the host where a GPU has too little free memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ptycho_backend.engines.solver_contract import Wanted
from ptycho_backend.solver.problem import Problem
from ptycho_backend.testing.scans import calibration_of_scan, small_scan
from ptycho_torch.engine import solver

SHAPE = (10, 4, 4)  # 640 bytes


@pytest.mark.parametrize(("free", "place"), [(1067, "meta"), (1066, "cpu"), (0, "cpu")])
def test_amplitudes_take_at_most_the_share_of_free_memory(monkeypatch, free, place):
    """PyTorch's device without data stands for a GPU."""
    monkeypatch.setattr(solver, "free_bytes", lambda device: free)
    room = solver.room_for_amplitudes(SHAPE, torch.device("meta"))
    assert room.device.type == place
    assert room.shape == SHAPE
    assert room.dtype == torch.float32


def test_a_processor_has_room_for_all():
    assert solver.free_bytes(torch.device("cpu")) == float("inf")


def test_amplitudes_on_the_host_give_the_same_updates(monkeypatch, device):
    scan = small_scan(n_positions=16, modes=2, bad_pixels=0.05)
    problem = Problem.of(scan, calibration_of_scan(scan))
    found = []
    for free in (2**40, 0):
        monkeypatch.setattr(solver, "free_bytes", lambda device, free=free: free)
        kernels = solver.TorchKernels(device)
        kernels.load(problem)
        arrays = [kernels.from_numpy(array) for array in (problem.geometry.canvas(), problem.calibration.probe)]
        expected_place = "cpu" if free == 0 else kernels._device.type
        assert kernels._amplitudes.device.type == expected_place
        found.append((kernels.updates(*arrays), kernels.updates(*arrays, Wanted(rows=np.array([7, 2, 11])))))
        rows = torch.tensor([7, 2], device=kernels._device)
        np.testing.assert_array_equal(kernels.to_numpy(kernels._measured(rows)), problem.amplitudes(np.array([7, 2])))
    for on_host, on_device in zip(found[1], found[0], strict=True):
        assert on_host.squared_error == pytest.approx(on_device.squared_error, rel=1e-6)
        np.testing.assert_allclose(kernels.to_numpy(on_host.obj), kernels.to_numpy(on_device.obj), rtol=0, atol=1e-5)
