"""Bad pixels from the statistics of a stack: none in clean scans, all kinds in faulty ones (spec: data 9)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ptycho_backend as pb
from ptycho_backend.data.detector_faults import KINDS, find_bad_pixels

N = 64
PROBES, OBJECTS = ("disc", "zone-plate", "gaussian"), ("photographs", "textures", "lines", "siemens")


@pytest.fixture(scope="module")
def clean():
    """Return the patterns of a scan, 1e5 photons each."""
    patterns = pb.simulate_scan(N=N, n_positions=100, seed=3, photons_per_pattern=1e5).patterns
    return np.asarray(patterns).astype(np.int64)


def bright(patterns, edge=5):
    """Return a pixel away from the direct beam whose neighbours have counts in most patterns."""
    mean = patterns.mean(axis=0)
    inside = [
        (y, x)
        for y in range(edge, N - edge)
        for x in range(edge, N - edge)
        if np.hypot(y - N // 2, x - N // 2) > 6 and mean[y - 1 : y + 2, x - 1 : x + 2].min() > 1.0
    ]
    return inside[len(inside) // 3]


def coordinates(pixels):
    return [tuple(pixel) for pixel in pixels.tolist()]


@given(
    seed=st.integers(0, 1000),
    exponent=st.floats(4, 7),
    size=st.sampled_from([32, 64, 64, 128]),
    probe=st.sampled_from(PROBES),
    diameter=st.floats(0.1, 0.6),
    noise=st.booleans(),
    faults=st.sampled_from([0.0, 0.03]),
)
def test_clean_scans_have_no_bad_pixels(seed, exponent, size, probe, diameter, noise, faults):
    scan = pb.simulate_scan(
        N=size,
        n_positions=49,
        seed=seed,
        photons_per_pattern=10.0**exponent,
        probe_name=probe,
        object_name=OBJECTS[seed % len(OBJECTS)],
        diameter_fraction=diameter,
        noise=noise,
        bad_pixels=faults,
    )
    stop = np.hypot(*(np.indices((size, size)) - size // 2)) < size / 11
    for mask in (scan.mask, scan.mask & ~stop):
        found = find_bad_pixels(scan.patterns, mask, scan.measurement)
        assert len(found) == 0, found.summary()
        np.testing.assert_array_equal(found.mask, mask)
        assert found.summary() == "no bad pixels found"


def test_a_bright_rim_of_a_small_detector_is_light():
    fields = {"object_name": "textures", "scan_name": "spiral", "phase_range_rad": 0.5, "photons_per_pattern": 5.08e7}
    scan = pb.simulate_scan(N=16, n_positions=25, seed=2246, diameter_fraction=0.13845552684580, **fields)
    assert len(find_bad_pixels(scan.patterns)) == 0


@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-20, 9)])
@pytest.mark.parametrize("width", [0.4, 0.8, 3.0])
def test_the_direct_beam_is_good(shift, width, rng):
    y, x = np.indices((N, N)) - N // 2
    beam = np.exp(-((y - shift[0]) ** 2 + (x - shift[1]) ** 2) / (2 * width**2))
    flux = rng.uniform(0.5, 1.5, (64, 1, 1))
    assert len(find_bad_pixels(rng.poisson(flux * (1e6 * beam + 0.2)))) == 0


def test_the_measured_star_has_no_bad_pixels(star_path):
    scan = pb.load_scan(star_path)
    assert len(find_bad_pixels(scan.patterns, scan.mask)) == 0


@given(seed=st.integers(0, 10**6), factor=st.floats(5, 1000))
def test_hot_pixels_are_found_and_nothing_else(clean, seed, factor):
    rng = np.random.default_rng(seed)
    patterns = clean.copy()
    y, x = rng.integers(0, N, 2)
    if np.hypot(y - N // 2, x - N // 2) <= 5:
        y = 3
    around = clean.mean(axis=0)[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].max()
    patterns[:, y, x] = rng.poisson(factor * around + 5, len(clean))
    assert coordinates(find_bad_pixels(patterns).hot) == [(y, x)]
    assert (~find_bad_pixels(patterns).mask).sum() == 1


def test_two_neighbouring_hot_pixels_are_found(clean, rng):
    y, x = bright(clean)
    patterns = clean.copy()
    patterns[:, y, x : x + 2] += rng.poisson(3000, (len(clean), 2))
    assert coordinates(find_bad_pixels(patterns).hot) == [(y, x), (y, x + 1)]


def test_one_cosmic_ray_is_no_hot_pixel(clean):
    patterns = clean.copy()
    patterns[7, 3, 5] = 10**6
    assert len(find_bad_pixels(patterns)) == 0


@pytest.mark.parametrize("value", [1, 17, 5000])
def test_a_pixel_with_one_value_is_hot(clean, value):
    patterns = clean.copy()
    patterns[:, N // 2, N // 2] = value
    assert coordinates(find_bad_pixels(patterns).hot) == [(N // 2, N // 2)]


def test_equal_patterns_show_no_fault(clean):
    assert len(find_bad_pixels(np.repeat(clean[:1], 20, axis=0).clip(max=50))) == 0


def test_dead_pixels_are_found_where_neighbours_have_counts(clean):
    y, x = bright(clean)
    patterns = clean.copy()
    patterns[:, y, x] = 0
    found = find_bad_pixels(patterns)
    assert coordinates(found.dead) == [(y, x)]
    assert len(found) == 1
    dark = np.argwhere(clean.sum(axis=0) == 0)
    assert found.mask[tuple(dark.T)].all(), "dark corners are no fault"


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("axis", [1, 2])
def test_gaps_between_modules_are_found_over_the_whole_side(clean, width, axis):
    patterns = np.moveaxis(clean.copy(), axis, 1)
    patterns[:, 25 : 25 + width] = 0
    found = find_bad_pixels(np.moveaxis(patterns, 1, axis))
    expected = np.zeros((N, N), dtype=bool)
    expected[25 : 25 + width] = True
    np.testing.assert_array_equal(~found.mask, expected if axis == 1 else expected.T)
    assert len(found.gap) == width * N


@pytest.mark.parametrize("column", [0, 12, 31, 50, 63])
def test_a_bright_stripe_is_found(clean, column, rng):
    patterns = clean.copy()
    patterns[:, :, column] += rng.poisson(2e4, (len(clean), N))
    found = find_bad_pixels(patterns)
    assert coordinates(found.stripe) == [(y, column) for y in range(N)]
    assert len(found) == N


def test_an_unmasked_beam_stop_is_a_gap(clean):
    stop = np.hypot(*(np.indices((N, N)) - N // 2)) < 6
    found = find_bad_pixels(np.where(stop, 0, clean))
    np.testing.assert_array_equal(~found.mask, stop)
    assert len(found.gap) == stop.sum()


@pytest.mark.parametrize(
    ("value", "dtype", "n_patterns"),
    [
        *[(np.nan, "f4", 1), (np.inf, "f8", 1), (2**32 - 1, "u4", 1), (2**31 - 1, ">i4", 1), (2.0**32, "f4", 1)],
        *[(65535, "u2", 60), (255, "u1", 60), (-1, "i4", 60), (-1.0, "f4", 60), (65535.0, "f4", 60)],
    ],
)
def test_markers_are_saturated_pixels(clean, value, dtype, n_patterns):
    patterns = clean.clip(max=200).astype(dtype)
    patterns[:n_patterns, 10, 11] = value
    found = find_bad_pixels(patterns)
    assert (10, 11) in coordinates(found.saturated)
    assert len(found.saturated) == 1


@pytest.mark.parametrize(("value", "dtype"), [(65535, "u2"), (-1, "i4")])
def test_a_marker_in_few_patterns_is_a_count(clean, value, dtype):
    patterns = clean.astype(dtype)
    patterns[:5, N // 2, N // 2] = value
    assert len(find_bad_pixels(patterns)) == 0


def test_one_invalid_pattern_does_not_mark_the_detector(clean):
    patterns = clean.astype(np.float32)
    patterns[4] = np.nan
    assert len(find_bad_pixels(patterns)) == 0


def test_few_patterns_show_markers_only(clean):
    patterns = clean[:15].astype(np.uint32)
    patterns[:, 5, 5], patterns[:, 40, 9] = 7, 2**32 - 1
    found = find_bad_pixels(patterns)
    assert coordinates(found.saturated) == [(40, 9)]
    assert len(found) == 1


def test_amplitudes_and_maps_give_the_same_pixels(clean, tmp_path):
    patterns = clean.astype(np.float32)
    y, x = bright(clean)
    patterns[:, y, x] = 0
    patterns[:, 4, 4] = np.random.default_rng(0).poisson(20, len(clean))
    np.save(tmp_path / "p.npy", patterns)
    found = find_bad_pixels(patterns)
    assert len(found) == 2
    for same in (
        find_bad_pixels(np.load(tmp_path / "p.npy", mmap_mode="r", allow_pickle=False)),
        find_bad_pixels(np.sqrt(patterns), measurement="amplitude"),
    ):
        np.testing.assert_array_equal(same.mask, found.mask)


def test_masked_pixels_are_neither_found_nor_neighbours(clean):
    y, _ = bright(clean)
    patterns = clean.astype(np.float32)
    mask = np.ones((N, N), dtype=bool)
    mask[y : y + 2] = False
    patterns[:, ~mask] = np.nan
    found = find_bad_pixels(patterns, mask)
    assert len(found) == 0
    np.testing.assert_array_equal(found.mask, mask)


def test_summary_names_kind_number_and_place(clean):
    patterns = clean.astype(np.float32)
    patterns[:, 40:42], patterns[:, 3, 4] = np.nan, 9
    lines = find_bad_pixels(patterns).summary().splitlines()
    assert lines[0].startswith("1 hot pixel (")
    assert lines[0].endswith("at (y, x) = (3, 4)")
    assert lines[1].startswith(f"{2 * N} saturated pixels (")
    assert lines[1].endswith("(40, 0), (40, 1), (40, 2), (40, 3), (40, 4), …")
    assert all(text in "\n".join(lines) for text in (KINDS["hot"], KINDS["saturated"]))
