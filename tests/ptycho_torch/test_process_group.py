"""Process group of torch.distributed: exchanges, images of two processes, lost processes (contract 10.8)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import h5py
import numpy as np
import pytest

from ptycho_backend.data.npz import write_npz
from ptycho_backend.engines.numpy.solver import NumpyKernels
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.solver import SolverOptions, solve
from ptycho_backend.testing.scans import calibration_of_scan, small_scan
from ptycho_backend.training.parallel import LAUNCHERS

TOLERANCE = 1e-4  # of the maximum, clause 10.8
# What each of two processes runs; the group is that of the registry, without its import of Lightning.
GROUP = """
import sys, numpy as np
from ptycho_backend.engines.numpy.solver import NumpyKernels
from ptycho_backend.engines.parallel_solver import ParallelKernels
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.solver import SolverOptions, solve
from ptycho_backend.testing.scans import calibration_of_scan, small_scan
from ptycho_backend.training.parallel import launched_rank
from ptycho_torch.engine.process_group import joined_group
"""
JOIN = "group = joined_group(launched_rank())"
SOLVE = """
scan = small_scan()
problem = Problem.of(scan, calibration_of_scan(scan))
solution = solve(problem, ParallelKernels(NumpyKernels(), group), options=SolverOptions(8, update_probe=True))
np.savez(sys.argv[1] + str(group.process.rank), obj=solution.image.obj, probe=solution.probe)
"""
EXCHANGE = """
import torch
rank, found = group.process.rank, {}
with torch.inference_mode():
    results = torch.full((2, 3), 1 + 2j) * (rank + 1)
found["sum of inference tensors"] = bool((group.sum(results) == (3 + 6j)).all())
array = np.full(4, 1.5 + rank)
first = group.from_first(array)
found["first"] = bool((first == 1.5).all())
found["argument unchanged"] = bool((array == 1.5 + rank).all())
tensor = torch.full((2,), 7.0 + rank)
found["first tensor"] = bool((group.from_first(tensor) == 7.0).all()) and bool((tensor == 7.0 + rank).all())
found["strided"] = bool((group.sum(np.arange(6.0).reshape(2, 3).T) == 2 * np.arange(6.0).reshape(2, 3).T).all())
found["holds"] = group.holds(array) and group.holds(tensor) and not group.holds([1.0])
import json
print(json.dumps(found))
"""
# The second process ends after the first exchange, sleeps instead of the second one, or never joins.
LOST = """
import time
from datetime import timedelta
from ptycho_backend.errors import ProcessError
from ptycho_torch.engine import process_group
way, is_second = {way!r}, launched_rank().rank == 1
process_group.TIMEOUT = timedelta(seconds=600 if way == "ends" else 2)
try:
    if is_second and way == "absent":
        time.sleep(60)
    group = joined_group(launched_rank())
    group.sum(np.ones(1))
    if is_second and way == "ends":
        sys.exit(7)
    if is_second:
        time.sleep(60)
    group.sum(np.ones(1))
except ProcessError as error:
    print(error)
    sys.exit(3)
"""
OFTEN_LOGGED = """
import sys
from ptycho_backend.runtime import progress
progress.LOG_EVERY_S = 0.5
from ptycho_backend.cli import main
sys.exit(main(sys.argv[1:]))
"""


def started(commands, folder, launcher=LAUNCHERS[0]):
    """Start the command of each rank as a launcher does; the outputs are files `out<rank>`."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": "2"}
    processes = []
    for rank, command in enumerate(commands):
        ranks = dict(zip(launcher, map(str, (rank, len(commands), rank)), strict=True))
        with (folder / f"out{rank}").open("w") as out:
            processes.append(subprocess.Popen(command, env=os.environ | shared | ranks, stdout=out, stderr=out))
    return processes


@contextmanager
def killed_at_end(processes):
    """Kill the processes that the block leaves."""
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def statuses(processes, timeout_s=100):
    """Return the exit status of each process."""
    with killed_at_end(processes):
        return [process.wait(timeout_s) for process in processes]


def run_code(code, folder):
    """Run code in two processes and return their exit status with their outputs."""
    command = [sys.executable, "-c", GROUP + code, str(folder / "result")]
    found = statuses(started([command, command], folder))
    return found, [(folder / f"out{rank}").read_text() for rank in range(2)]


