"""Global state of the caller: random numbers, warning filters, logging and the environment stay as they were."""

import logging
import os
import random
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest

import ptycho_backend as pb
from ptycho_backend.engines.registry import missing_packages

QUICK = {"nepochs": 1, "probe_iterations": 0, "model": pb.ModelConfig(N=32, unrolled_steps=1, initial_iterations=1)}
LOGGERS = ("", "ptycho_backend", "lightning", "lightning.pytorch", "lightning.fabric", "torch", "tensorflow", "keras")


@pytest.fixture(scope="module")
def scan():
    return pb.simulate_scan(N=32, n_positions=16, seed=1)


def state():
    """Return the global state in comparable form."""
    found = {
        "random": random.getstate(),
        "numpy": str(np.random.get_state(legacy=False)),  # noqa: NPY002
        "numpy errors": np.geterr(),
        "warning filters": list(warnings.filters),
        "showwarning": warnings.showwarning,
        "disabled log level": logging.root.manager.disable,
        "captured warnings": logging._warnings_showwarning,
        "excepthook": sys.excepthook,
        "signals": {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)},
        "environment": dict(os.environ),
    }
    for name in LOGGERS:
        log = logging.getLogger(name)
        found[f"logger {name}"] = (log.level, list(log.handlers), list(log.filters), log.propagate, log.disabled)
    if "torch" in sys.modules:
        import torch

        found["torch"] = torch.get_rng_state().tolist()
        found["torch threads"] = torch.get_num_threads()
        found["torch modes"] = (
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_float32_matmul_precision(),
        )
    if "tensorflow" in sys.modules:
        import keras

        found["keras"] = (keras.config.floatx(), keras.mixed_precision.global_policy().name)
    return found


def changes(before, after):
    return {name: (before[name], after[name]) for name in before if before[name] != after[name]}


def test_reconstruct_leaves_the_global_state(scan):
    before = state()
    pb.reconstruct(scan, iterations=1)
    assert changes(before, state()) == {}


def test_a_failed_call_leaves_the_global_state(scan):
    before = state()
    with pytest.raises(pb.PtychoError):
        pb.reconstruct(scan, iterations=-1)
    with pytest.raises(pb.PtychoError):
        pb.train(scan, pb.TrainingConfig(nepochs=0))
    assert changes(before, state()) == {}


@pytest.mark.parametrize("backend", ["pytorch", pytest.param("tensorflow", marks=pytest.mark.slow)])
def test_train_and_reconstruct_leave_the_global_state(scan, backend):
    if missing_packages(backend):
        pytest.skip(f"{backend} is not installed")
    pb.get_backend(backend).devices()  # the import of a framework is not the call's
    config = pb.TrainingConfig(backend=backend, start="scratch", **QUICK)
    pb.train(scan, config, pb.ExecutionConfig(device="cpu", precision="32-true"))  # modules that a first call imports
    before = state()
    run = pb.train(scan, config, pb.ExecutionConfig(device="cpu", precision="32-true"))
    assert changes(before, state()) == {}
    pb.reconstruct(scan, run.model, iterations=1)
    assert changes(before, state()) == {}


FIRST_CALL = """
import sys, random, warnings
import numpy as np
import ptycho_backend as pb
scan = pb.simulate_scan(N=32, n_positions=16, seed=1)
before = random.getstate(), str(np.random.get_state()), list(warnings.filters), warnings.showwarning
model = pb.ModelConfig(N=32, unrolled_steps=1, initial_iterations=1)
config = pb.TrainingConfig(backend=sys.argv[1], start="scratch", nepochs=1, probe_iterations=0, model=model)
pb.reconstruct(scan, pb.train(scan, config, pb.ExecutionConfig(device="cpu")).model, iterations=1)
assert before == (random.getstate(), str(np.random.get_state()), list(warnings.filters), warnings.showwarning)
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["pytorch", "tensorflow"])
def test_first_call_of_a_process_leaves_the_global_state(backend):
    """It imports a framework, whose modules add filters and draw random numbers."""
    if missing_packages(backend):
        pytest.skip(f"{backend} is not installed")
    done = subprocess.run([sys.executable, "-c", FIRST_CALL, backend], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_seed_of_the_caller_decides_the_caller_s_numbers(scan):
    """Two programs with the same seed draw the same numbers, with or without a reconstruction between."""
    np.random.seed(5)  # noqa: NPY002
    random.seed(5)
    pb.reconstruct(scan, iterations=1)
    drawn = np.random.random(), random.random()  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    random.seed(5)
    assert drawn == (np.random.random(), random.random())  # noqa: NPY002


def test_warnings_of_the_caller_are_still_shown(scan):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pb.reconstruct(scan, iterations=1)
        warnings.warn("mine", UserWarning, stacklevel=1)
    assert [str(item.message) for item in caught if item.category is UserWarning] == ["mine"]


def test_the_check_can_fail():
    """Control: each kind of change is found."""
    before = state()
    random.random()
    np.random.random()  # noqa: NPY002
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImportWarning)
        logging.getLogger("lightning").addFilter(reject := logging.Filter("none"))
        found = changes(before, state())
        logging.getLogger("lightning").removeFilter(reject)
    assert {"random", "numpy", "warning filters", "logger lightning"} <= found.keys()
