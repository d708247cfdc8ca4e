"""Solver kernels of several processes: shares of the patterns, exchanges, decisions (contract 10.8)."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ptycho_backend.engines import registry
from ptycho_backend.engines.numpy.solver import NumpyKernels
from ptycho_backend.engines.parallel_solver import ParallelKernels
from ptycho_backend.engines.solver_contract import SolverKernels, Wanted
from ptycho_backend.errors import ConfigError, PtychoError
from ptycho_backend.runtime.devices import processors
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.solver import SolverOptions, solve
from ptycho_backend.testing import assert_close
from ptycho_backend.testing.scans import calibration_of_scan, small_scan
from ptycho_backend.testing.tolerances import KERNEL32
from ptycho_backend.training.parallel import (
    LAUNCHERS,
    ProcessGroup,
    ProcessRank,
    check_address,
    launched_rank,
)

TOLERANCE = 1e-4  # of the maximum, clause 10.8
WORLD = 3  # does not divide the 36 + 1 patterns
N_POSITIONS = 37


class ThreadGroup(ProcessGroup):
    """Group of threads, each in the place of a process; `shared` are the barrier and the arrays of all."""

    def __init__(self, process, shared, held=(np.ndarray,)):
        self.process, self._shared, self._held = process, shared, held

    def holds(self, array):
        return isinstance(array, self._held)

    def sum(self, array):
        return np.sum(self._all(array), axis=0)

    def from_first(self, array):
        return self._all(array)[0].copy()

    def _all(self, array):
        barrier, arrays = self._shared
        arrays[self.process.rank] = array
        barrier.wait(20)
        found = [arrays[rank] for rank in range(self.process.world)]
        barrier.wait(20)
        return found


def in_threads(work, world=WORLD, **options):
    """Return the results of `work(kernels)` in a thread for each rank."""
    shared = threading.Barrier(world), {}

    def run(rank):
        try:
            return work(ParallelKernels(NumpyKernels(), ThreadGroup(ProcessRank(rank, world, rank), shared, **options)))
        except BaseException:
            shared[0].abort()
            raise

    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(run, range(world)))


@pytest.fixture(scope="module")
def problem():
    scan = small_scan(n_positions=N_POSITIONS, scan_name="random", seed=4)
    return Problem.of(scan, calibration_of_scan(scan))


@pytest.fixture(scope="module")
def probe(problem):
    return problem.calibration.probe


@pytest.fixture(scope="module")
def local(problem):
    kernels = NumpyKernels()
    kernels.load(problem)
    return kernels


def loaded(problem, work):
    def run(kernels):
        kernels.load(problem)
        return work(kernels)

    return run


@pytest.mark.parametrize("update_probe", [False, True])
@pytest.mark.parametrize("held", [(np.ndarray,), ()], ids=["arrays of the group", "foreign arrays"])
def test_processes_give_the_image_of_one(problem, update_probe, held):
    options = SolverOptions(8, update_probe=update_probe)
    one = solve(problem, NumpyKernels(), options=options)
    solutions = in_threads(lambda kernels: solve(problem, kernels, options=options), held=held)
    for solution in solutions:
        assert abs(solution.image.obj - one.image.obj).max() < TOLERANCE * abs(one.image.obj).max()
        assert abs(solution.probe - one.probe).max() < TOLERANCE * abs(one.probe).max()
        np.testing.assert_allclose(solution.errors, one.errors, rtol=1e-4)
        np.testing.assert_array_equal(solution.image.obj, solutions[0].image.obj)


def test_processes_stop_after_the_iterations_of_one(problem):
    one = solve(problem, NumpyKernels())
    assert {len(solution.errors) for solution in in_threads(lambda kernels: solve(problem, kernels))} == {
        len(one.errors)
    }


def test_sums_are_those_of_all_patterns(problem, probe, local):
    obj = problem.geometry.canvas() * np.exp(0.3j)
    expected = local.updates(obj, probe, Wanted(probe=True))
    for found in in_threads(loaded(problem, lambda kernels: kernels.updates(obj, probe, Wanted(probe=True)))):
        for name in ("obj", "probe", "probe_weight"):
            whole = getattr(expected, name)
            assert abs(getattr(found, name) - whole).max() < 1e-5 * abs(whole).max(), name
        assert found.squared_error == pytest.approx(expected.squared_error, rel=1e-5)
        assert found.norm == pytest.approx(expected.norm, rel=1e-5)


@pytest.mark.parametrize(
    "rows",
    [np.array([30, 2, 17, 9, 33, 11, 0]), np.array([5, 1]), np.array([], dtype=int)],
    ids=["of all processes", "of one process", "none"],
)
def test_a_mini_batch_is_that_of_one_process(problem, probe, local, rows):
    """Rows are numbered as in the scan; a process that holds none adds zeros."""
    obj, wanted = problem.geometry.canvas() * np.exp(0.3j), Wanted(probe=True, patterns=True, rows=rows)
    expected = local.updates(obj, probe, wanted)

    def work(kernels):
        done = []
        return kernels.updates(obj, probe, wanted, done.append), done

    for found, done in in_threads(loaded(problem, work)):
        for name in ("obj", "illumination", "probe", "probe_weight"):
            assert_close(getattr(found, name), getattr(expected, name), KERNEL32)
        for name, values in vars(expected.patterns).items():
            assert_close(np.asarray(getattr(found.patterns, name)), np.asarray(values), KERNEL32)
        assert found.squared_error == pytest.approx(expected.squared_error, rel=1e-5)
        assert found.norm == pytest.approx(expected.norm, rel=1e-5)
        assert not done or done[-1] == len(rows)


def test_updates_of_patterns_stand_in_the_order_of_the_scan(problem, probe, local):
    obj, wanted = problem.geometry.canvas() * np.exp(0.3j), Wanted(patterns=True)
    expected = local.updates(obj, probe, wanted).patterns
    for found in in_threads(loaded(problem, lambda kernels: kernels.updates(obj, probe, wanted))):
        for name, values in vars(expected).items():
            assert_close(np.asarray(getattr(found.patterns, name)), np.asarray(values), KERNEL32)


def test_the_regularisation_is_passed_on(problem):
    update, weight = np.ones((2, 2), np.complex64), np.array([[0, 1], [2, 4]], np.float32)
    for default, larger in in_threads(
        lambda kernels: (kernels.precondition(update, weight), kernels.precondition(update, weight, 0.5))
    ):
        np.testing.assert_allclose(default, 1 / (weight + 0.08), rtol=1e-6)
        np.testing.assert_allclose(larger, 1 / (weight + 2), rtol=1e-6)


def test_a_sum_that_is_not_requested_stays_none(problem, probe):
    obj = problem.geometry.canvas()
    for found in in_threads(loaded(problem, lambda kernels: kernels.updates(obj, probe))):
        assert found.probe is None
        assert found.probe_weight is None


def test_slopes_stand_in_the_order_of_the_scan(problem, probe, local):
    obj = problem.geometry.canvas() * np.exp(0.3j)
    expected = local.phase_slopes(obj, probe)
    for found in in_threads(loaded(problem, lambda kernels: kernels.phase_slopes(obj, probe))):
        np.testing.assert_array_equal(found.centres_px, expected.centres_px)
        np.testing.assert_allclose(found.gradient, expected.gradient, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(found.information, expected.information, rtol=1e-6)


def test_every_process_reports_the_patterns_of_all(problem, probe):
    def work(kernels):
        done = []
        kernels.illumination(probe, done.append)
        return done

    for done in in_threads(loaded(problem, work)):
        assert done[-1] == N_POSITIONS
        assert done == sorted(done)


def test_values_and_decisions_are_those_of_the_first_process(problem):
    """Machines round differently; a process that stopped alone would block the others."""

    def work(kernels):
        rank = kernels._group.process.rank
        array = kernels.from_numpy(np.full(3, 1 + rank, np.complex64))
        kernels._kernels.norm = lambda x, weight: 1.0 + rank
        return array, kernels.norm(array, array.real)

    for array, norm in in_threads(work):
        np.testing.assert_array_equal(array, np.ones(3))
        assert norm == 1.0


def test_a_part_is_a_view_on_the_canvas_of_all(problem):
    part = problem.part(slice(5, 9))
    assert len(part) == 4
    assert np.shares_memory(part.scan.patterns, problem.scan.patterns)
    assert part.geometry.canvas_shape == problem.geometry.canvas_shape
    np.testing.assert_array_equal(part.amplitudes(slice(1, 3)), problem.amplitudes(slice(6, 8)))
    np.testing.assert_array_equal(part.geometry.corners_px, problem.geometry.corners_px[5:9])
    np.testing.assert_array_equal(part.geometry.shifts_px, problem.geometry.shifts_px[5:9])


def test_each_process_needs_a_pattern(problem):
    with pytest.raises(ConfigError, match="at most 2 processes") as caught:
        in_threads(lambda kernels: kernels.load(problem.part(slice(0, 2))))
    assert "3 processes" in str(caught.value)


def test_every_kernel_is_wrapped():
    assert SolverKernels.__abstractmethods__ <= set(vars(ParallelKernels))


# --- environment and registry ----------------------------------------------------------------------------------------


@pytest.fixture
def environment(monkeypatch):
    """Return a function that sets the variables of a launcher; the test starts without any."""
    for name in (*(name for launcher in LAUNCHERS for name in launcher), "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)

    def launch(launcher, *values, address="127.0.0.1"):
        for name, value in zip(launcher, values, strict=True):
            monkeypatch.setenv(name, str(value))
        if address:
            monkeypatch.setenv("MASTER_ADDR", address)

    return launch


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_rank_is_that_of_the_launcher(environment, launcher):
    assert launched_rank() == ProcessRank()
    environment(launcher, 2, 4, 1)
    assert launched_rank() == ProcessRank(2, 4, 1)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_processes_without_an_address_are_independent(environment, launcher):
    environment(launcher, 2, 4, 1, address="")
    assert launched_rank() == ProcessRank()


def test_one_launched_process_is_alone(environment):
    environment(LAUNCHERS[0], 0, 1, 0)
    assert launched_rank() == ProcessRank()
    assert isinstance(registry.solver_kernels("auto", "cpu"), NumpyKernels)


def test_an_address_needs_a_port(environment):
    environment(LAUNCHERS[0], 2, 4, 1)
    with pytest.raises(ConfigError, match="no MASTER_PORT in the environment"):
        check_address()


class EngineWithGpus:
    """Engine that finds two GPUs and returns the arguments of its methods."""

    name = "gpu"

    def devices(self):
        return ("cpu", "cuda:0", "cuda:1")

    def solver_kernels(self, device):
        kernels = NumpyKernels()
        kernels.device = device
        return kernels

    def process_group(self, process):
        return ThreadGroup(process, None)


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_each_process_takes_its_own_gpu(environment, monkeypatch, device):
    monkeypatch.setattr(registry, "get_backend", lambda name: EngineWithGpus())
    monkeypatch.setattr(registry, "gpu_driver_present", lambda: True)
    environment(LAUNCHERS[0], 3, 4, 1)
    kernels = registry.solver_kernels("auto", device)
    assert isinstance(kernels, ParallelKernels)
    assert kernels.device == "cuda:1"
    assert registry.solver_kernels("auto", "cpu").device == "cpu"


def test_an_engine_without_a_process_group_says_so():
    with pytest.raises(PtychoError, match="exchanges no arrays between processes"):
        registry.get_backend("numpy").process_group(ProcessRank(0, 2))


def test_processes_of_torchrun_share_the_processors(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(6)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert processors() == 6
    for world, expected in (("2", 3), ("4", 1), ("9", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", world)
        assert processors() == expected
