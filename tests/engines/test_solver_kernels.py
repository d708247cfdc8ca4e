"""Solver kernels of every engine: they refuse arrays of another problem, and a dark pattern has no effect."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest

from ptycho_backend.engines.numpy import solver as numpy_solver
from ptycho_backend.engines.numpy.solver import NumpyKernels
from ptycho_backend.engines.solver_contract import Wanted
from ptycho_backend.errors import ShapeError
from ptycho_backend.physics import updates as oracle
from ptycho_backend.runtime import thread_map
from ptycho_backend.solver.problem import Problem
from ptycho_backend.testing import assert_close
from ptycho_backend.testing.inputs import complex_noise
from ptycho_backend.testing.scans import calibration_of_scan, small_scan
from ptycho_backend.testing.tolerances import COARSE32, KERNEL32


@pytest.fixture(scope="module")
def problem():
    scan = small_scan(n_positions=16, modes=2, bad_pixels=0.05)
    return Problem.of(scan, calibration_of_scan(scan))


@pytest.fixture(params=["numpy", "engine"])
def kernels(request, backend, device, problem):
    """Return the NumPy kernels and those of an engine."""
    kernels = NumpyKernels() if request.param == "numpy" else backend.solver_kernels(device)
    kernels.load(problem)
    return kernels


def wider(array, axis):
    """Return an array with one more row or column of ones."""
    return np.concatenate([array, np.ones_like(array.take([0], axis=axis))], axis=axis)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("method", ["updates", "phase_slopes"])
def test_an_object_of_another_shape_is_an_error(kernels, problem, method, axis):
    canvas = wider(problem.geometry.canvas(), axis)
    expected = f"shape {problem.geometry.canvas_shape}"
    with pytest.raises(ShapeError, match="object") as error:
        getattr(kernels, method)(kernels.from_numpy(canvas), kernels.from_numpy(problem.calibration.probe))
    assert error.value.expected == expected
    assert error.value.received == f"shape {canvas.shape}"
    assert error.value.fix


def changed(probe, case):
    """Return a probe of one of the wrong shapes."""
    return {"no mode axis": probe[0], "wide": wider(probe, 2), "high": wider(probe, 1)}[case]


@pytest.mark.parametrize("case", ["no mode axis", "wide", "high"])
@pytest.mark.parametrize("method", ["illumination", "updates", "phase_slopes"])
def test_a_probe_of_another_shape_is_an_error(kernels, problem, method, case):
    probe = kernels.from_numpy(changed(problem.calibration.probe, case))
    arrays = [probe] if method == "illumination" else [kernels.from_numpy(problem.geometry.canvas()), probe]
    with pytest.raises(ShapeError, match="probe"):
        getattr(kernels, method)(*arrays)


def test_kernels_without_a_problem_are_an_error(backend, device):
    for kernels in (NumpyKernels(), backend.solver_kernels(device)):
        with pytest.raises(AttributeError):
            kernels.illumination(kernels.from_numpy(np.ones((1, 8, 8), complex)))


def test_kernels_agree_with_the_oracle(kernels, problem, rng):
    """The parity checks compare the engines; the NumPy kernels are compared here."""
    noise = [complex_noise(rng, *shape) for shape in (problem.geometry.canvas_shape, problem.calibration.probe.shape)]
    obj = np.exp(0.2 * noise[0]).astype(np.complex64)
    probe = (problem.calibration.probe * (1 + 0.2 * noise[1])).astype(np.complex64)
    geometry, mask = problem.geometry, problem.scan.mask.astype(float)
    amplitudes = np.fft.fftshift(problem.amplitudes(slice(None)).astype(float), axes=(1, 2))
    patterns = oracle.Patterns(amplitudes, mask, geometry.corners_px, geometry.shifts_px)
    arrays = kernels.from_numpy(obj), kernels.from_numpy(probe)
    found, expected = kernels.updates(*arrays, Wanted(probe=True)), oracle.updates(obj, probe, patterns)
    assert_close(kernels.to_numpy(found.obj), expected.obj, KERNEL32)
    assert_close(kernels.to_numpy(found.probe), expected.probe, KERNEL32)
    slopes, expected = kernels.phase_slopes(*arrays), oracle.phase_slopes(obj, probe, patterns)
    for field in dataclasses.fields(expected):
        assert_close(getattr(slopes, field.name), getattr(expected, field.name), COARSE32)


def test_a_dark_exit_wave_has_finite_slopes_without_weight(kernels, problem):
    canvas = problem.geometry.canvas()
    y, x = problem.geometry.corners_px[3]
    canvas[y : y + problem.N, x : x + problem.N] = 0
    found = kernels.phase_slopes(kernels.from_numpy(canvas), kernels.from_numpy(problem.calibration.probe))
    assert all(np.isfinite(getattr(found, field.name)).all() for field in dataclasses.fields(found))
    assert np.abs(found.information[3, :2]).max() < 1e-6 * np.abs(found.information[0, :2]).max()


def test_a_dark_object_has_the_amplitude_of_the_background(kernels, problem):
    """The amplitude 1e-4 is subtracted on good pixels, and Ψ/a is finite."""
    canvas = kernels.from_numpy(np.zeros_like(problem.geometry.canvas()))
    found = kernels.updates(canvas, kernels.from_numpy(problem.calibration.probe))
    x = problem.amplitudes(slice(None)).astype(float)
    good = np.fft.ifftshift(problem.scan.mask)
    assert found.squared_error == pytest.approx(((x - 1e-4) ** 2)[:, good].sum(), rel=1e-5)
    assert abs(found.squared_error / found.norm - 1) > 3e-5
    np.testing.assert_array_equal(kernels.to_numpy(found.obj), 0)


def test_another_problem_replaces_the_first(kernels, problem):
    """Saved chunks of the first problem are not used for the second."""
    scan = small_scan(n_positions=9)
    other = Problem.of(scan, calibration_of_scan(scan))
    arrays = [kernels.from_numpy(array) for array in (problem.geometry.canvas(), problem.calibration.probe)]
    kernels.updates(*arrays)
    kernels.load(other)
    arrays = [kernels.from_numpy(array) for array in (other.geometry.canvas(), other.calibration.probe)]
    fresh = NumpyKernels()
    fresh.load(other)
    expected = fresh.updates(fresh.from_numpy(other.geometry.canvas()), fresh.from_numpy(other.calibration.probe))
    found = kernels.updates(*arrays)
    assert found.squared_error == pytest.approx(expected.squared_error, rel=1e-5)
    np.testing.assert_allclose(kernels.to_numpy(found.obj), expected.obj, atol=1e-5 * np.abs(expected.obj).max())


def test_kernels_do_not_change_their_arguments(kernels, problem):
    arrays = [kernels.from_numpy(a) for a in (problem.geometry.canvas(), problem.calibration.probe)]
    before = [kernels.to_numpy(array) for array in arrays]
    weight = kernels.illumination(arrays[1])
    found = kernels.updates(*arrays, Wanted(probe=True))
    kernels.phase_slopes(*arrays)
    update = kernels.to_numpy(found.obj)
    kernels.combine(1.5, arrays[0], -0.5, found.obj)
    kernels.multiply(arrays[0], found.obj)
    kernels.precondition(found.obj, weight)
    for array, expected in zip((*arrays, found.obj), (*before, update), strict=True):
        np.testing.assert_array_equal(kernels.to_numpy(array), expected)


def test_patterns_done_are_reported(kernels, problem):
    done: list[int] = []
    arrays = [kernels.from_numpy(a) for a in (problem.geometry.canvas(), problem.calibration.probe)]
    kernels.updates(*arrays, report=done.append)
    assert done == sorted(done)
    assert done[-1] == len(problem)
    done.clear()
    kernels.illumination(arrays[1], done.append)
    assert done[-1] == len(problem)


ROWS = np.array([14, 3, 9, 0, 7, 12, 5])
EVERYTHING = Wanted(probe=True, patterns=True)
MINI_BATCH = dataclasses.replace(EVERYTHING, rows=ROWS)


@pytest.fixture
def small_chunks(kernels, problem, monkeypatch):
    """Split the scan, and a mini-batch of more than 3 patterns, into chunks."""
    module = sys.modules[type(kernels).__module__]
    for name, modes in (("CHUNK_PIXELS", 1), ("CPU_CHUNK_PIXELS", 2), ("MAX_CHUNK_PIXELS", 2), ("GPU_CHUNK_PIXELS", 2)):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, 3 * modes * problem.N**2)


def all_fields(kernels, found):
    """Return the arrays and numbers of all updates as NumPy arrays."""
    values = [value for name, value in vars(found).items() if name != "patterns"]
    arrays = [np.asarray(value) if isinstance(value, float) else kernels.to_numpy(value) for value in values]
    return [*arrays, *(np.asarray(value) for value in vars(found.patterns).values())]


def noisy_arrays(kernels, problem, rng):
    """Return a random object, and the probe, on the device."""
    canvas = np.exp(0.2 * complex_noise(rng, *problem.geometry.canvas_shape)).astype(np.complex64)
    return kernels.from_numpy(canvas), kernels.from_numpy(problem.calibration.probe)


@pytest.mark.usefixtures("small_chunks")
def test_chunks_of_a_mini_batch_give_the_updates_of_its_patterns(kernels, problem, rng):
    """The same patterns as a scan of their own have the same updates."""
    arrays, done = noisy_arrays(kernels, problem, rng), []
    found = kernels.updates(*arrays, MINI_BATCH, done.append)
    alone = NumpyKernels()
    alone.load(problem.part(ROWS))
    expected = alone.updates(*(kernels.to_numpy(array) for array in arrays), EVERYTHING)
    for one, two in zip(all_fields(kernels, found), all_fields(alone, expected), strict=True):
        assert_close(one, two, KERNEL32)
    assert done == [3, 6, 7]


@pytest.mark.usefixtures("small_chunks")
def test_a_mini_batch_leaves_the_scan_as_it_is(kernels, problem, rng):
    """Saved chunks are those of the scan, also where a mini-batch with the same probe came first or between."""
    arrays = noisy_arrays(kernels, problem, rng)
    fresh = type(kernels)(*([] if isinstance(kernels, NumpyKernels) else [kernels.device]))
    fresh.load(problem)
    expected = all_fields(fresh, fresh.updates(*arrays, EVERYTHING))
    batches = []
    for _ in range(2):
        batches.append(all_fields(kernels, kernels.updates(*arrays, MINI_BATCH)))
        for one, two in zip(all_fields(kernels, kernels.updates(*arrays, EVERYTHING)), expected, strict=True):
            assert_close(one, two, KERNEL32)
    for one, two in zip(*batches, strict=True):
        assert_close(one, two, KERNEL32)


def test_a_mini_batch_without_patterns_adds_zeros(kernels, problem, rng):
    found = kernels.updates(*noisy_arrays(kernels, problem, rng), dataclasses.replace(MINI_BATCH, rows=ROWS[:0]))
    for values in all_fields(kernels, found):
        assert not values.any()
    assert found.patterns.positions_px.shape == (0, 2)
    assert found.patterns.scales.shape == (0,)


@pytest.mark.parametrize("cache_bytes", [0, 2**30])
def test_a_mini_batch_has_equal_bits_for_any_number_of_threads(problem, rng, monkeypatch, cache_bytes):
    """Also where the patterns of the scan do not fit, and are read again (clause 10.7)."""
    monkeypatch.setattr(numpy_solver, "CHUNK_PIXELS", 3 * problem.N**2)
    kernels, found = NumpyKernels(), []
    arrays = noisy_arrays(kernels, problem, rng)
    for threads, size in ((1, 2**30), (3, cache_bytes)):
        monkeypatch.setattr(numpy_solver, "CACHE_BYTES", size)
        monkeypatch.setattr(numpy_solver, "processors", lambda threads=threads: threads)
        kernels.load(problem)
        found.append(all_fields(kernels, kernels.updates(*arrays, MINI_BATCH)))
    for one, two in zip(*found, strict=True):
        np.testing.assert_array_equal(one, two)


def test_one_chunk_starts_no_threads(problem, rng, monkeypatch):
    """A mini-batch takes less time than the start of a thread pool."""
    monkeypatch.setattr(numpy_solver, "processors", lambda: 4)
    monkeypatch.setattr(thread_map, "ThreadPoolExecutor", lambda *args, **kwargs: pytest.fail("a thread pool"))
    kernels = NumpyKernels()
    kernels.load(problem)
    assert kernels.updates(*noisy_arrays(kernels, problem, rng), MINI_BATCH).norm > 0
