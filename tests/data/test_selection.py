"""Patterns and pixels of a file that make a scan: excluded rows, and bad pixels by load_scan (spec: data 3.8, 9.8)."""

import dataclasses
import math
import resource

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ptycho_backend as pb
from ptycho_backend.data import pixel_statistics
from ptycho_backend.data.detector_faults import find_bad_pixels
from ptycho_backend.data.npz import write_npz
from ptycho_backend.data.readers import load_scan
from ptycho_backend.data.selection import EXCLUDED, measured_rows
from ptycho_backend.errors import ConfigError, DataError

N = 64


@pytest.fixture(scope="module")
def clean():
    """Return the scan of the cases: 144 patterns with 1e5 photons each."""
    return pb.simulate_scan(N=N, n_positions=144, seed=11, photons_per_pattern=1e5)


def write(folder, scan, patterns, mask=None, measurement="counts"):
    """Write patterns with any content, which `Scan` might refuse, and return the path."""
    y, x = scan.positions_px.T
    bad = np.zeros(patterns.shape[1:], dtype=bool) if mask is None else ~mask
    fields = {"xcoords": x, "ycoords": y, "diff3d": patterns, "probeGuess": scan.probe, "bad_pixels": bad}
    fields |= {"objectGuess": scan.obj, "obj_origin_px": np.asarray(scan.obj_origin_px)}
    np.savez(folder / "faulty.npz", measurement=np.array(measurement), **fields)
    return folder / "faulty.npz"


def pixels(*where):
    """Return a mask, False on some pixels, rows or columns."""
    good = np.ones((N, N), dtype=bool)
    for index in where:
        good[index] = False
    return good


GAP, ROW, COLUMN = np.s_[20:22], np.s_[33], np.s_[:, 41]
FAULTS = {  # content of the bad pixels, dtype, the pixels, kinds
    "NaN in a gap": (np.nan, "f4", GAP, "saturated"),
    "-1 as a mark": (-1, "i4", GAP, "saturated"),
    "-1 as a mark in floats": (-1, "f4", GAP, "saturated"),
    "infinity": (np.inf, "f8", GAP, "saturated"),
    "65535 in two bytes": (65535, "u2", GAP, "saturated"),
    "4294967295 in four bytes": (4294967295, "u4", GAP, "saturated"),
    "4294967295 after a conversion": (4294967295, "f4", GAP, "saturated"),
    "a dead row": (0, "u2", ROW, "gap"),
    "a dead column": (0, "f4", COLUMN, "gap"),
    "a hot column": ("hot", "u4", COLUMN, "stripe"),
    "a hot pixel": ("hot", "u2", np.s_[10, 11], "hot"),
    "a pixel that counts 7": (7, "u2", np.s_[32, 36], "hot"),
    "a dead pixel": (0, "u2", np.s_[34, 38], "dead"),
}


def faulty(clean, fault):
    """Return patterns with a fault, and the mask of the good pixels."""
    value, dtype, where, _ = FAULTS[fault]
    good, patterns = pixels(where), np.asarray(clean.patterns).astype(dtype)
    hot = np.random.default_rng(5).poisson(2e4, (len(patterns), int((~good).sum())))
    patterns[:, ~good] = hot if value == "hot" else value
    return patterns, good


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_pixels_are_masked_and_named(clean, fault, tmp_path, caplog):
    patterns, good = faulty(clean, fault)
    scan = load_scan(write(tmp_path, clean, patterns))
    np.testing.assert_array_equal(scan.mask, good)
    assert len(caplog.records) == 1
    assert f"{(~good).sum()} {FAULTS[fault][3]} pixel" in caplog.text
    assert all(word in caplog.text for word in ("faulty.npz", 'bad_pixels="off"', "--bad-pixels off"))
    expected = dataclasses.replace(clean, mask=good)
    np.testing.assert_array_equal(scan.counts(), expected.counts())


@pytest.mark.parametrize("fault", ["NaN in a gap", "-1 as a mark", "65535 in two bytes", "a hot column"])
def test_a_mask_in_the_file_leaves_nothing_to_find(clean, fault, tmp_path, caplog):
    patterns, good = faulty(clean, fault)
    scan = load_scan(write(tmp_path, clean, patterns, good))
    np.testing.assert_array_equal(scan.mask, good)
    assert caplog.text == ""


