"""A probe that suits the data better than its guess, and an object that suits it (physics 8.4, 8.5)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ptycho_backend.config import ModelConfig, TrainingConfig
from ptycho_backend.solver import probe_refinement, solver
from ptycho_backend.solver.epie import EpieResult, Plan, epie
from ptycho_backend.solver.object_and_probe import JointResult, joint_passes
from ptycho_backend.solver.probe_refinement import centred_like, drift_px, refine_probe, refined_calibration
from ptycho_backend.solver.scan_geometry import shifted_probe
from ptycho_backend.testing import assert_close
from ptycho_backend.testing.images import probe_distance
from ptycho_backend.testing.scans import calibration_of_scan as calibration_of
from ptycho_backend.testing.scans import small_scan as simulated
from ptycho_backend.testing.tolerances import Tolerance

N = 32
PASSES = 12


@pytest.fixture(scope="module")
def guessed():
    """Return a scan whose probe guess is a quarter too wide."""
    return simulated(probe_error=0.25)


@pytest.fixture(scope="module")
def true():
    return calibration_of(simulated()).probe


@pytest.fixture(scope="module")
def rough(guessed):
    return epie(guessed, calibration_of(guessed), Plan(PASSES), np.random.default_rng(0))


def after(scan, rough, passes=8, **options) -> JointResult:
    calibration = dataclasses.replace(calibration_of(scan), probe=rough.probe)
    return joint_passes(scan, calibration, rough.image, passes, **options)


def test_passes_over_all_patterns_correct_what_epie_leaves_in_the_probe(guessed, true, rough):
    joint = after(guessed, rough, 32)
    before = probe_distance(calibration_of(guessed).probe, true)
    assert probe_distance(joint.probe, true) < 0.75 * probe_distance(rough.probe, true) < 0.3 * before
    assert joint.errors[-1] < 0.2 * joint.errors[0]
    assert joint.probe.dtype == np.complex64


def test_with_the_true_object_and_probe_nothing_changes(true):
    # Poisson noise aside: the data are exact.
    scan = simulated(photons_per_pattern=1e9)
    solved = epie(scan, calibration_of(scan), Plan(60, update_probe=False), np.random.default_rng(0))
    joint = after(scan, solved, 4)
    assert joint.errors[-1] <= joint.errors[0] < 1e-4
    assert probe_distance(joint.probe, true) < 1e-3


def test_a_held_probe_stays(guessed, rough):
    held, moved = after(guessed, rough, 3, update_probe=False), after(guessed, rough, 3)
    np.testing.assert_array_equal(held.probe, rough.probe)
    assert held.errors[0] == moved.errors[0]
    assert held.errors[-1] > moved.errors[-1]


def test_every_mode_is_corrected():
    scan = simulated(modes=2)
    wrong = dataclasses.replace(scan, probe=scan.probe * np.array([1.0, 0.5])[:, None, None])
    rough = epie(wrong, calibration_of(wrong), Plan(PASSES, update_probe=False), np.random.default_rng(0))
    shares = [(np.abs(probe[1]) ** 2).sum() for probe in (calibration_of(scan).probe, rough.probe)]
    found = (np.abs(after(wrong, rough, 64).probe[1]) ** 2).sum()
    assert abs(found - shares[0]) < 0.65 * abs(shares[1] - shares[0])


def test_bad_pixels_say_nothing_about_the_probe(rng):
    scan = simulated(probe_error=0.25)
    bad = rng.random((N, N)) < 0.1
    spoiled = scan.patterns.copy()
    spoiled[:, bad] = 1e5
    scans = [dataclasses.replace(scan, patterns=patterns, mask=~bad) for patterns in (scan.patterns, spoiled)]
    calibration = calibration_of(scans[0])
    start = epie(scans[0], calibration, Plan(4), np.random.default_rng(0)).image
    one, other = (joint_passes(each, calibration, start, 3).probe for each in scans)
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("chunk_pixels", [N * N, 7 * N * N])
def test_chunks_do_not_change_the_probe(guessed, rough, monkeypatch, chunk_pixels):
    whole = after(guessed, rough, 3)
    monkeypatch.setattr(solver, "CHUNK_PIXELS", chunk_pixels)
    # float32 sums in another order
    np.testing.assert_allclose(after(guessed, rough, 3).probe, whole.probe, atol=1e-5 * np.abs(whole.probe).max())


def test_a_refined_probe_is_used_where_it_is_better(guessed, true):
    calibration = calibration_of(guessed)
    probe, used = refine_probe(guessed, calibration, PASSES, np.random.default_rng(0))
    assert used
    assert probe_distance(probe, true) < 0.3 * probe_distance(calibration.probe, true)


@pytest.mark.parametrize("moved_px", [(0.0, 0.0), (0.4, -0.3), (2.0, 1.5)])
def test_a_refined_probe_stays_where_its_guess_is(true, moved_px):
    assert_close(
        centred_like(shifted_probe(true, np.array(moved_px)), true),
        true,
        Tolerance(1e-3, "the Nyquist component of a disc, which a move loses"),
    )


def test_light_that_becomes_more_even_moves_no_probe(true):
    # The guess of a measured scan is brighter on one side; its refined probe fills the same outline evenly.
    lopsided = true * np.linspace(0.2, 1.8, N, dtype=np.float32)
    light = (np.abs(lopsided[0]) ** 4).sum(axis=0, dtype=np.float64)
    assert np.average(np.arange(N), weights=light) > N // 2 + 1.0
    assert np.abs(drift_px(true, lopsided)).max() < 0.5


@pytest.mark.parametrize("last", [2.0, np.nan, None])
def test_a_refinement_that_does_not_help_is_not_used(guessed, monkeypatch, last):
    calibration = calibration_of(guessed)

    def staged(scan, calibration, start, passes, update_probe, on_event):
        probe = calibration.probe * (np.nan if last is None else 1)
        return JointResult(probe, [1.0, (last or 0.5) if update_probe else 1.0])

    monkeypatch.setattr(probe_refinement, "joint_passes", staged)
    probe, used = refine_probe(guessed, calibration, 2, np.random.default_rng(0))
    assert not used
    assert probe is calibration.probe


def test_a_single_pass_refines_nothing_and_says_so(guessed):
    probe, used = refine_probe(guessed, calibration_of(guessed), 1, np.random.default_rng(0))
    assert not used
    np.testing.assert_array_equal(probe, calibration_of(guessed).probe)


def test_a_large_scan_is_refined_on_the_patterns_around_its_centre(guessed, monkeypatch):
    monkeypatch.setattr(probe_refinement, "REFINEMENT_PATTERNS", 9)
    seen = []

    def staged(part, calibration, *_):
        seen.append(part)
        return EpieResult(None, calibration.probe, [1.0])

    monkeypatch.setattr(probe_refinement, "epie", staged)
    monkeypatch.setattr(probe_refinement, "joint_passes", lambda *_: JointResult(guessed.probe, [1.0]))
    refine_probe(guessed, calibration_of(guessed), 2, np.random.default_rng(0))
    middle = (guessed.positions_px.min(axis=0) + guessed.positions_px.max(axis=0)) / 2
    distance = np.linalg.norm(guessed.positions_px - middle, axis=1)
    assert [len(part) for part in seen] == [9, 9]
    used = np.linalg.norm(seen[0].positions_px - middle, axis=1)
    np.testing.assert_allclose(np.sort(used), np.sort(distance)[:9])


def test_both_stages_are_told(guessed):
    events = []
    training = TrainingConfig(model=ModelConfig(N=N))
    _, record = refined_calibration(guessed, calibration_of(guessed), training, 4, events.append)
    told = [(event.stage, event.done, event.total) for event in events if event.done == int(event.done)]
    assert told == [*(("ePIE", n, 4) for n in range(1, 5)), *(("probe", n, 2) for n in (1, 2))]
    assert all(event.image is None for event in events)
    assert record["probe_refined"]
