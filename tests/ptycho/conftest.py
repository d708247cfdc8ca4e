"""Small scans and models for the tests of the TensorFlow engine."""

import os
from importlib.util import find_spec

import numpy as np
import pytest

from ptycho_backend.config import ExecutionConfig, ModelConfig, TrainingConfig
from ptycho_backend.data.batching import Samples
from ptycho_backend.data.grouping import group_positions
from ptycho_backend.data.scan import Scan
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.simulation.simulate import simulate_scan

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
collect_ignore_glob = [] if find_spec("tensorflow") else ["*"]

EXACT = ExecutionConfig(device="cpu", precision="32-true")


@pytest.fixture(scope="session")
def scan():
    """24 patterns of 32×32 with two bad pixels and a known object."""
    return simulate_scan(N=32, n_positions=24, photons_per_pattern=1e5, bad_pixels=0.002, seed=3)


@pytest.fixture(scope="session")
def make_samples(scan):
    """Return a factory of samples for a model configuration, by default of the scan of 24 patterns."""

    def make(model: ModelConfig, n: int | None = None, with_labels: bool = True, scan: Scan = scan) -> Samples:
        groups = group_positions(scan.positions_px, model.gridsize, 7, n, np.random.default_rng(0))
        return Samples(scan, groups, calibrate(scan, model), with_labels)

    return make


@pytest.fixture(scope="session")
def make_training():
    """Return a factory of small training configurations: model fields by name, training fields as keywords."""

    def make(model: dict | None = None, **training) -> TrainingConfig:
        fields = {"N": 32, "n_filters_scale": 1, "unrolled_steps": 1, **(model or {})}
        return TrainingConfig(model=ModelConfig(**fields), **{"nepochs": 1, "batch_size": 8, **training})

    return make


@pytest.fixture(scope="session")
def make_model(make_samples):
    """Return a factory of models on the TensorFlow engine."""
    from ptycho.engine.backend import TensorFlowBackend

    def make(training: TrainingConfig, execution: ExecutionConfig = EXACT, calibration=None, backend=None):
        calibration = calibration or make_samples(training.model).calibration
        return (backend or TensorFlowBackend()).create_model(training, calibration, execution)

    return make