@pytest.mark.parametrize("fault", ["4294967295 in four bytes", "a hot column", "a dead row", "NaN in a gap"])
def test_images_are_those_of_the_masked_detector(clean, fault, tmp_path):
    patterns, good = faulty(clean, fault)
    scan = load_scan(write(tmp_path, clean, patterns))
    scans = scan, dataclasses.replace(clean, mask=good)
    images = [pb.reconstruct(s, iterations=20, probe_iterations=0) for s in scans]
    quality = [pb.evaluate(image, clean).phase_psnr_db for image in images]
    assert quality[1] > 25
    assert quality[0] == pytest.approx(quality[1], abs=0.01)


def test_nan_in_one_frame_outside_of_the_mask_is_masked(clean, tmp_path, caplog):
    patterns, good = faulty(clean, "NaN in a gap")
    patterns[17, 5, 6] = np.nan
    scan = load_scan(write(tmp_path, clean, patterns, good))
    np.testing.assert_array_equal(scan.mask, good & pixels((5, 6)))
    assert "1 saturated pixel" in caplog.text


def test_a_frame_of_nan_is_an_error_until_it_is_excluded(clean, tmp_path, caplog):
    patterns = np.asarray(clean.patterns).astype(np.float32)
    patterns[17] = np.nan
    path = write(tmp_path, clean, patterns)
    with pytest.raises(DataError, match="at pattern 17"):
        load_scan(path)
    assert load_scan(path, exclude=[17]).mask.all()
    assert caplog.text == ""


def test_off_keeps_the_mask_of_the_file(clean, tmp_path, caplog):
    path = write(tmp_path, clean, faulty(clean, "a hot column")[0])
    assert load_scan(path, bad_pixels="off").mask.all()
    assert caplog.text == ""
    with pytest.raises(ConfigError, match="did you mean 'off'"):
        load_scan(path, bad_pixels="of")


def test_a_detector_of_bad_pixels_is_not_masked(clean, tmp_path, caplog):
    patterns = np.asarray(clean.patterns).astype(np.uint32)
    patterns[0, :, :40], patterns[1, :, 40:] = 4294967295, 4294967295
    scan = load_scan(write(tmp_path, clean, np.concatenate([patterns[:2]] * 72)))
    assert scan.mask.all()
    assert "too many pixels seem bad" in caplog.text


def test_padding_is_not_examined_and_crops_are(clean, tmp_path, caplog):
    patterns, good = faulty(clean, "a hot pixel")
    path = write(tmp_path, clean, patterns)
    padded = load_scan(path, N=N + 8)
    expected = np.zeros((N + 8, N + 8), dtype=bool)
    expected[4:-4, 4:-4] = good
    np.testing.assert_array_equal(padded.mask, expected)
    caplog.clear()
    assert load_scan(path, N=32).mask.all(), "the hot pixel is cropped"
    assert "hot" not in caplog.text


@given(
    seed=st.integers(0, 1000),
    exponent=st.floats(3, 8),
    unit=st.sampled_from([1, 50, 137.3]),
    amplitude=st.booleans(),
    probe=st.sampled_from(["disc", "zone-plate", "gaussian"]),
    diameter=st.floats(0.1, 1.0),
)
def test_detectors_with_a_gain_show_no_false_fault(seed, exponent, unit, amplitude, probe, diameter):
    names = {"probe_name": probe, "object_name": ("photographs", "textures", "lines", "siemens")[seed % 4]}
    fields = {"seed": seed, "photons_per_pattern": 10.0**exponent, "diameter_fraction": diameter, "modes": 1 + seed % 3}
    scan = pb.simulate_scan(N=48, n_positions=49, **names, **fields)
    patterns = unit * np.asarray(scan.patterns)
    patterns, domain = (np.sqrt(patterns), "amplitude") if amplitude else (patterns, "counts")
    found = find_bad_pixels(patterns, scan.mask, domain)
    assert len(found) == 0, found.summary()


