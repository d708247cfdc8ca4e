"""Odd frames: none in good scans, and those that cannot belong to a scan (spec: data 10)."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ptycho_backend as pb
from ptycho_backend.data.odd_frames import odd_frames, usable
from ptycho_backend.errors import DataError
from ptycho_backend.simulation.simulate import expected_counts

N = 64


@pytest.fixture(scope="module")
def scan():
    """Return the scan of the blank-frame case."""
    return pb.simulate_scan(N=N, n_positions=144, seed=11, photons_per_pattern=1e5)


def with_patterns(scan, patterns, **fields):
    return dataclasses.replace(scan, patterns=patterns, **fields)


@given(
    seed=st.integers(0, 1000),
    exponent=st.floats(4, 7),
    object_name=st.sampled_from(["photographs", "textures", "lines", "siemens"]),
    scan_name=st.sampled_from(["raster", "spiral", "random"]),
    flicker=st.sampled_from([0.0, 0.5]),
)
def test_good_scans_have_no_odd_frames(seed, exponent, object_name, scan_name, flicker):
    scan = pb.simulate_scan(
        N=N,
        n_positions=100,
        seed=seed,
        photons_per_pattern=10.0**exponent,
        object_name=object_name,
        scan_name=scan_name,
    )
    rng = np.random.default_rng(seed)
    flux = rng.uniform(1 - flicker, 1 + flicker, (100, 1, 1)) / (1 + flicker)
    found = odd_frames(with_patterns(scan, rng.binomial(np.asarray(scan.patterns).astype(np.int64), flux)))
    assert len(found) == 0, found.summary()
    assert found.summary() == "no odd patterns found"


@given(seed=st.integers(0, 10**6), size=st.integers(6, 40), transmission=st.sampled_from([1.0, 0.5, 0.2]))
def test_a_strongly_scattering_part_of_the_object_is_no_fault(scan, seed, size, transmission):
    rng = np.random.default_rng(seed)
    obj = np.ones(scan.obj.shape, dtype=np.complex64)
    y, x = (int(rng.integers(32, side - 32 - size)) for side in obj.shape)
    obj[y : y + size, x : x + size] = transmission * np.exp(2j * rng.normal(size=(size, size)))
    found = odd_frames(
        with_patterns(scan, rng.poisson(expected_counts(obj, scan.obj_origin_px, scan.probe, scan.positions_px)))
    )
    assert len(found) == 0, found.summary()


def test_the_measured_star_has_no_odd_frames(star_path):
    assert len(odd_frames(pb.load_scan(star_path))) == 0


@pytest.mark.parametrize("blank", [np.arange(5, 144, 10)[:15], np.array([0]), np.array([70, 71, 72, 73])])
def test_empty_frames_are_named(scan, blank):
    patterns = scan.patterns.copy()
    patterns[blank] = 0
    found = odd_frames(with_patterns(scan, patterns))
    np.testing.assert_array_equal(found.empty, blank)
    np.testing.assert_array_equal(found.rows, blank)


@pytest.mark.parametrize("first", [3, 60])
def test_a_closed_shutter_with_background_is_empty(scan, first, rng):
    patterns = np.asarray(scan.patterns).astype(np.int64)
    rows = np.arange(first, first + 20)
    patterns[rows] = rng.poisson(0.3, (20, N, N))
    np.testing.assert_array_equal(odd_frames(with_patterns(scan, patterns)).empty, rows)


FAULTS = {
    "shuffled": lambda pattern, rng: rng.permutation(pattern.ravel()).reshape(N, N),
    "white": lambda pattern, rng: rng.poisson(pattern.mean(), (N, N)),
    "moved": lambda pattern, rng: np.roll(pattern, (9, 7), (0, 1)),
}


@given(seed=st.integers(0, 10**6), fault=st.sampled_from(sorted(FAULTS)))
def test_mad_frames_are_named_and_their_neighbours_are_not(scan, seed, fault):
    rng = np.random.default_rng(seed)
    patterns = np.asarray(scan.patterns).astype(np.int64)
    row = int(rng.integers(len(scan)))
    patterns[row] = FAULTS[fault](patterns[row], rng)
    found = odd_frames(with_patterns(scan, patterns))
    assert found.mad.tolist() == [row]
    assert len(found) == 1


@given(row=st.integers(0, 143))
def test_bright_frames_are_saturated(scan, row):
    patterns = np.asarray(scan.patterns).astype(np.uint32)
    patterns[row] *= 12
    found = odd_frames(with_patterns(scan, patterns))
    assert found.saturated.tolist() == [row]
    assert len(found) == 1


@given(row=st.integers(0, 143), value=st.sampled_from([65535, 255]))
def test_frames_with_full_counters_are_saturated(scan, row, value):
    patterns = np.asarray(scan.patterns).clip(max=200).astype(np.uint16 if value == 65535 else np.uint8)
    patterns[row, 3:8, 3:8] = value
    found = odd_frames(with_patterns(scan, patterns))
    assert found.saturated.tolist() == [row]
    assert len(found) == 1


def test_masked_pixels_do_not_matter(scan):
    patterns = np.asarray(scan.patterns).astype(np.float32)
    mask = np.ones((N, N), dtype=bool)
    mask[:9] = False
    patterns[:70, ~mask], patterns[70:, ~mask] = np.nan, 65535
    assert len(odd_frames(with_patterns(scan, patterns, mask=mask, measurement="counts"))) == 0


def test_amplitudes_without_a_unit_give_the_same_frames(scan, rng):
    patterns = np.asarray(scan.patterns).astype(np.float64)
    patterns[9], patterns[77] = 0, rng.permutation(patterns[77].ravel()).reshape(N, N)
    found = odd_frames(with_patterns(scan, 1e-3 * np.sqrt(patterns), measurement="amplitude"))
    assert (found.empty.tolist(), found.mad.tolist()) == ([9], [77])


def test_few_patterns_show_empty_frames_only(scan, rng):
    part = scan.subset(np.arange(15))
    patterns = part.patterns.copy()
    patterns[4], patterns[9] = 0, rng.permutation(patterns[9].ravel()).reshape(N, N)
    assert odd_frames(with_patterns(part, patterns)).rows.tolist() == [4]


def test_positions_may_coincide(scan):
    still = dataclasses.replace(scan, positions_px=np.zeros_like(scan.positions_px), obj=None)
    assert len(odd_frames(still)) == 0


def test_summary_names_reason_and_numbers(scan, rng):
    patterns = scan.patterns.copy()
    patterns[5:17], patterns[40] = 0, rng.permutation(patterns[40].ravel()).reshape(N, N)
    lines = odd_frames(with_patterns(scan, patterns)).summary().splitlines()
    assert lines[0].startswith("12 empty patterns (")
    assert lines[0].endswith(": 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, …")
    assert lines[1].startswith("1 mad pattern (")
    assert lines[1].endswith(": 40")


def test_the_image_without_empty_frames_is_as_good(scan):
    blank = np.arange(5, 144, 10)[:15]
    patterns = scan.patterns.copy()
    patterns[blank] = 0
    faulty = with_patterns(scan, patterns)
    left = faulty.without(odd_frames(faulty).rows)
    best = scan.subset(np.setdiff1d(np.arange(144), blank))
    quality = [pb.evaluate(pb.reconstruct(s, iterations=20, probe_iterations=0), s).phase_psnr_db for s in (left, best)]
    assert quality[0] > 25
    assert quality[0] == pytest.approx(quality[1], abs=0.01)


SHAPES = {
    "every tenth frame is empty": ("empty", np.arange(5, 144, 10)),
    "the shutter opens late": ("empty", np.arange(20)),
    "three of four frames are empty": ("empty", np.flatnonzero(np.arange(144) % 4)),
    "one mad frame": ("mad", np.array([71])),
    "a bright frame": ("saturated", np.array([30])),
    "full counters": ("saturated", np.array([0, 143])),
}


def faulty(scan, name, rng):
    """Return the scan with odd frames, and their numbers."""
    reason, rows = SHAPES[name]
    patterns = np.asarray(scan.patterns).astype(np.uint16).clip(max=65534)
    if name == "full counters":
        patterns[rows, 3:9, 3:9] = 65535
    elif reason == "saturated":
        patterns[rows] = (patterns[rows].astype(np.int64) * 12).clip(max=65534)
    else:
        patterns[rows] = 0 if reason == "empty" else rng.permutation(patterns[rows].ravel()).reshape(-1, N, N)
    return with_patterns(scan, patterns, measurement="counts"), rows


@pytest.mark.parametrize("name", SHAPES)
def test_usable_leaves_out_odd_frames(scan, name, rng):
    given_scan, rows = faulty(scan, name, rng)
    part, found = usable(given_scan)
    np.testing.assert_array_equal(found.by_reason()[SHAPES[name][0]], rows)
    left = np.setdiff1d(np.arange(144), rows)
    np.testing.assert_array_equal(part.positions_px, scan.positions_px[left])
    np.testing.assert_array_equal(part.counts(), given_scan.counts(left))


@pytest.mark.parametrize("name", ["every tenth frame is empty", "the shutter opens late", "one mad frame"])
def test_images_of_usable_frames_are_those_of_the_clean_frames(scan, name, rng):
    given_scan, rows = faulty(scan, name, rng)
    scans = usable(given_scan)[0], scan.without(rows)
    images = [pb.reconstruct(s, iterations=20, probe_iterations=0) for s in scans]
    quality = [pb.evaluate(image, s).phase_psnr_db for image, s in zip(images, scans, strict=True)]
    assert quality[1] > 25
    assert quality[0] == pytest.approx(quality[1], abs=0.01)


@given(seed=st.integers(0, 10**6), share=st.floats(0.3, 0.7))
def test_missing_light_is_flux_and_not_odd(scan, seed, share):
    rng = np.random.default_rng(seed)
    patterns = np.asarray(scan.patterns).astype(np.int64)
    rows = np.flatnonzero(rng.random(144) < 0.3)
    patterns[rows] = rng.binomial(patterns[rows], share)
    dim = with_patterns(scan, patterns)
    part, found = usable(dim)
    assert part is dim
    assert len(found) == 0


@pytest.mark.parametrize("closed", [60, 90, 120])
@pytest.mark.parametrize("background", [0.02, 1.0])
def test_a_shutter_that_is_closed_most_of_the_time(scan, closed, background, rng):
    patterns = np.asarray(scan.patterns).astype(np.int64)
    rows = np.sort(rng.permutation(144)[:closed])
    patterns[rows] = rng.poisson(background, (closed, N, N))
    part, found = usable(with_patterns(scan, patterns))
    np.testing.assert_array_equal(found.empty, rows)
    assert len(part) == 144 - closed


@pytest.mark.parametrize("transmission", [0.3, 0.1, 0.06])
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_an_opaque_part_of_the_object_is_no_fault(scan, transmission, share, rng):
    obj = scan.obj.copy()
    obj[: int(share * len(obj))] *= transmission
    counts = rng.poisson(expected_counts(obj, scan.obj_origin_px, scan.probe, scan.positions_px))
    assert usable(with_patterns(scan, counts))[1].rows.tolist() == []


@pytest.mark.parametrize("lit", [1, 14])
def test_too_few_usable_frames_are_an_error(scan, lit):
    patterns = scan.patterns.copy()
    patterns[lit:] = 0
    with pytest.raises(DataError) as caught:
        usable(with_patterns(scan, patterns))
    assert len(str(caught.value).splitlines()) == 4
    assert f"{lit} of 144 ({144 - lit} empty)" in str(caught.value)
    patterns[:15] = scan.patterns[:15]
    assert len(usable(with_patterns(scan, patterns))[0]) == 15
