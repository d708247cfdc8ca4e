"""Search for a probe from the patterns alone or beside a wrong guess (physics 8.4, 8.6)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ptycho_backend.data.scan import Scan
from ptycho_backend.simulation.probes import edge, focused, radius
from ptycho_backend.simulation.simulate import expected_counts, simulate_scan
from ptycho_backend.solver import unknown_probe
from ptycho_backend.solver.probe_refinement import centred_like, refine_probe
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.unknown_probe import Candidate, Trial, search_probe, vertex
from ptycho_backend.testing.images import scaled_distance
from ptycho_backend.testing.scans import calibration_of_scan, small_scan

N = 32
CORNER = (N // 2, N // 2)


def defocused(magnification, astigmatism=(0.0, 0.0)):
    """Return a scan with a beam behind its focus, or before it; astigmatism is a fraction of the defocus."""
    scan = small_scan(n_positions=100, step_px=2.5, object_name="textures")
    y, x = np.indices((N, N)) - N // 2
    phase = np.pi * magnification / N * (astigmatism[0] * (x**2 - y**2) + astigmatism[1] * 2 * x * y)
    probe = focused(edge(N / 4 - radius(N), 1.0) * np.exp(1j * phase), magnification)[None]
    counts = expected_counts(scan.obj, scan.obj_origin_px, probe, scan.positions_px)
    factor = np.sqrt(1e6 / counts.sum(axis=(1, 2)).mean())
    patterns = np.random.default_rng(0).poisson(counts * factor**2).astype(np.uint32)
    return dataclasses.replace(scan, patterns=patterns, probe=(probe * factor).astype(np.complex64))


def disc_like(probe):
    """Return a disc with the light of a probe."""
    disc = edge(0.2 * N - radius(N), 1.5)
    return (disc[None] * np.linalg.norm(probe) / np.linalg.norm(disc)).astype(np.complex64)


def masked(scan, name):
    """Return a scan with a beam stop on its arm, or with the gaps between modules; bad pixels hold anything."""
    mask, c = np.ones((N, N), dtype=bool), N // 2
    if name == "stop":
        mask[c - 2 : c + 3, c - 2 : c + 3] = mask[c, :c] = False
    if name == "gaps":
        mask[c + 3 : c + 5] = mask[:, c - 4 : c - 2] = False
    return dataclasses.replace(scan, mask=mask, patterns=np.where(mask, scan.patterns, 10**6))


def found_from(scan, guess_of, search=search_probe):
    """Return the distance of the found probe from the true one, for a guess made of the true one."""
    calibration = calibration_of_scan(scan)
    block = Problem.of(scan, dataclasses.replace(calibration, probe=guess_of(calibration.probe)))
    return scaled_distance(centred_like(search(block), calibration.probe), calibration.probe)


MASKED = [(0.7, "stop"), (-0.7, "gaps")]
SLOW = [(0.7, "gaps"), (-0.7, "stop"), *((each, mask) for each in (0.45, -0.45) for mask in ("none", "stop", "gaps"))]


@pytest.mark.parametrize(
    ("magnification", "mask"), [*MASKED, *(pytest.param(*each, marks=pytest.mark.slow) for each in SLOW)]
)
def test_a_defocused_spot_is_found_from_a_disc(magnification, mask):
    """A disc itself ends far away: 0.93, 0.56 and 0.11."""
    assert found_from(masked(defocused(magnification), mask), disc_like) < 0.05


@pytest.mark.parametrize("astigmatism", [(0.3, 0.0), pytest.param((0.0, -0.3), marks=pytest.mark.slow)])
def test_astigmatism_is_found(astigmatism, monkeypatch):
    scan = defocused(0.7, astigmatism)
    found = found_from(scan, disc_like)
    monkeypatch.setattr(unknown_probe, "ASTIGMATISM", 0.0)
    assert found < 0.03 < 0.09 < found_from(scan, disc_like)


@pytest.mark.parametrize("shift", [CORNER, pytest.param((10, -9), marks=pytest.mark.slow)])
def test_a_guess_anywhere_in_its_array_is_moved_to_the_middle(monkeypatch, shift):
    """No spot of the grid helps here: the moved guess alone explains the patterns."""
    monkeypatch.setattr(unknown_probe, "GRID", (0.0,))
    scan = defocused(-0.7)
    assert found_from(scan, lambda probe: np.roll(probe, shift, axis=(1, 2))) < 0.03
    assert found_from(scan, disc_like) > 0.3


def test_a_true_guess_stays():
    """It is compared with all spots, and no finer spot follows."""
    events = []
    distance = found_from(defocused(0.7), lambda probe: probe, lambda block: search_probe(block, events.append))
    assert distance < 0.02
    assert len(events) == 1 + len(unknown_probe.GRID) + 5


def test_trials_are_reported_and_repeatable():
    """A guess in the corner is tried in the middle too."""
    events, scan, distances = [], defocused(0.7), []
    for shift in ((0, 0), CORNER):
        events.clear()
        distances.append(
            found_from(
                scan,
                lambda probe, shift=shift: np.roll(disc_like(probe), shift, axis=(1, 2)),
                lambda block: search_probe(block, events.append),
            )
        )
    assert distances[0] == distances[1] < 0.03
    assert [event.done for event in events] == list(range(1, len(events) + 1))
    assert len(events) == unknown_probe.TRIALS
    assert {(event.stage, event.total) for event in events} == {("probe search", unknown_probe.TRIALS)}


def test_a_trial_goes_on_where_it_stopped():
    scan = defocused(0.7)
    problem = Problem.of(scan, calibration_of_scan(scan))
    trial = Trial(problem, Candidate(problem.calibration.probe))
    second = trial.advance(2)
    probe = trial.probe
    assert trial.advance(4) == trial.errors[3] < second
    assert trial.advance(2) == second == trial.errors[1]
    assert len(trial.errors) == 4
    assert not np.array_equal(trial.probe, probe)


@pytest.mark.parametrize(
    ("magnification", "shift"), [(0.7, (0, 0)), (-0.7, (0, 0)), (0.7, CORNER)], ids=["behind", "before", "corner"]
)
def test_held_out_patterns_are_explained_as_by_the_true_probe(magnification, shift):
    scan = defocused(magnification)
    true = calibration_of_scan(scan)
    wrong = dataclasses.replace(true, probe=np.roll(disc_like(true.probe), shift, axis=(1, 2)))
    expected, found = (refine_probe(scan, each, 20) for each in (true, wrong))
    assert found.used
    assert found.probe.shape == (1, N, N)
    assert found.over_noise < 1.15 * expected.over_noise < 2


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([(s - 0.6) ** 2 for s in (-1, 0, 1)], 0.6),
        ([3 + 2 * (s + 0.3) ** 2 for s in (-1, 0, 1)], -0.3),
        ([(s - 9) ** 2 for s in (-1, 0, 1)], 1.5),  # not far outside
        ([-((s - 0.1) ** 2) for s in (-1, 0, 1)], -1.0),  # no minimum: to the lower side
        ([2, 2, 2], 0.0),
    ],
)
def test_vertex_of_a_parabola(errors, expected):
    assert vertex(*errors) == pytest.approx(expected)


def test_a_ring_that_is_found_without_a_guess_stands_in_the_middle():
    """Its correlation with the spot that was made from the patterns is largest on the ring, not in its middle."""
    ring = {"probe_name": "zone-plate", "diameter_fraction": 0.5}
    true = simulate_scan(N=48, n_positions=120, seed=3, photons_per_pattern=1e6, **ring)
    scan = Scan(patterns=true.patterns, positions_px=true.positions_px, measurement="counts")
    found = refine_probe(scan, calibration_of_scan(scan), 20)
    light = (np.abs(found.probe) ** 2).sum(axis=0)
    y, x = np.indices(light.shape) - 24
    assert found.used
    assert np.hypot((y * light).sum(), (x * light).sum()) < light.sum()  # within a pixel