def test_rare_photons_of_an_unknown_value_show_no_dead_pixels(rng):
    patterns = rng.poisson(0.05, (100, N, N)) * rng.uniform(400, 600, (100, N, N))
    patterns[:, 30:34, 30:34] += rng.poisson(500, (100, 4, 4))
    patterns[0, 0, 0] = 1.0  # read-out noise hides the value of a photon
    found = find_bad_pixels(patterns)
    assert len(found) == 0, found.summary()


@pytest.mark.parametrize("unit", [1, 50, 1e-3])
def test_dead_pixels_of_amplitudes_in_any_unit(clean, unit):
    patterns, good = faulty(clean, "a dead pixel")
    found = find_bad_pixels(unit * np.sqrt(patterns), None, "amplitude")
    np.testing.assert_array_equal(found.mask, good)


def test_a_truncated_probe_has_streaks_and_no_stripes():
    names = {"probe_name": "gaussian", "object_name": "siemens", "scan_name": "spiral", "modes": 3, "noise": False}
    for size, seed, diameter in ((16, 559, 0.6412), (48, 359, 0.96)):
        scan = pb.simulate_scan(N=size, n_positions=225, seed=seed, diameter_fraction=diameter, **names)
        assert len(find_bad_pixels(scan.patterns)) == 0


def test_large_stacks_are_sampled_and_every_pattern_is_checked_for_markers(clean, monkeypatch):
    monkeypatch.setattr(pixel_statistics, "SAMPLE_PIXELS", 40 * N**2)
    patterns, good = faulty(clean, "a hot column")
    patterns = np.concatenate([patterns] * 3)
    sample = pixel_statistics.sampled(patterns)
    assert np.shares_memory(sample, patterns)
    assert 40 <= len(sample) <= 80
    assert math.gcd(sample.strides[0] // patterns.strides[0], 30) == 1
    patterns[1, 3, 4] = 4294967295
    np.testing.assert_array_equal(find_bad_pixels(patterns).mask, good & pixels((3, 4)))


def test_a_mapped_file_is_examined_in_bounded_memory(tmp_path, rng):
    mean = np.asarray(pb.simulate_scan(N=N, n_positions=49, seed=11, noise=False).patterns).mean(axis=0)
    mean[10, 11] = 3000
    patterns = np.lib.format.open_memmap(tmp_path / "p.npy", "w+", np.uint16, (12000, N, N))
    for start in range(0, len(patterns), 1000):
        patterns[start : start + 1000] = rng.poisson(mean, (1000, N, N))
    del patterns
    mapped = np.load(tmp_path / "p.npy", mmap_mode="r", allow_pickle=False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert find_bad_pixels(mapped).hot.tolist() == [[10, 11]]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024, "float64 copies take 400 MB"


@given(rows=st.sets(st.integers(0, 143), max_size=143))
def test_excluded_patterns_are_left_out(clean, rows, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "whole.npz"
    if not path.exists():
        write_npz(clean, path)
    scan = load_scan(path, exclude=sorted(rows))
    left = np.setdiff1d(np.arange(144), sorted(rows))
    np.testing.assert_array_equal(scan.patterns, clean.patterns[left])
    np.testing.assert_array_equal(scan.positions_px, clean.positions_px[left])
    np.testing.assert_array_equal(measured_rows(len(scan), scan.attributes), left)
    assert scan.attributes.get(EXCLUDED, []) == sorted(rows)


@pytest.mark.parametrize("rows", [[144], [-1], [1.5], ["3"], np.arange(144), [True] * 144])
def test_wrong_rows_are_errors(clean, rows, tmp_path):
    path = write_npz(clean, tmp_path / "scan.npz")
    with pytest.raises(DataError) as caught:
        load_scan(path, exclude=rows)
    assert len(str(caught.value).splitlines()) == 4
    assert "scan.npz" in str(caught.value)


def test_numbers_of_an_earlier_file_are_dropped(clean, tmp_path):
    first = load_scan(write_npz(clean, tmp_path / "first.npz"), exclude=[3, 4])
    second = write_npz(first, tmp_path / "second.npz")
    assert EXCLUDED not in load_scan(second).attributes
    assert load_scan(second, exclude=[140]).attributes[EXCLUDED] == [140]
