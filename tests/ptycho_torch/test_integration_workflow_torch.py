"""Whole workflow with PyTorch: train in one process, load and reconstruct in others."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import ptycho_backend as pb
from ptycho_backend.data.npz import write_npz
from ptycho_backend.data.product import read_product

TRAINING = (
    "--backend=pytorch",
    "--epochs=2",
    "--accumulate-grad-batches=2",
    "--scheduler=exponential",
    "--training.model.n_filters_scale=1",
    "--training.model.unrolled_steps=1",
    "--training.probe_iterations=0",
    "--execution.precision=32-true",
)


@pytest.fixture
def ptychopinn_process():
    """Return a function that runs the command in a process without GPU."""

    def run(*argv):
        command = [sys.executable, "-m", "ptycho_backend.cli", *map(str, argv)]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
        return done

    return run


@pytest.mark.slow
def test_run_pytorch_train_save_load_infer(ptychopinn_process, tmp_path):
    scan = pb.simulate_scan(N=32, n_positions=64, photons_per_pattern=1e5, seed=4)
    scan_file = write_npz(scan, tmp_path / "scan.npz")
    run, image_folder = tmp_path / "run", tmp_path / "image"
    ptychopinn_process("train", scan_file, "--output", run, *TRAINING)
    assert {"config.yaml", "metrics.csv", "reconstruction.h5", "wts.h5.zip", "object.png"} <= {
        path.name for path in run.iterdir()
    }
    assert (run / "checkpoints" / "last.h5.zip").exists()
    ptychopinn_process("reconstruct", scan_file, "--model", run, "--output", image_folder)
    here = pb.reconstruct(scan, pb.load_model(run, execution=pb.ExecutionConfig(precision="32-true")))
    for folder in (run, image_folder):
        stored = read_product(folder / "reconstruction.h5").obj
        assert stored.shape == here.obj.shape
        # Threads sum in another order than this process.
        assert np.abs(stored - here.obj).max() < 0.05 * np.abs(here.obj).max()
    assert pb.evaluate(here, scan).phase_psnr_db > 15
