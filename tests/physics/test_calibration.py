"""The scale between counts and the network's units (physics 4)."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_backend.config import ModelConfig
from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import DataError
from ptycho_backend.physics.calibration import (
    calibrate,
    disc,
    mean_energy,
    prepare_probe,
    probe_hash,
    probe_weight,
)
from ptycho_backend.physics.forward import expected_counts
from ptycho_backend.physics.propagation import far_field
from ptycho_backend.testing.strategies import complex_noise

N = 32
MODEL = ModelConfig(N=N)


def scan_of(patterns, probe=None, **fields) -> Scan:
    rng = np.random.default_rng(3)
    probe = complex_noise(rng, 1, N, N) if probe is None else probe
    return Scan(patterns=patterns, positions_px=np.arange(2.0 * len(patterns)).reshape(-1, 2), probe=probe, **fields)


@pytest.fixture
def counts(rng):
    return rng.integers(0, 250, size=(6, N, N))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int32", "float32", ">u2", "int64"])
def test_scale_is_independent_of_the_storage_type(counts, dtype):
    expected = np.sqrt((N / 2) ** 2 / (counts.astype(np.float64).sum() / 6))
    calibration = calibrate(scan_of(counts.astype(dtype), measurement="counts"), MODEL)
    assert calibration.rms_input_scale == pytest.approx(expected, rel=1e-12)
    assert calibration.photons_per_pattern == pytest.approx(counts.sum() / 6)
    assert calibration.photon_scale == 1.0


def test_bright_pixels_do_not_overflow():
    bright = np.full((2, N, N), 65535, dtype=np.uint16)
    assert mean_energy(scan_of(bright, measurement="counts")) == 65535.0 * N * N
    huge = np.full((2, N, N), 2**32 - 1, dtype=np.uint32)
    assert mean_energy(scan_of(huge, measurement="counts")) == (2.0**32 - 1) * N * N


def test_amplitudes_give_the_same_scale_as_their_counts(counts):
    by_counts = calibrate(scan_of(counts, measurement="counts"), MODEL)
    by_amplitude = calibrate(scan_of(np.sqrt(counts), measurement="amplitude"), MODEL)
    assert by_amplitude.rms_input_scale == pytest.approx(by_counts.rms_input_scale, rel=1e-12)


def test_unit_object_reproduces_the_measured_energy(counts):
    scan = scan_of(counts, probe=complex_noise(np.random.default_rng(0), 3, N, N))
    calibration = calibrate(scan, MODEL)
    predicted = expected_counts(np.ones((N, N)), calibration.probe, 1 / calibration.rms_input_scale**2)
    assert predicted.sum() == pytest.approx(counts.sum() / 6, rel=1e-6)
    assert (np.abs(calibration.probe) ** 2).sum() == pytest.approx((N / 2) ** 2, rel=1e-6)
    assert calibration.N == N


def test_bad_pixels_count_in_neither_data_nor_probe(rng):
    # Patterns of a unit object; masked pixels are hot.
    probe = complex_noise(rng, 2, N, N)
    counts = 7.0 * (np.abs(far_field(probe)) ** 2).sum(axis=0)[None].repeat(3, axis=0)
    mask = rng.random((N, N)) < 0.6
    complete = calibrate(scan_of(counts, probe, measurement="counts"), MODEL)
    masked = calibrate(scan_of(np.where(mask, counts, 1e6), probe, mask=mask, measurement="counts"), MODEL)
    assert masked.rms_input_scale == pytest.approx(complete.rms_input_scale, rel=1e-5)


def test_nphotons_gives_amplitudes_a_unit(counts):
    amplitude = scan_of(0.01 * np.sqrt(counts), measurement="amplitude")
    calibration = calibrate(amplitude, MODEL, nphotons=5e6)
    assert calibration.photons_per_pattern == pytest.approx(5e6)
    assert calibration.photon_scale * mean_energy(amplitude) == pytest.approx(5e6)


def test_nphotons_has_no_effect_on_counts_and_warns(counts, caplog):
    calibration = calibrate(scan_of(counts, measurement="counts"), MODEL, nphotons=5e6)
    assert calibration.photons_per_pattern == pytest.approx(counts.sum() / 6)
    assert "nphotons has no effect" in caplog.text


def test_scan_without_photons_is_refused():
    mask = np.ones((N, N), bool)
    mask[4, 4] = False
    patterns = np.zeros((2, N, N), np.uint16)
    patterns[:, 4, 4] = 9
    with pytest.raises(DataError, match="contains photons"):
        calibrate(scan_of(patterns, mask=mask, measurement="counts"), MODEL)


def test_probe_is_masked_before_it_is_scaled(counts, rng):
    probe = complex_noise(rng, 2, N, N)
    calibration = calibrate(scan_of(counts, probe), ModelConfig(N=N, probe_mask=True))
    inside = disc(N, N / 4)
    np.testing.assert_array_equal(calibration.probe[:, ~inside], 0)
    assert (np.abs(calibration.probe) ** 2).sum() == pytest.approx((N / 2) ** 2, rel=1e-6)
    scale = calibration.probe[:, inside] / probe[:, inside]
    np.testing.assert_allclose(scale, scale[0, 0], rtol=1e-5)


def test_disc_is_centred_on_the_middle_pixel():
    inside = disc(8, 2.0)
    assert np.argwhere(inside).mean(axis=0).tolist() == [4.0, 4.0]
    assert inside.sum() == 13
    assert inside[4, 6]
    assert not inside[4, 7]


def test_refined_probe_replaces_the_guess_and_keeps_its_hash(counts, rng):
    scan = scan_of(counts)
    refined = complex_noise(rng, 1, N, N)
    calibration = calibrate(scan, MODEL, probe=refined)
    np.testing.assert_allclose(calibration.probe, prepare_probe(refined, probe_mask=False))
    assert calibration.probe_guess_sha256 == probe_hash(scan.probe)


def test_probe_hash_depends_on_the_values_only(rng):
    probe = complex_noise(rng, 1, N, N).astype(np.complex64)
    assert probe_hash(probe) == probe_hash(np.asfortranarray(probe.astype(np.complex128)))
    other = probe.copy()
    other[0, 3, 3] *= 1.000001
    assert probe_hash(other) != probe_hash(probe)


def test_probe_weight_is_the_summed_intensity_of_all_modes(rng):
    probe = np.zeros((2, 4, 4), complex)
    probe[0, 1, 2], probe[1, 1, 2], probe[1, 3, 3] = 3.0, 4.0j, 1.0
    expected = np.full((4, 4), 1e-3)
    expected[1, 2], expected[3, 3] = 1.001, 1 / 25 + 1e-3
    np.testing.assert_allclose(probe_weight(probe), expected)
