"""The solver finds the object from all patterns at once (physics 7.7, 7.8)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ptycho_backend import events as events_module
from ptycho_backend.data.image import Image
from ptycho_backend.events import StageEvent
from ptycho_backend.solver import solver
from ptycho_backend.solver.epie import EpieOptions, epie
from ptycho_backend.solver.initial_estimate import baseline_image
from ptycho_backend.solver.scan_geometry import CanvasFrame, ScanGeometry
from ptycho_backend.solver.solver import solve
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


def solved(scan, iterations, image=None, **options) -> Image:
    """Return the solver's image with the coverage of the probe."""
    found = solve(scan, calibration_of(scan), image or blank(scan), iterations, **options)
    coverage = epie(scan, calibration_of(scan), EpieOptions(0), np.random.default_rng(0)).image.coverage
    return dataclasses.replace(found, coverage=coverage)


def solved_with_events(scan, iterations=None, image=None) -> tuple[Image, list[StageEvent]]:
    events: list[StageEvent] = []
    return solved(scan, iterations, image, on_event=events.append), events


def test_more_iterations_lower_the_error(scan):
    errors = [error_of(solved(scan, iterations), scan) for iterations in (0, 4, 32)]
    assert errors[0] > 0.15
    assert 0.5 * errors[0] > errors[1] > 2 * errors[2]
    assert errors[2] < 0.03


def test_error_is_lower_than_with_epie_at_low_dose():
    scan = simulated(photons_per_pattern=1e4)
    sequential = epie(scan, calibration_of(scan), EpieOptions(20, False), np.random.default_rng(0)).image
    assert error_of(solved(scan, 20), scan) < 0.7 * error_of(sequential, scan)


def test_true_object_is_a_fixed_point_without_noise(scan):
    truth = solved(scan, 60)
    geometry, calibration = ScanGeometry(scan), calibration_of(scan)
    state = solver.SolverState(scan, calibration)
    waves = state._shifted_probes(slice(0, len(scan))) * geometry.extract_patches(geometry.canvas(truth), slice(None))
    amplitude = np.sqrt((np.abs(np.fft.fftshift(np.fft.fft2(waves, norm="ortho"), axes=(-2, -1))) ** 2).sum(axis=1))
    exact = dataclasses.replace(
        scan, patterns=(amplitude / calibration.rms_input_scale).astype(np.float32), measurement="amplitude"
    )
    same = dataclasses.replace(calibration)  # scale and probe of the simulated scan
    found = solve(exact, same, truth, 3)
    illuminated = truth.coverage > 0.05 * truth.coverage.max()
    np.testing.assert_allclose(found.obj[illuminated], truth.obj[illuminated], atol=2e-4)


@pytest.mark.parametrize("pixels", [32**2, 5 * 32**2, 10**7])
def test_chunks_threads_and_cache_do_not_change_the_result(scan, monkeypatch, pixels):
    expected = solved(scan, 3).obj
    monkeypatch.setattr(solver, "CHUNK_PIXELS", pixels)
    monkeypatch.setattr(solver, "processors", lambda: 5)
    monkeypatch.setattr(solver, "CACHE_BYTES", 0)
    np.testing.assert_array_equal(solved(scan, 3).obj, expected)


def test_bad_pixels_do_not_change_the_object(scan):
    mask = scan.mask.copy()
    mask[10:14, 3:20] = False
    broken = scan.patterns.copy()
    broken[:, ~mask] = 60000
    masked = dataclasses.replace(scan, patterns=broken, mask=mask)
    calibration = calibration_of(scan)
    found = solve(masked, calibration, blank(scan), 6)
    expected = solve(dataclasses.replace(scan, mask=mask), calibration, blank(scan), 6)
    np.testing.assert_array_equal(found.obj, expected.obj)
    assert np.abs(solve(scan, calibration, blank(scan), 6).obj - found.obj).max() > 1e-3


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
    found = solve(scan, calibration_of(scan), part, 2)
    assert (found.obj.shape, found.origin_px) == (part.obj.shape, origin)
    assert found.coverage is part.coverage
    np.testing.assert_array_equal(found.obj[0], 0)
    expected = solve(scan, calibration_of(scan), full, 2).obj[inner]
    np.testing.assert_allclose(found.obj[1:], expected[1:], atol=1e-6)


