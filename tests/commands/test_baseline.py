"""Baseline image without a network: quality, symmetries and events."""

import dataclasses

import numpy as np
import pytest

from ptycho_backend.api import evaluate
from ptycho_backend.config import InferenceConfig, ModelConfig
from ptycho_backend.physics.amplitude_constraint import REGULARISATION
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.reconstruction import Reconstruction
from ptycho_backend.simulation.simulate import expected_counts, simulate_scan
from ptycho_backend.solver.initial_estimate import CHUNK, baseline_image


def calibrated(scan):
    return calibrate(scan, ModelConfig(N=scan.N))


@pytest.fixture(scope="module")
def scan():
    return simulate_scan(N=32, n_positions=100, photons_per_pattern=1e5, seed=1)


@pytest.fixture(scope="module")
def image(scan):
    return baseline_image(scan, calibrated(scan))


def uniform(scan, amplitude):
    """Return the noise-free scan of an object of one amplitude."""
    obj = np.full(scan.obj.shape, amplitude, complex)
    patterns = expected_counts(obj, scan.obj_origin_px, scan.probe, scan.positions_px)
    return dataclasses.replace(scan, patterns=patterns, obj=obj)


@pytest.mark.parametrize("amplitude", [0.3, 1.0])
def test_uniform_object_gives_1(scan, amplitude):
    """The calibration puts the mean transmission into the scale, so 1 is exact, up to one phase."""
    flat = uniform(scan, amplitude)
    image = baseline_image(flat, calibrated(flat))
    covered = image.obj[image.coverage > 0.05 * image.coverage.max()]
    phase_removed = covered * np.exp(-1j * np.angle(covered.mean()))
    np.testing.assert_allclose(phase_removed, 1.0, atol=5e-3)


def test_image_resembles_the_object(scan, image):
    scores = evaluate(image, scan)
    assert scores.phase_psnr_db > 15.0
    assert scores.phase_correlation > 0.8
    assert 0.3 < scores.frc_half


def test_more_photons_give_better_resolution(scan, image):
    dim = simulate_scan(N=32, n_positions=100, photons_per_pattern=1e2, seed=1)
    np.testing.assert_array_equal(dim.obj, scan.obj)
    assert evaluate(baseline_image(dim, calibrated(dim)), dim).frc_half < evaluate(image, scan).frc_half - 0.1


def test_order_of_patterns(scan, image):
    order = np.random.default_rng(0).permutation(len(scan))
    mixed = scan.subset(order)
    again = baseline_image(mixed, calibrated(mixed))
    assert again.origin_px == image.origin_px
    np.testing.assert_allclose(again.coverage, image.coverage, rtol=1e-4, atol=1e-4)
    lit = image.coverage > 0.01 * image.coverage.max()
    ratio = again.obj[lit] / image.obj[lit]
    np.testing.assert_allclose(ratio / ratio.mean(), 1.0, atol=2e-3)


def test_dead_pixels(scan, image):
    mask = np.ones((32, 32), bool)
    mask[16, 16] = mask[15, 17] = False
    patterns = np.where(mask, scan.patterns, 65000).astype(scan.patterns.dtype)
    masked = dataclasses.replace(scan, patterns=patterns, mask=mask)
    scores = evaluate(baseline_image(masked, calibrated(masked)), masked)
    assert scores.phase_psnr_db > evaluate(image, scan).phase_psnr_db - 3.0


def test_progress_events_per_chunk(scan):
    events = []
    baseline_image(scan, calibrated(scan), events.append)
    first = [event for event in events if event.stage == "baseline"]
    assert [event.done for event in first] == [*range(CHUNK, len(scan), CHUNK), len(scan)]
    assert {event.total for event in first} == {len(scan)}
    assert list(dict.fromkeys(event.stage for event in events)) == ["baseline", "phase alignment", "stitching"]


def test_start_from_the_baseline_reaches_the_image_of_a_flat_start(scan):
    images = [Reconstruction(scan, calibrated(scan), start, InferenceConfig()).image() for start in ("physics", "flat")]
    images.append(baseline_image(scan, calibrated(scan)))
    *scores, baseline = (evaluate(image, scan).phase_psnr_db for image in images)
    assert min(scores) > baseline
    assert scores[0] == pytest.approx(scores[1], abs=1.0)


def test_object_is_0_outside_the_probe(scan, image):
    assert image.obj.shape == image.coverage.shape
    assert (image.obj[image.coverage == 0] == 0).all()
    assert image.coverage[0, 0] == 0
    assert REGULARISATION == 0.05
