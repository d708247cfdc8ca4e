"""Small scans and models for the tests of the PyTorch engine."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_backend.config import ExecutionConfig, ModelConfig, TrainingConfig
from ptycho_backend.data.batching import Samples
from ptycho_backend.data.grouping import group_positions
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.simulation.simulate import simulate_scan

pytest.importorskip("torch")
pytest.importorskip("lightning")

N = 32
CPU = ExecutionConfig(device="cpu", precision="32-true")


@pytest.fixture(scope="session")
def scan():
    """Return a small scan."""
    return simulate_scan(N=N, n_positions=9, object_name="lines", photons_per_pattern=1e4)


@pytest.fixture
def setup(scan):
    """Return a factory of models with their samples."""
    from ptycho_torch.engine.model import TorchModel

    def build(execution=CPU, gridsize=1, training=None, **model):
        config = ModelConfig(**{"N": N, "n_filters_scale": 1, "unrolled_steps": 1, "gridsize": gridsize, **model})
        settings = TrainingConfig(model=config, **{"nepochs": 1, "batch_size": 4, **(training or {})})
        groups = group_positions(scan.positions_px, gridsize, 5, None, np.random.default_rng(0))
        samples = Samples(scan, groups, calibrate(scan, config))
        return TorchModel(settings, samples.calibration, execution), samples

    return build