def test_events_report_the_error_of_every_iteration(scan):
    events: list[StageEvent] = []
    solved(scan, 5, on_event=events.append)
    assert [(event.stage, event.done) for event in events] == [("iterations", done) for done in range(1, 6)]
    errors = [float(event.message.split()[-1]) for event in events]
    assert errors == sorted(errors, reverse=True)


def test_events_report_parts_of_a_long_iteration(scan, monkeypatch):
    monkeypatch.setattr(events_module, "REPORT_EVERY_S", 0.0)
    monkeypatch.setattr(solver, "CHUNK_PIXELS", 10 * scan.N**2)
    events: list[StageEvent] = []
    solved(scan, 2, on_event=events.append)
    illumination = [event.done for event in events if event.stage == "illumination"]
    assert illumination == [10, 20, 30, 36, 36]
    done = [event.done for event in events if event.stage == "iterations"]
    assert done == pytest.approx([10 / 36, 20 / 36, 30 / 36, 1, 1, 46 / 36, 56 / 36, 66 / 36, 2, 2])
    assert {(event.stage, event.total) for event in events} == {("illumination", 36), ("iterations", 2)}


def test_event_images_are_those_of_fewer_iterations(scan):
    events: list[StageEvent] = []
    final = solved(scan, 3, on_event=events.append)
    for event in events:
        np.testing.assert_array_equal(event.image().obj, solved(scan, event.done).obj)
    np.testing.assert_array_equal(events[-1].image().obj, final.obj)


def test_zero_iterations_return_the_same_image(scan):
    image = blank(scan)
    assert solve(scan, calibration_of(scan), image, 0) is image


def test_a_converged_image_takes_the_minimum_of_iterations():
    scan = simulated(N=64, n_positions=100, object_name="photographs", photons_per_pattern=1e6)
    start = baseline_image(scan, calibration_of(scan), iterations=8)
    image, events = solved_with_events(scan, image=start)
    assert [(event.done, event.total) for event in events] == [(done, 16) for done in range(1, 17)]
    np.testing.assert_array_equal(image.obj, solved(scan, 16, start).obj)


@pytest.mark.parametrize("probe", ["zone-plate", "gaussian"])
def test_iterations_continue_until_convergence(probe):
    scan = simulated(N=64, n_positions=196, object_name="photographs", photons_per_pattern=1e6, probe_name=probe)
    image, events = solved_with_events(scan)
    last = len(events)
    assert 16 < last < 64
    totals = [16] * 15 + [64] * (last - 16) + [last]
    assert [(event.done, event.total) for event in events] == list(zip(range(1, last + 1), totals, strict=True))
    assert error_of(image, scan) < 0.6 * error_of(solved(scan, 16), scan)
    assert error_of(solved(scan, 64), scan) > 0.5 * error_of(image, scan)


def test_pixels_without_illumination_do_not_count_for_convergence():
    """One pattern far away makes a canvas that is mostly dark; the relative update is the same."""
    scan = simulated(N=64, n_positions=100, probe_name="zone-plate")
    positions_px = np.concatenate([scan.positions_px, scan.positions_px[-1:] + 600.0])
    patterns = np.concatenate([scan.patterns, scan.patterns[-1:]])
    distant = dataclasses.replace(scan, patterns=patterns, positions_px=positions_px, obj=None)
    events: list[StageEvent] = []
    solve(distant, calibration_of(scan), blank(distant), None, events.append)
    assert abs(len(events) - len(solved_with_events(scan)[1])) <= 2


def test_noise_does_not_prolong_the_iterations():
    scan = simulated(n_positions=100, photons_per_pattern=100.0)
    assert len(solved_with_events(scan)[1]) < 20


def test_only_the_last_event_reports_the_end(monkeypatch):
    monkeypatch.setattr(events_module, "REPORT_EVERY_S", 0.0)
    _, events = solved_with_events(simulated(N=64, n_positions=100, probe_name="zone-plate"))
    *others, last = [event for event in events if event.stage == "iterations"]
    assert all(event.done < event.total for event in others)
    assert last.done == last.total


def test_iterations_end_without_convergence(scan, monkeypatch):
    monkeypatch.setattr(solver.SolverState, "converged", lambda *_: False)
    _, events = solved_with_events(scan)
    assert (events[-1].done, events[-1].total) == (64, 64)


def test_a_given_number_of_iterations_is_exact():
    scan = simulated(N=64, n_positions=16, probe_name="zone-plate")
    assert [len(solved_with_events(scan, iterations)[1]) for iterations in (1, 20)] == [1, 20]
