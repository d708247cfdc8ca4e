"""The solver finds the object from all patterns at once (physics 7.7, 7.8)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import scipy.ndimage

from ptycho_backend import events as events_module
from ptycho_backend.data.image import Image
from ptycho_backend.engines.numpy import solver as numpy_solver
from ptycho_backend.engines.numpy.solver import NumpyKernels
from ptycho_backend.events import StageEvent, ignore
from ptycho_backend.physics.calibration import probe_weight
from ptycho_backend.solver import solver
from ptycho_backend.solver.coarse_correction import Correction
from ptycho_backend.solver.initial_estimate import baseline_image
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.scan_geometry import CanvasFrame, ScanGeometry, spectrum_of
from ptycho_backend.solver.solver import MiniBatches, Solution, SolverOptions, solve
from ptycho_backend.solver.stitching import central, stitch, support_half_px
from ptycho_backend.testing.images import error_of
from ptycho_backend.testing.scans import calibration_of_scan as calibration_of
from ptycho_backend.testing.scans import small_scan as simulated


@pytest.fixture(scope="module")
def scan():
    return simulated()


def blank(scan) -> Image:
    """Return an object of 1 on the canvas of a scan, covered everywhere."""
    frame = CanvasFrame.around(scan.positions_px, scan.N)
    coverage = ScanGeometry(scan).canvas()[:-1, :-1].real
    return Image(np.ones(frame.shape, np.complex64), coverage.astype(np.float32), frame.origin_px)


def solution(scan, iterations=None, start=None, on_event=ignore, **options) -> Solution:
    """Return the solution of a scan with its own calibration, from 1 everywhere or from an image."""
    problem = Problem.of(scan, options.pop("calibration", None) or calibration_of(scan))
    return solve(problem, NumpyKernels(), start, SolverOptions(iterations, **options), on_event)


def solved(scan, iterations=None, start=None, on_event=ignore, **options) -> Image:
    """Return the image of a solution."""
    return solution(scan, iterations, start, on_event, **options).image


def solved_with_events(scan, iterations=None, start=None) -> tuple[Image, list[StageEvent]]:
    """Return the image and the events of the iterations; the illumination has events of its own."""
    events: list[StageEvent] = []
    image = solved(scan, iterations, start, events.append)
    return image, [event for event in events if event.stage == "iterations"]


def test_more_iterations_lower_the_error(scan):
    errors = [error_of(solved(scan, iterations), scan) for iterations in (0, 2, 32)]
    assert errors[0] > 0.15
    assert 0.6 * errors[0] > errors[1] > 2 * errors[2]
    assert errors[2] < 0.03


def test_positions_between_pixels_count(scan):
    assert (scan.positions_px % 1 != 0).any()
    rounded = dataclasses.replace(scan, positions_px=np.rint(scan.positions_px))
    assert solution(rounded, 12).errors[-1] > 5 * solution(scan, 12).errors[-1]


def test_the_origin_of_the_start_counts(scan):
    full = solved(scan, 12)
    inner = slice(4, -4), slice(4, -4)
    start, shifted = (
        Image(full.obj[inner], full.coverage[inner], tuple(np.add(full.origin_px, (4.0 + y, 4.0 + x))))
        for y, x in ((0.0, 0.0), (3.0, -2.0))
    )
    assert solution(scan, 1, shifted).errors[0] > 10 * solution(scan, 1, start).errors[0]


def test_a_coarse_correction_lowers_the_error(scan):
    corrected, plain = (error_of(solved(scan, 4, coarse=coarse), scan) for coarse in (True, False))
    assert corrected < 0.4 * plain


def test_error_is_lower_than_with_single_patterns_at_low_dose():
    scan = simulated(photons_per_pattern=1e4)
    sequential = solved(scan, 20, batches=MiniBatches(20, np.random.default_rng(0), size=1))
    assert error_of(solved(scan, 20), scan) < 0.7 * error_of(sequential, scan)


def test_true_object_is_a_fixed_point_without_noise(scan):
    truth = solved(scan, 60)
    geometry, calibration = ScanGeometry(scan), calibration_of(scan)
    probes = geometry.shifted_probes(spectrum_of(calibration.probe), slice(None))
    waves = probes * geometry.extract_patches(geometry.canvas(truth), slice(None))
    amplitude = np.sqrt((np.abs(np.fft.fftshift(np.fft.fft2(waves, norm="ortho"), axes=(-2, -1))) ** 2).sum(axis=1))
    exact = dataclasses.replace(
        scan, patterns=(amplitude / calibration.rms_input_scale).astype(np.float32), measurement="amplitude"
    )
    found = solved(exact, 3, truth, calibration=calibration)  # scale and probe of the simulated scan
    illuminated = truth.coverage > 0.05 * truth.coverage.max()
    np.testing.assert_allclose(found.obj[illuminated], truth.obj[illuminated], atol=2e-4)


@pytest.mark.parametrize("pixels", [32**2, 5 * 32**2, 10**7])
def test_chunks_threads_and_cache_do_not_change_the_result(scan, monkeypatch, pixels):
    expected = solved(scan, 4).obj  # the last iteration follows a coarse correction
    monkeypatch.setattr(numpy_solver, "CHUNK_PIXELS", pixels)
    monkeypatch.setattr(numpy_solver, "processors", lambda: 5)
    monkeypatch.setattr(numpy_solver, "CACHE_BYTES", 0)
    np.testing.assert_array_equal(solved(scan, 4).obj, expected)


def test_bad_pixels_do_not_change_the_object(scan):
    mask = scan.mask.copy()
    mask[10:14, 3:20] = False
    broken = scan.patterns.copy()
    broken[:, ~mask] = 60000
    masked = dataclasses.replace(scan, patterns=broken, mask=mask)
    calibration = calibration_of(scan)
    found, expected, unmasked = (
        solved(each, 6, calibration=calibration) for each in (masked, dataclasses.replace(scan, mask=mask), scan)
    )
    np.testing.assert_array_equal(found.obj, expected.obj)
    assert np.abs(unmasked.obj - found.obj).max() > 1e-3


def test_modes_add_as_intensities():
    scan = simulated(modes=3)
    assert error_of(solved(scan, 24), scan) < 0.5 * error_of(solved(scan, 2), scan)


def test_image_keeps_its_canvas_and_coverage(scan):
    """Uncovered pixels stay 0, and an image on a smaller canvas is returned on that canvas."""
    full = blank(scan)
    coverage = full.coverage.copy()
    coverage[:3] = 0
    inner = slice(2, -4), slice(5, -1)
    origin = (full.origin_px[0] + 2, full.origin_px[1] + 5)
    part = Image(full.obj[inner], coverage[inner], origin)
    found = solved(scan, 2, part)
    assert (found.obj.shape, found.origin_px) == (part.obj.shape, origin)
    assert found.coverage is part.coverage
    np.testing.assert_array_equal(found.obj[0], 0)
    expected = solved(scan, 2, full).obj[inner]
    np.testing.assert_allclose(found.obj[1:], expected[1:], atol=1e-6)


def test_events_report_the_error_of_every_iteration(scan):
    _, events = solved_with_events(scan, 5)
    assert [(event.stage, event.done) for event in events] == [("iterations", done) for done in range(1, 6)]
    errors = [float(event.message.split()[-1]) for event in events]
    assert errors == sorted(errors, reverse=True)


def test_events_report_parts_of_a_long_iteration(scan, monkeypatch):
    monkeypatch.setattr(events_module, "REPORT_EVERY_S", 0.0)
    monkeypatch.setattr(numpy_solver, "CHUNK_PIXELS", 10 * scan.N**2)
    events: list[StageEvent] = []
    solved(scan, 2, on_event=events.append)
    illumination = [event.done for event in events if event.stage == "illumination"]
    assert illumination == [10, 20, 30, 36, 36]
    done = [event.done for event in events if event.stage == "iterations"]
    assert done == pytest.approx([10 / 36, 20 / 36, 30 / 36, 1, 1, 46 / 36, 56 / 36, 66 / 36, 2, 2])
    assert {(event.stage, event.total) for event in events} == {("illumination", 36), ("iterations", 2)}


def test_event_images_are_those_of_fewer_iterations(scan):
    final, events = solved_with_events(scan, 4)
    for event in events:
        np.testing.assert_array_equal(event.image().obj, solved(scan, event.done).obj)
    np.testing.assert_array_equal(events[-1].image().obj, final.obj)


def test_zero_iterations_return_the_same_image_with_the_given_experiment(scan):
    image = blank(scan)
    found = solved(scan, 0, image)
    assert found.obj is image.obj
    assert found.coverage is image.coverage
    np.testing.assert_array_equal(found.experiment.positions_px, scan.positions_px)
    np.testing.assert_array_equal(found.experiment.probe, calibration_of(scan).probe)


def test_a_converged_image_takes_the_minimum_of_iterations():
    scan = simulated(N=64, n_positions=100, object_name="photographs", photons_per_pattern=1e6)
    start = baseline_image(scan, calibration_of(scan), iterations=8)
    start = solved(scan, 64, start)
    image, events = solved_with_events(scan, start=start)
    assert [(event.done, event.total) for event in events] == [(done, 6) for done in range(1, 7)]
    np.testing.assert_array_equal(image.obj, solved(scan, 6, start).obj)


@pytest.mark.parametrize("probe", ["zone-plate", "gaussian"])
def test_iterations_continue_until_convergence(probe):
    scan = simulated(N=64, n_positions=196, object_name="photographs", photons_per_pattern=1e6, probe_name=probe)
    image, events = solved_with_events(scan)
    last = len(events)
    assert 6 < last < 64
    totals = [6] * 5 + [64] * (last - 6) + [last]
    assert [(event.done, event.total) for event in events] == list(zip(range(1, last + 1), totals, strict=True))
    assert error_of(image, scan) < 0.6 * error_of(solved(scan, 6), scan)
    assert error_of(solved(scan, 64), scan) > 0.5 * error_of(image, scan)


def test_pixels_without_illumination_do_not_count_for_convergence():
    """One pattern far away makes a canvas that is mostly dark; the relative update is the same."""
    scan = simulated(N=64, n_positions=100, probe_name="zone-plate")
    positions_px = np.concatenate([scan.positions_px, scan.positions_px[-1:] + 600.0])
    patterns = np.concatenate([scan.patterns, scan.patterns[-1:]])
    distant = dataclasses.replace(scan, patterns=patterns, positions_px=positions_px, obj=None)
    errors = solution(distant, calibration=calibration_of(scan)).errors
    assert abs(len(errors) - len(solution(scan).errors)) <= 2


def test_noise_does_not_prolong_the_iterations():
    scan = simulated(n_positions=100, photons_per_pattern=100.0)
    assert len(solved_with_events(scan)[1]) < 20


def test_only_the_last_event_reports_the_end(monkeypatch):
    monkeypatch.setattr(events_module, "REPORT_EVERY_S", 0.0)
    _, events = solved_with_events(simulated(N=64, n_positions=100, probe_name="zone-plate"))
    *others, last = events
    assert all(event.done < event.total for event in others)
    assert last.done == last.total


def test_iterations_end_without_convergence(scan, monkeypatch):
    monkeypatch.setattr(solver, "NOISE_TOLERANCE", 0.0)
    monkeypatch.setattr(solver, "UPDATE_TOLERANCE", 0.0)
    _, events = solved_with_events(scan)
    assert (events[-1].done, events[-1].total) == (64, 64)


def test_a_given_number_of_iterations_is_exact():
    scan = simulated(N=64, n_positions=16, probe_name="zone-plate")
    assert [len(solved_with_events(scan, iterations)[1]) for iterations in (1, 20)] == [1, 20]


def test_coarse_corrections_keep_the_momentum(scan, monkeypatch):
    """A global phase is a symmetry: if every coarse correction is one, the rest of the iterations is the same."""
    factor = np.exp(0.7j)

    def global_phase(_slopes, shape, *_others):
        return Correction(np.full(shape, factor, np.complex64), 1.0, 0.0)

    plain = solved(scan, 8, coarse=False)
    monkeypatch.setattr(solver, "coarse_correction", global_phase)
    monkeypatch.setattr(solver, "COARSE_RATIO", 2.0)
    found = solved(scan, 8)
    covered = plain.coverage > 0.05 * plain.coverage.max()
    np.testing.assert_allclose(found.obj[covered], factor**2 * plain.obj[covered], atol=2e-5)


def test_a_coarse_correction_that_is_not_smaller_is_the_last(scan, monkeypatch):
    calls = []

    def constant(_slopes, shape, *_others):
        calls.append(shape)
        return Correction(np.ones(shape, np.complex64), 0.01, 0.0)

    monkeypatch.setattr(solver, "coarse_correction", constant)
    solved(scan, 20)
    assert len(calls) == 2


def test_convergence_is_reported_only_after_the_last_coarse_correction(scan, monkeypatch):
    """Every object update is small enough; each correction is half of the previous one, but the fourth is as large."""
    sizes = iter([0.8, 0.4, 0.2, 0.2])

    def halved(_slopes, shape, *_others):
        return Correction(np.ones(shape, np.complex64), next(sizes), 0.0)

    monkeypatch.setattr(solver, "coarse_correction", halved)
    monkeypatch.setattr(solver, "UPDATE_TOLERANCE", 1e6)
    assert len(solution(scan).errors) == solver.COARSE_AT[3]


@pytest.mark.parametrize("probe", ["disc", "gaussian"])
def test_coverage_of_a_flat_start_is_that_of_a_stitched_image(probe):
    """Stitching shifts the weights by bilinear interpolation, and so reaches one pixel further."""
    scan = simulated(probe_name=probe)
    found = solved(scan, 1).coverage
    weight = probe_weight(calibration_of(scan).probe).astype(np.float32)
    half = support_half_px(weight)
    ones = np.ones((len(scan), 2 * half, 2 * half), np.complex64)
    frame = CanvasFrame.around(scan.positions_px, scan.N)
    stitched = stitch(ones, scan.positions_px, central(weight, half), frame).coverage
    assert found.shape == stitched.shape
    assert found.sum() == pytest.approx(stitched.sum(), rel=0.005)
    covered = stitched > 0.3 * stitched.max()
    np.testing.assert_allclose(found[covered], stitched[covered], rtol=0.04)
    assert not np.any((found > 0) & (stitched == 0))
    grown = scipy.ndimage.binary_dilation(found > 0, np.ones((3, 3)))
    assert not np.any((stitched > 0) & ~grown)


@pytest.mark.parametrize("update_probe", [False, True])
def test_error_of_an_iteration_is_that_before_its_update(scan, update_probe):
    """One iteration from an image reports the error of that image."""
    start = solved(scan, 20)
    problem, kernels = Problem.of(scan, calibration_of(scan)), NumpyKernels()
    kernels.load(problem)
    found = kernels.updates(problem.geometry.canvas(start), problem.calibration.probe)
    errors = solution(scan, 1, start, update_probe=update_probe).errors
    assert errors == [pytest.approx(found.squared_error / found.norm, rel=1e-6)]
