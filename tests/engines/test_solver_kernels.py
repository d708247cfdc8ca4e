"""Solver kernels of every engine: they refuse arrays of another problem, and a dark pattern has no effect."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ptycho_backend.engines.numpy.solver import NumpyKernels
from ptycho_backend.errors import ShapeError
from ptycho_backend.physics import updates as oracle
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
    found, expected = kernels.updates(*arrays, True), oracle.updates(obj, probe, patterns)
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
    found = kernels.updates(*arrays, True)
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
