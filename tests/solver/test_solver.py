"""Passes over all patterns at once find the object where probes overlap (physics 7.7, 7.8)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ptycho_backend import events as events_module
from ptycho_backend.data.image import Image
from ptycho_backend.events import StageEvent
from ptycho_backend.solver import solver
from ptycho_backend.solver.epie import Plan, epie
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
    """Return an object of 1 on the canvas of a scan, seen everywhere."""
    frame = CanvasFrame.around(scan.positions_px, scan.N)
    coverage = ScanGeometry(scan).canvas()[:-1, :-1].real
    return Image(np.ones(frame.shape, np.complex64), coverage.astype(np.float32), frame.origin_px)


def passed(scan, passes, image=None, **options) -> Image:
    found = solve(scan, calibration_of(scan), image or blank(scan), passes, **options)
    lit = epie(scan, calibration_of(scan), Plan(0), np.random.default_rng(0)).image.coverage
    return dataclasses.replace(found, coverage=lit)


def test_the_object_is_found_and_more_passes_find_more_of_it(scan):
    errors = [error_of(passed(scan, passes), scan) for passes in (0, 4, 32)]
    assert errors[0] > 0.15
    assert 0.5 * errors[0] > errors[1] > 2 * errors[2]
    assert errors[2] < 0.03


def test_it_beats_epie_where_photons_are_few():
    scan = simulated(photons_per_pattern=1e4)
    sequential = epie(scan, calibration_of(scan), Plan(20, False), np.random.default_rng(0)).image
    assert error_of(passed(scan, 20), scan) < 0.7 * error_of(sequential, scan)


def test_the_true_object_stays_where_noise_is_absent(scan):
    """A fixed point: what explains every pattern is not corrected."""
    once = passed(scan, 60)
    geometry, calibration = ScanGeometry(scan), calibration_of(scan)
    state = solver.Passes(scan, calibration)
    waves = state._moved(slice(0, len(scan))) * geometry.extract_patches(geometry.canvas(once), slice(None))
    amplitude = np.sqrt((np.abs(np.fft.fftshift(np.fft.fft2(waves, norm="ortho"), axes=(-2, -1))) ** 2).sum(axis=1))
    exact = dataclasses.replace(
        scan, patterns=(amplitude / calibration.rms_input_scale).astype(np.float32), measurement="amplitude"
    )
    same = dataclasses.replace(calibration)  # of the scan before: the same scale and probe
    found = solve(exact, same, once, 3)
    lit = once.coverage > 0.05 * once.coverage.max()
    np.testing.assert_allclose(found.obj[lit], once.obj[lit], atol=2e-4)


@pytest.mark.parametrize("pixels", [32**2, 5 * 32**2, 10**7])
def test_chunks_and_threads_change_nothing(scan, monkeypatch, pixels):
    expected = passed(scan, 3).obj
    monkeypatch.setattr(solver, "CHUNK_PIXELS", pixels)
    monkeypatch.setattr(solver, "processors", lambda: 5)
    monkeypatch.setattr(solver, "CACHE_BYTES", 0)
    np.testing.assert_array_equal(passed(scan, 3).obj, expected)


def test_bad_pixels_correct_nothing(scan):
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
    assert error_of(passed(scan, 24), scan) < 0.5 * error_of(passed(scan, 2), scan)


def test_an_image_keeps_its_place_and_its_coverage(scan):
    """Unmeasured pixels stay 0, and an image on a smaller canvas is returned on that canvas."""
    whole = blank(scan)
    coverage = whole.coverage.copy()
    coverage[:3] = 0
    cut = slice(2, -4), slice(5, -1)
    origin = (whole.origin_px[0] + 2, whole.origin_px[1] + 5)
    part = Image(whole.obj[cut], coverage[cut], origin)
    found = solve(scan, calibration_of(scan), part, 2)
    assert (found.obj.shape, found.origin_px) == (part.obj.shape, origin)
    assert found.coverage is part.coverage
    np.testing.assert_array_equal(found.obj[0], 0)
    expected = solve(scan, calibration_of(scan), whole, 2).obj[cut]
    np.testing.assert_allclose(found.obj[1:], expected[1:], atol=1e-6)


def test_events_tell_the_error_of_every_pass(scan):
    events: list[StageEvent] = []
    passed(scan, 5, on_event=events.append)
    assert [(event.stage, event.done) for event in events] == [("overlap", done) for done in range(1, 6)]
    errors = [float(event.message.split()[-1]) for event in events]
    assert errors == sorted(errors, reverse=True)


def test_a_long_pass_is_told_in_parts(scan, monkeypatch):
    monkeypatch.setattr(events_module, "REPORT_EVERY_S", 0.0)
    monkeypatch.setattr(solver, "CHUNK_PIXELS", 10 * scan.N**2)
    events: list[StageEvent] = []
    passed(scan, 2, on_event=events.append)
    before = [event.done for event in events if event.stage == "illumination"]
    assert before == [10, 20, 30, 36, 36]
    done = [event.done for event in events if event.stage == "overlap"]
    assert done == pytest.approx([10 / 36, 20 / 36, 30 / 36, 1, 1, 46 / 36, 56 / 36, 66 / 36, 2, 2])
    assert {(event.stage, event.total) for event in events} == {("illumination", 36), ("overlap", 2)}


def test_the_image_of_a_pass_is_that_of_fewer_passes_and_stays_so(scan):
    events: list[StageEvent] = []
    final = passed(scan, 3, on_event=events.append)
    for event in events:
        np.testing.assert_array_equal(event.image().obj, passed(scan, event.done).obj)
    np.testing.assert_array_equal(events[-1].image().obj, final.obj)


def test_no_pass_changes_nothing(scan):
    image = blank(scan)
    assert solve(scan, calibration_of(scan), image, 0) is image


def told(scan, passes=None, image=None) -> tuple[Image, list[StageEvent]]:
    events: list[StageEvent] = []
    return passed(scan, passes, image, on_event=events.append), events


def test_sixteen_passes_are_enough_where_the_image_has_settled():
    scan = simulated(N=64, n_positions=100, object_name="photographs", photons_per_pattern=1e6)
    start = baseline_image(scan, calibration_of(scan), iterations=8)
    image, events = told(scan, image=start)
    assert [(event.done, event.total) for event in events] == [(done, 16) for done in range(1, 17)]
    np.testing.assert_array_equal(image.obj, passed(scan, 16, start).obj)


@pytest.mark.parametrize("probe", ["zone-plate", "gaussian"])
def test_passes_go_on_while_they_change_the_image(probe):
    scan = simulated(N=64, n_positions=196, object_name="photographs", photons_per_pattern=1e6, probe_name=probe)
    image, events = told(scan)
    last = len(events)
    assert 16 < last < 64
    totals = [16] * 15 + [64] * (last - 16) + [last]
    assert [(event.done, event.total) for event in events] == list(zip(range(1, last + 1), totals, strict=True))
    assert error_of(image, scan) < 0.6 * error_of(passed(scan, 16), scan)
    assert error_of(passed(scan, 64), scan) > 0.5 * error_of(image, scan)


def test_what_no_pattern_has_seen_does_not_settle_an_image():
    """One pattern far away makes a canvas that is mostly dark; what is left to correct is as much as before."""
    scan = simulated(N=64, n_positions=100, probe_name="zone-plate")
    away = np.concatenate([scan.positions_px, scan.positions_px[-1:] + 600.0])
    apart = dataclasses.replace(
        scan, patterns=np.concatenate([scan.patterns, scan.patterns[-1:]]), positions_px=away, obj=None
    )
    events: list[StageEvent] = []
    solve(apart, calibration_of(scan), blank(apart), None, events.append)
    assert abs(len(events) - len(told(scan)[1])) <= 2


def test_noise_is_not_followed():
    scan = simulated(n_positions=100, photons_per_pattern=100.0)
    assert len(told(scan)[1]) < 20


def test_nothing_is_called_done_before_it_is(monkeypatch):
    monkeypatch.setattr(events_module, "REPORT_EVERY_S", 0.0)
    _, events = told(simulated(N=64, n_positions=100, probe_name="zone-plate"))
    *before, last = [event for event in events if event.stage == "overlap"]
    assert all(event.done < event.total for event in before)
    assert last.done == last.total


def test_passes_end_where_the_image_never_settles(scan, monkeypatch):
    monkeypatch.setattr(solver.Passes, "settled", lambda *_: False)
    _, events = told(scan)
    assert (events[-1].done, events[-1].total) == (64, 64)


def test_passes_asked_for_are_kept_to():
    scan = simulated(N=64, n_positions=16, probe_name="zone-plate")
    assert [len(told(scan, passes)[1]) for passes in (1, 20)] == [1, 20]
