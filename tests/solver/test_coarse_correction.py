"""Coarse correction: splines are splines, and smooth errors of a whole scan disappear in one step."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_backend.config import ModelConfig
from ptycho_backend.engines.numpy.solver import NumpyKernels
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.physics.updates import PhaseSlopes
from ptycho_backend.simulation.simulate import simulate_scan
from ptycho_backend.solver.coarse_correction import Splines, coarse_correction
from ptycho_backend.solver.problem import Problem

SHAPE = (70, 90)


@pytest.fixture
def points(rng):
    return rng.uniform(0, np.asarray(SHAPE) - 1, (400, 2))


def test_weights_of_a_point_add_up_to_one_and_derivatives_to_nothing(points):
    splines = Splines(points, SHAPE, 16.0)
    np.testing.assert_allclose(splines.rows(0, 0).sum(axis=1), 1.0)
    np.testing.assert_allclose(splines.rows(1, 0).sum(axis=1), 0.0, atol=1e-12)


@pytest.mark.parametrize("along", [(1, 0), (0, 1)])
def test_derivatives_are_those_of_the_values(points, rng, along):
    knots, step = None, 1e-5
    inner = np.clip(points, 1, np.asarray(SHAPE) - 2)
    values = []
    for sign in (1, -1):
        splines = Splines(inner + sign * step * np.asarray(along), SHAPE, 16.0)
        knots = rng.normal(size=splines.rows(0, 0).shape[1]) if knots is None else knots
        values.append(splines.rows(0, 0) @ knots)
    expected = (values[0] - values[1]) / (2 * step)
    np.testing.assert_allclose(Splines(inner, SHAPE, 16.0).rows(*along) @ knots, expected, atol=1e-7)


def test_a_spline_on_the_canvas_is_that_at_its_pixels(rng):
    pixels = np.stack(np.meshgrid(np.arange(70.0), np.arange(90.0), indexing="ij"), axis=-1).reshape(-1, 2)
    splines = Splines(pixels, SHAPE, 16.0)
    knots = rng.normal(size=splines.rows(0, 0).shape[1])
    np.testing.assert_allclose(splines.on_canvas(knots).ravel(), splines.rows(0, 0) @ knots, atol=1e-12)


def test_slopes_of_a_ramp_give_the_ramp(points):
    slope = np.array([3e-3, -2e-3])
    information = np.broadcast_to(np.eye(5), (len(points), 5, 5))
    gradient = np.tile([*slope, 0, 0, 0.02], (len(points), 1))
    found = coarse_correction(PhaseSlopes(information, gradient, points), SHAPE, 64)
    phase = np.angle(found.factor[20:50, 20:70])
    assert np.diff(phase, axis=0).mean() == pytest.approx(slope[0], rel=0.01)
    assert np.diff(phase, axis=1).mean() == pytest.approx(slope[1], rel=0.01)
    assert np.log(np.abs(found.factor[20:50, 20:70])).mean() == pytest.approx(0.02, rel=0.01)


def test_patterns_with_little_information_have_little_weight(points, rng):
    """Half of the patterns are a million times weaker and have other slopes."""
    slopes = np.tile([3e-3, -2e-3, 0, 0, 0.02], (len(points), 1))
    weak = rng.random(len(points)) < 0.5
    slopes[weak] *= -1
    strength = np.where(weak, 1e-6, 1.0)
    information = strength[:, None, None] * np.eye(5)
    found = coarse_correction(PhaseSlopes(information, strength[:, None] * slopes, points), SHAPE, 64)
    phase = np.angle(found.factor[20:50, 20:70])
    assert np.diff(phase, axis=0).mean() == pytest.approx(3e-3, rel=0.01)
    assert np.diff(phase, axis=1).mean() == pytest.approx(-2e-3, rel=0.01)
    assert np.log(np.abs(found.factor[20:50, 20:70])).mean() == pytest.approx(0.02, rel=0.01)


def test_a_pattern_without_light_moves_nothing(points):
    information = np.broadcast_to(np.eye(5), (len(points), 5, 5)).copy()
    gradient = np.zeros((len(points), 5))
    information[7], gradient[7] = 0.0, 0.0
    found = coarse_correction(PhaseSlopes(information, gradient, points), SHAPE, 64)
    np.testing.assert_allclose(found.factor, 1.0, atol=1e-6)


def test_a_smooth_error_of_a_scan_goes_in_one_step():
    """The object is wrong by a slow phase: iterations alone would need hundreds."""
    scan = simulate_scan(N=32, n_positions=225, seed=3, photons_per_pattern=1e6)
    problem = Problem.of(scan, calibrate(scan, ModelConfig(N=32)))
    kernels = NumpyKernels()
    kernels.load(problem)
    canvas = problem.geometry.canvas()
    shift = np.rint(np.asarray(scan.obj_origin_px) - np.asarray(problem.geometry.frame.origin_px)).astype(int)
    y, x = np.indices(canvas.shape)
    height, width = scan.obj.shape
    canvas[shift[0] : shift[0] + height, shift[1] : shift[1] + width] = scan.obj
    slow = 0.3 * np.sin(2 * np.pi * y / canvas.shape[0]) * np.sin(2 * np.pi * x / canvas.shape[1])
    wrong = (canvas * np.exp(1j * slow)).astype(np.complex64)
    probe = problem.calibration.probe
    before = kernels.updates(wrong, probe).squared_error
    found = coarse_correction(kernels.phase_slopes(wrong, probe), canvas.shape, problem.N)
    after = kernels.updates(wrong * found.factor, probe).squared_error
    floor = kernels.updates(canvas, probe).squared_error
    assert after - floor < 0.1 * (before - floor)
    inner = (slice(20, -20), slice(20, -20))
    left = np.angle(found.factor * np.exp(1j * slow))[inner]
    # Slopes are means over a probe, which is wide compared with the error.
    assert np.std(left) < 0.2 * np.std(slow[inner])
