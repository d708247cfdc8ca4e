"""Fixtures: the command as a function and as a process, one small scan and one trained run."""

import contextlib
import dataclasses
import io
import os
import re
import subprocess
import sys
from typing import NamedTuple

import pytest

from ptycho_backend.cli import main
from ptycho_backend.data.npz import write_npz
from ptycho_backend.engines.registry import missing_packages
from ptycho_backend.simulation.simulate import simulate_scan

QUICK = (
    "--backend=pytorch",
    "--epochs=1",
    "--training.model.n_filters_scale=1",
    "--training.probe_iterations=0",
    "--execution.precision=32-true",
)


class Outcome(NamedTuple):
    """Exit status and output of a command."""

    status: int
    out: str
    err: str


@pytest.fixture(scope="session")
def ptychopinn():
    """Run the command in this process."""

    def run(*argv):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main([str(argument) for argument in argv])
        return Outcome(status, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def scan():
    """Return a small scan with a known object."""
    return simulate_scan(N=32, n_positions=64, photons_per_pattern=1e5, seed=3)


@pytest.fixture(scope="session")
def scan_file(scan, tmp_path_factory):
    """Return the file of the scan."""
    return write_npz(scan, tmp_path_factory.mktemp("scan") / "scan.npz")


@pytest.fixture(scope="session")
def file_without_object(scan, tmp_path_factory):
    """Return the file of the scan without its object."""
    return write_npz(dataclasses.replace(scan, obj=None), tmp_path_factory.mktemp("blind") / "blind.npz")


@pytest.fixture(scope="session")
def needs_pytorch():
    """Skip without PyTorch."""
    if missing_packages("pytorch"):
        pytest.skip("PyTorch is not installed")


@pytest.fixture(scope="session")
def trained(ptychopinn, scan_file, tmp_path_factory, needs_pytorch):
    """Return the folder and the output of one training, with a comparison without the network."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    outcome = ptychopinn("train", scan_file, "--output", folder, "--compare", *QUICK)
    assert outcome.status == 0, outcome.err
    return folder, outcome


@pytest.fixture
def quick():
    """Return the options of a short training."""
    return QUICK


@pytest.fixture
def fails_with():
    """Return a check of a failed command: its status, four lines with some words, no traceback."""

    def check(outcome, status, *words):
        assert outcome.status == status, outcome.err
        assert "Traceback" not in outcome.err
        labels = [line.partition(":")[0] for line in outcome.err.splitlines()]
        assert labels[-3:] == ["  Expected", "  Received", "  Fix"], outcome.err
        assert "Error" in labels[-4]
        for word in words:
            assert str(word) in outcome.err

    return check


@pytest.fixture
def started():
    """Return a function that starts the command as a process."""
    processes = []

    def start(*argv):
        command = [sys.executable, "-m", "ptycho_backend.cli", *(str(argument) for argument in argv)]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def wait_for():
    """Return a function that reads the messages of a process until a line begins with some words, after a number."""

    def wait(process, words):
        lines = []
        while not (lines and re.sub(r"^[0-9]+/[0-9]+ ", "", lines[-1]).startswith(words)):
            line = process.stderr.readline()
            assert line, "".join(lines)
            lines.append(line)

    return wait
