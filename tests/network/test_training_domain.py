"""Training domain of a network and conditions of scans (metrics 8.7)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ptycho_backend.config import ModelConfig, to_dict
from ptycho_backend.network.training_domain import (
    SCAN_CONDITIONS,
    Conditions,
    mean_step_px,
    outside,
    probe_diameter_px,
    scan_conditions,
    training_domain_of,
)
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.pretraining.recipe import PretrainingConfig, nominal_calibration
from ptycho_backend.pretraining.training_set import Recipe, draw_scan
from ptycho_backend.simulation.positions import SCANS, make_positions
from ptycho_backend.simulation.probes import make_probe
from ptycho_backend.simulation.simulate import simulate_scan


def measured(scan, photons=None):
    calibration = calibrate(scan, ModelConfig(N=scan.N))
    return scan_conditions(scan, calibration.probe, photons or calibration.photons_per_pattern)


@pytest.mark.parametrize("name", ["disc", "gaussian"])
@pytest.mark.parametrize("fraction", [0.15, 0.35])
def test_the_probe_diameter_equals_that_of_the_simulation(name, fraction):
    probe = make_probe(name, 128, np.random.default_rng(0), fraction)
    assert probe_diameter_px(7.0 * probe) == pytest.approx(fraction * 128, rel=0.05)


@pytest.mark.parametrize("name", SCANS)
def test_the_mean_step_equals_that_of_the_simulation(name):
    assert mean_step_px(make_positions(name, 400, 5.0, np.random.default_rng(0))) == pytest.approx(5.0, rel=0.06)


def test_steps_of_the_smallest_scans():
    assert mean_step_px(np.zeros((1, 2))) == 0.0
    assert mean_step_px(np.array([[0.0, 0.0], [3.0, 4.0]])) == 5.0
    assert mean_step_px(np.stack([np.arange(11.0), 2 * np.arange(11.0)], axis=1)) == pytest.approx(np.sqrt(5))


def test_scans_of_the_recipe_lie_inside_the_training_domain():
    domain = training_domain_of({"pretraining": to_dict(PretrainingConfig())}, nominal_calibration())
    recipe = Recipe(sizes={"32": 0.5, "64": 0.5}, probes={"disc": 0.6, "gaussian": 0.2, "speckle": 0.2})
    for seed in range(25):
        scan = draw_scan(dataclasses.replace(recipe, pixels=16 * 64**2), np.random.default_rng(seed))
        assert outside(measured(scan), domain) == []


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"photons": (10.0, 10.0)}, "photons"),
        ({"photons": (1e10, 1e10)}, "photons"),
        ({"probe_size": (0.8, 0.8)}, "diameter of the probe over N"),
        ({"probe_size": (0.03, 0.03)}, "diameter of the probe over N"),
        ({"step": (0.9, 0.9)}, "step"),
        ({"size_px": (512.0, 512.0)}, "side"),
    ],
)
def test_conditions_outside_the_recipe_are_reported(fields, word):
    domain = training_domain_of({"pretraining": to_dict(PretrainingConfig())}, nominal_calibration())
    usual = Conditions((64.0, 64.0), (1e5, 1e5), (0.3, 0.3), (0.2, 0.2))
    assert outside(usual, domain) == []
    (description,) = outside(dataclasses.replace(usual, **fields), domain)
    assert word in description


def test_training_on_one_scan_covers_similar_scans():
    scan = simulate_scan(N=64, n_positions=64, photons_per_pattern=1e5)
    calibration = calibrate(scan, ModelConfig(N=64))
    domain = training_domain_of({SCAN_CONDITIONS: measured(scan).to_dict()}, calibration)
    assert outside(measured(scan), domain) == []
    for fields, word in (
        ({"photons_per_pattern": 2e6}, "photons"),
        ({"diameter_fraction": 0.2, "step_px": 5.0}, "diameter"),
        ({"step_px": 16.0}, "step"),
        ({"N": 160}, "side"),
    ):
        (description,) = outside(
            measured(simulate_scan(**{"N": 64, "n_positions": 64, "photons_per_pattern": 1e5, **fields})), domain
        )
        assert word in description


def test_without_stored_conditions_the_calibration_gives_the_domain():
    scan = simulate_scan(N=32, n_positions=16)
    calibration = calibrate(scan, ModelConfig(N=32))
    domain = training_domain_of({}, calibration)
    assert domain.step is None
    assert outside(measured(scan), domain) == []
    assert len(outside(measured(scan, photons=1e3), domain)) == 1