def test_two_processes_give_the_image_of_one(tmp_path):
    scan = small_scan()
    problem = Problem.of(scan, calibration_of_scan(scan))
    one = solve(problem, NumpyKernels(), options=SolverOptions(8, update_probe=True))
    assert run_code(JOIN + SOLVE, tmp_path) == ([0, 0], ["", ""])
    images = [np.load(tmp_path / f"result{rank}.npz") for rank in range(2)]
    assert abs(images[0]["obj"] - one.image.obj).max() < TOLERANCE * abs(one.image.obj).max()
    assert abs(images[0]["probe"] - one.probe).max() < TOLERANCE * abs(one.probe).max()
    np.testing.assert_array_equal(images[0]["obj"], images[1]["obj"])


def test_exchanges_take_arrays_and_tensors(tmp_path):
    found, outputs = run_code(JOIN + EXCHANGE, tmp_path)
    assert found == [0, 0], outputs
    for output in outputs:
        assert all(json.loads(output).values()), output


@pytest.mark.parametrize(
    "way", ["ends", pytest.param("sleeps", marks=pytest.mark.slow), pytest.param("absent", marks=pytest.mark.slow)]
)
def test_a_lost_process_is_an_error_in_the_others(tmp_path, way):
    command = [sys.executable, "-c", GROUP + LOST.format(way=way)]
    processes = started([command, command], tmp_path)
    with killed_at_end(processes):
        assert processes[0].wait(40) == 3
    output = (tmp_path / "out0").read_text()
    assert "A process of the group has ended or does not answer." in output
    assert "in process 0: " in output


# --- the commands ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scan_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "scan.npz"
    write_npz(small_scan(n_positions=100), path)
    return path


def options_of(scan_file, output):
    return ["reconstruct", str(scan_file), "--output", str(output), "--device", "cpu", "--no-progress"]


def command_of(scan_file, output):
    return ["-m", "ptycho_backend.cli", *options_of(scan_file, output)]


def object_in(folder):
    with h5py.File(folder / "reconstruction.h5") as file:
        return file["object"][()]


@pytest.mark.slow
def test_torchrun_reconstructs_and_the_first_process_writes(scan_file, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    alone = subprocess.run([sys.executable, *command_of(scan_file, one)], capture_output=True, text=True, check=True)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*torchrun, *command_of(scan_file, two)], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    expected, found = object_in(one), object_in(two)
    assert abs(found - expected).max() < TOLERANCE * abs(expected).max()
    assert done.stdout.count("Reconstruction of") == alone.stdout.count("Reconstruction of") == 1
    refinements = [each.stderr.count("probe refinement:") for each in (done, alone)]
    assert refinements == [3, 3]  # of the whole scan and of its halves, by the first process
    assert "on cpu in 2 processes" in done.stdout
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}


@pytest.mark.slow
def test_processes_of_slurm_reconstruct_together_and_the_first_writes(scan_file, tmp_path):
    """Each process has its own folder, which shows whether it writes."""
    commands = [[sys.executable, *command_of(scan_file, tmp_path / f"run{rank}"), "--compare"] for rank in range(2)]
    found = statuses(started(commands, tmp_path, LAUNCHERS[1]))
    assert found == [0, 0], (tmp_path / "out0").read_text() + (tmp_path / "out1").read_text()
    assert (tmp_path / "run0" / "assessment.json").exists()
    assert (tmp_path / "out1").read_text() == ""
    assert not (tmp_path / "run1").exists()


@pytest.mark.slow
def test_a_signal_leaves_the_unfinished_image(scan_file, tmp_path):
    """All processes get the signal; the first one stops after an iteration and saves."""
    iterations = ["--inference.iterations", "100000", "--inference.probe_iterations", "0"]
    command = [sys.executable, "-c", OFTEN_LOGGED, *options_of(scan_file, tmp_path / "run"), *iterations]
    processes = started([command, command], tmp_path)
    try:
        deadline = time.monotonic() + 60
        while "iterations: " not in (tmp_path / "out0").read_text():
            assert time.monotonic() < deadline, (tmp_path / "out0").read_text()
            time.sleep(0.2)
        for process in processes:
            process.send_signal(signal.SIGTERM)
    finally:
        found = statuses(processes, 60)
    outputs = [(tmp_path / f"out{rank}").read_text() for rank in range(2)]
    assert found == [128 + signal.SIGTERM] * 2, outputs
    assert "reconstruction.h5; the image is incomplete (iterations: " in outputs[0]
    assert outputs[1].strip() == "Interrupted"
    assert np.isfinite(object_in(tmp_path / "run")).all()
