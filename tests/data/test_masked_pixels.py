"""Masked pixels may hold anything, and markers in every pattern are masked (spec: data 2.8, 2.9)."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ptycho_backend as pb
from ptycho_backend.data.join import join_scans
from ptycho_backend.data.npz import write_npz
from ptycho_backend.data.readers import load_scan
from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import DataError
from ptycho_backend.physics.calibration import calibrate, mean_energy

N = 16
GOOD = np.ones((N, N), dtype=bool)
GOOD[5:7] = False


def scan_of(patterns, mask=GOOD, **fields):
    y, x = np.divmod(np.arange(len(patterns)), 4)
    positions = np.stack([y, x], axis=1) * 3.0
    probe = np.exp(-np.sum((np.indices((N, N)) - N // 2) ** 2, axis=0) / 8.0)
    return Scan(patterns=patterns, positions_px=positions, probe=probe, mask=mask, source="gaps.npz", **fields)


def filled(value, dtype=np.float32, n=16):
    patterns = np.random.default_rng(0).poisson(20.0, (n, N, N)).astype(dtype)
    patterns[:, ~GOOD] = value
    return patterns


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(np.nan, "f4"), (np.inf, "f8"), (-1, "i4"), (2**32 - 1, "u4"), (2**31 - 1, ">i4"), (65535, "u2"), (1e300, "f8")],
)
@pytest.mark.parametrize("measurement", ["counts", None])
def test_masked_values_change_nothing(value, dtype, measurement):
    clean, other = (scan_of(filled(v, dtype), measurement=measurement) for v in (0, value))
    assert other.measurement == "counts"
    np.testing.assert_array_equal(other.counts(), clean.counts())
    np.testing.assert_array_equal(other.amplitude(np.array([3, 1])), clean.amplitude(np.array([3, 1])))
    assert mean_energy(other) == mean_energy(clean)
    assert other.data_hash() == clean.data_hash()


@given(seed=st.integers(0, 2**32 - 1))
def test_any_masked_bits_give_the_same_amplitudes(seed):
    bits = np.random.default_rng(seed).integers(0, 2**32, (16, N, N), dtype=np.uint32).view(np.float32)
    for measurement, values in (("amplitude", np.sqrt(filled(0))), ("counts", filled(0)), (None, filled(0))):
        scan = scan_of(np.where(GOOD, values, bits), measurement=measurement)
        clean = scan_of(values, measurement=measurement)
        np.testing.assert_array_equal(scan.counts(), clean.counts())
        assert mean_energy(scan) == mean_energy(clean)
        assert scan.data_hash() == clean.data_hash()


def test_masked_values_survive_files_crops_and_joins(tmp_path):
    scan = scan_of(filled(np.nan), measurement="counts")
    path = write_npz(scan, tmp_path / "gaps.npz")
    for N_new in (None, 12, 20):
        loaded = load_scan(path, N=N_new)
        clean = load_scan(write_npz(scan_of(filled(0), measurement="counts"), tmp_path / f"{N_new}.npz"), N=N_new)
        np.testing.assert_array_equal(loaded.counts(), clean.counts())
        assert np.isfinite(calibrate(loaded, pb.ModelConfig(N=loaded.N)).rms_input_scale)
    mask = np.ones((N, N), dtype=bool)
    mask[0] = False
    joined = join_scans([scan, scan_of(filled(7), mask=mask, measurement="counts")])
    assert np.isfinite(joined.counts()).all()
    assert not joined.counts()[:, ~GOOD].any()


@pytest.mark.parametrize("value", [np.nan, -4.0])
def test_good_pixels_are_still_checked(value):
    patterns = filled(np.nan)
    patterns[7, 2, 3] = value
    with pytest.raises(DataError, match=r"at pattern 7, pixel \(2, 3\)"):
        scan_of(patterns, measurement="counts")


def test_light_on_masked_pixels_alone_is_no_light():
    patterns = np.zeros((16, N, N), np.uint16)
    patterns[:, ~GOOD] = 900
    with pytest.raises(DataError, match="contains photons"):
        scan_of(patterns, measurement="counts")


@pytest.mark.parametrize(
    ("value", "dtype"), [(2**32 - 1, "u4"), (np.nan, "f4"), (-1, "i4"), (65535, ">u2"), (2.0**32, "f4")]
)
def test_markers_in_every_pattern_are_masked_and_named(value, dtype, caplog):
    scan = scan_of(filled(value, dtype), mask=None, measurement="counts")
    np.testing.assert_array_equal(scan.mask, GOOD)
    assert "'gaps.npz': 32 good pixels hold a marker" in caplog.text
    assert "at (y, x) = (5, 0)" in caplog.text


def test_a_full_counter_in_some_patterns_stays(caplog):
    patterns = filled(20, np.uint16)
    patterns[:15, 8, 8] = 65535
    assert scan_of(patterns, mask=None).mask.all()
    assert caplog.text == ""


@pytest.mark.parametrize("rows", [[3], [0, 15, 0], np.arange(15)])
def test_scan_without_some_patterns(rows):
    scan = scan_of(filled(np.nan), measurement="counts")
    left = np.setdiff1d(np.arange(16), rows)
    np.testing.assert_array_equal(scan.without(np.array(rows)).positions_px, scan.positions_px[left])
    np.testing.assert_array_equal(scan.without(np.array(rows)).counts(), scan.counts(left))


def test_scan_without_nothing_or_everything():
    scan = scan_of(filled(0), measurement="counts")
    assert scan.without(np.zeros(0, int)) is scan
    for rows, message in (([16], "received"), ([-1], "received"), (np.arange(16), "at least one pattern")):
        with pytest.raises(DataError, match="(?i)" + message):
            scan.without(np.array(rows))


@pytest.mark.parametrize(
    ("value", "dtype", "given"),
    [(np.nan, "f4", True), (-1, "i4", True), (2**32 - 1, "u4", True), (2**32 - 1, "u4", False), (np.nan, "f4", False)],
)
def test_gaps_with_markers_reconstruct_like_empty_gaps(value, dtype, given):
    true = pb.simulate_scan(N=32, n_positions=49, seed=11, photons_per_pattern=1e5)
    good = np.ones((32, 32), dtype=bool)
    good[10:12] = False
    images = []
    for content in (0, value):
        patterns = np.asarray(true.patterns).astype(dtype)
        patterns[:, ~good] = content
        mask = good if given or content == 0 else None
        scan = dataclasses.replace(true, patterns=patterns, mask=mask, measurement="counts")
        images.append(pb.reconstruct(scan, iterations=5, probe_iterations=0))
    assert np.isfinite(images[1].obj).all()
    np.testing.assert_array_equal(images[1].obj, images[0].obj)
