"""Modes of a partially coherent probe: their start and their orthogonal form (physics 8.7)."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_backend.engines.numpy.solver import NumpyKernels
from ptycho_backend.physics.propagation import far_field
from ptycho_backend.runtime.quantities import mode_shares
from ptycho_backend.simulation.probes import make_probe
from ptycho_backend.solver.probe_modes import orthogonal_modes, started_modes
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.solver import SolverOptions, solve
from ptycho_backend.testing.scans import calibration_of_scan, small_scan

N = 24


@pytest.fixture
def modes(rng):
    """Return three modes that overlap, the brightest in the middle."""
    fields = rng.normal(size=(3, N, N)) + 1j * rng.normal(size=(3, N, N))
    fields[2] += 0.7 * fields[0]
    return fields * np.array([1.0, 2.0, 0.8])[:, None, None]


def overlaps(probe):
    """Return the matrix of the inner products of modes."""
    flat = probe.reshape(len(probe), -1).astype(complex)
    return flat.conj() @ flat.T


def test_started_modes_keep_the_light(rng):
    probe = make_probe("zone-plate", N, rng, modes=2) * 300
    started = started_modes(probe)
    assert started.dtype == np.complex64
    np.testing.assert_allclose(mode_shares(started), [0.6, 0.2, 0.2], rtol=1e-5)
    assert (np.abs(started) ** 2).sum() == pytest.approx((np.abs(probe) ** 2).sum(), rel=1e-5)


def test_started_modes_are_the_probe_and_its_moments(rng):
    """A probe off the centre: y and x are measured from the centre of its light, so no mode overlaps the first."""
    probe = np.roll(make_probe("zone-plate", N, rng, diameter_fraction=0.5), (3, -2), axis=(1, 2))
    started = started_modes(probe)
    ratio = started / np.where(np.abs(probe) > 1e-3 * np.abs(probe).max(), probe, np.nan)
    np.testing.assert_allclose(np.nanstd(ratio[0]) / np.nanmean(np.abs(ratio[0])), 0, atol=1e-5)
    slopes = np.nanmean(np.diff(ratio[1].real, axis=0)), np.nanmean(np.diff(ratio[2].real, axis=1))
    assert min(slopes) > 0
    np.testing.assert_allclose(np.nanmax(np.abs(np.diff(ratio[1], axis=1))) / slopes[0], 0, atol=1e-4)
    np.testing.assert_allclose(np.nanmax(np.abs(np.diff(ratio[2], axis=0))) / slopes[1], 0, atol=1e-4)
    matrix = overlaps(started)
    np.testing.assert_allclose(matrix[0, 1:] / matrix[0, 0].real, 0, atol=1e-5)


def test_orthogonal_modes_give_the_same_patterns(modes, rng):
    obj = rng.normal(size=(N, N)) + 1j * rng.normal(size=(N, N))
    before, after = ((np.abs(far_field(each * obj)) ** 2).sum(axis=0) for each in (modes, orthogonal_modes(modes)))
    np.testing.assert_allclose(after, before, rtol=1e-4)


def test_orthogonal_modes_do_not_overlap_and_are_sorted(modes):
    matrix = overlaps(orthogonal_modes(modes))
    light = np.diag(matrix).real
    np.testing.assert_allclose(matrix - np.diag(light), 0, atol=1e-5 * light[0])
    assert np.all(np.diff(light) < 0)


def test_orthogonal_modes_of_orthogonal_modes_are_these(rng):
    probe = make_probe("gaussian", N, rng, diameter_fraction=0.5, modes=3) * np.exp(0.7j)
    found = orthogonal_modes(probe)
    # The phase of a mode is free, except for the brightest.
    np.testing.assert_allclose(found[0], probe[0], atol=1e-5 * np.abs(probe).max())
    np.testing.assert_allclose(np.abs(found), np.abs(probe), atol=1e-5 * np.abs(probe).max())


def test_common_phase_is_that_of_the_first_mode(modes):
    product = np.vdot(modes[0], orthogonal_modes(modes)[0])
    assert product.real > 0
    assert abs(product.imag) < 1e-5 * product.real


@pytest.mark.parametrize(("smallest_share", "kept"), [(None, 2), (0.0, 3)])
def test_modes_for_noise_are_left_out(modes, smallest_share, kept):
    """The third of these has 0.5 % of the light."""
    probe = orthogonal_modes(modes)
    shares = np.array([0.7, 0.295, 0.005])
    probe = probe * np.sqrt(shares / mode_shares(probe))[:, None, None]
    mixture = np.linalg.qr(np.arange(9.0).reshape(3, 3) ** 2 + np.eye(3))[0]
    mixed = np.einsum("ij,jyx->iyx", mixture, probe)
    found = orthogonal_modes(mixed) if smallest_share is None else orthogonal_modes(mixed, smallest_share)
    assert len(found) == kept
    np.testing.assert_allclose(mode_shares(found), shares[:kept] / shares[:kept].sum(), rtol=1e-4)


def test_shares_of_the_light():
    probe = np.array([2.0, 1.0])[:, None, None] * np.ones((2, 4, 4), np.complex64)
    np.testing.assert_allclose(mode_shares(probe), [0.8, 0.2])


def test_modes_of_an_image_are_orthogonal(rng):
    """The iterations go on with the modes as they are: they give the same patterns."""
    scan = small_scan(modes=3, probe_error=0.2)
    solution = solve(Problem.of(scan, calibration_of_scan(scan)), NumpyKernels(), None, SolverOptions(6, True))
    image_probe = solution.image.experiment.probe
    matrix, mixed = overlaps(image_probe), overlaps(solution.probe)
    assert image_probe.shape == scan.probe.shape
    np.testing.assert_allclose(matrix - np.diag(np.diag(matrix)), 0, atol=1e-5 * matrix[0, 0].real)
    assert np.abs(mixed - np.diag(np.diag(mixed))).max() > 1e-3 * mixed[0, 0].real
    obj = rng.normal(size=(32, 32)) + 1j * rng.normal(size=(32, 32))
    one, other = ((np.abs(far_field(each * obj)) ** 2).sum(axis=0) for each in (image_probe, solution.probe))
    np.testing.assert_allclose(one, other, atol=1e-5 * other.max())


def test_a_given_probe_stays_as_given():
    scan = small_scan(modes=2)
    problem = Problem.of(scan, calibration_of_scan(scan))
    solution = solve(problem, NumpyKernels(), None, SolverOptions(2))
    np.testing.assert_array_equal(solution.image.experiment.probe, problem.calibration.probe)
