"""Data model: accepted fields, conversions and errors."""

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import DataError, ShapeError

N = 4


def scan(**fields):
    rng = np.random.default_rng(0)
    defaults = {
        "patterns": rng.integers(0, 50, (3, N, N)).astype(np.uint16),
        "positions_px": np.array([[0.0, 5.0], [1.5, 6.0], [2.0, 9.25]]),
        "probe": np.ones((N, N), dtype=np.complex64),
        "source": "run42.npz",
    }
    return Scan(**defaults | fields)


@pytest.mark.parametrize("shape", [(N, N), (1, N, N), (N, N, 1)])
def test_one_mode_probes_become_a_stack_of_one(shape):
    values = np.arange(N * N, dtype=np.float64) + 1j
    assert scan(probe=values.reshape(shape)).probe.dtype == np.complex64
    np.testing.assert_array_equal(scan(probe=values.reshape(shape)).probe[0], values.reshape(N, N))


def test_all_modes_are_stored():
    assert scan(probe=np.ones((5, N, N))).probe.shape == (5, N, N)


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<u4", ">u4", "<i4", ">i4", "<i2", ">f4", "<f8"])
def test_counts_are_exact_native_float32_for_every_detector_dtype(dtype):
    patterns = np.full((3, N, N), 250).astype(dtype)
    result = scan(patterns=patterns)
    assert result.measurement == "counts"
    assert result.patterns.dtype == np.dtype(dtype), "patterns keep the dtype of their source"
    counts, amplitude = result.counts(), result.amplitude()
    assert counts.dtype == amplitude.dtype == np.dtype("=f4")
    assert counts.dtype.isnative
    np.testing.assert_array_equal(counts, 250.0)
    np.testing.assert_allclose(amplitude, 250.0**0.5, rtol=1e-6)


def test_amplitude_is_squared_as_float():
    result = scan(patterns=np.full((3, N, N), 300.5, dtype=np.float16), measurement="amplitude")
    np.testing.assert_allclose(result.counts(), 300.5**2, rtol=1e-6)  # 90300 overflows float16
    np.testing.assert_array_equal(result.amplitude(), np.float32(300.5))


@pytest.mark.parametrize(
    ("patterns", "domain"),
    [
        (np.full((3, N, N), 7, dtype=np.int32), "counts"),
        (np.full((3, N, N), 7.0), "counts"),
        (np.full((3, N, N), 7.5), "amplitude"),
        (np.concatenate([np.full((700, N, N), 7.0), np.full((1, N, N), 0.25)]), "amplitude"),
    ],
)
def test_undeclared_domain_is_inferred_and_logged(patterns, domain, caplog):
    caplog.set_level(logging.INFO)
    positions = np.zeros((len(patterns), 2))
    assert scan(patterns=patterns, positions_px=positions).measurement == domain
    assert f"'run42.npz' declares no measurement domain: read as {domain}" in caplog.text


def test_declared_counts_with_fractions_are_logged(caplog):
    caplog.set_level(logging.INFO)
    assert scan(patterns=np.full((3, N, N), 0.3), measurement="counts").measurement == "counts"
    assert "fractions" in caplog.text


def test_declared_amplitude_may_be_whole_numbers():
    assert scan(patterns=np.full((3, N, N), 2.0), measurement="amplitude").measurement == "amplitude"


def test_normalised_amplitudes_declared_as_counts_are_refused():
    with pytest.raises(DataError, match=r"0\.8 per pattern, field 'patterns' of 'run42\.npz'"):
        scan(patterns=np.full((3, N, N), 0.05), measurement="counts")


def test_counts_may_be_concentrated_in_one_late_pattern():
    patterns = np.zeros((600, N, N))
    patterns[-1, 0, 0] = 600.0
    assert scan(patterns=patterns, positions_px=np.zeros((600, 2)), measurement="counts").N == N


def test_subsets_are_not_checked_again():
    patterns = np.zeros((3, N, N))
    patterns[0] = 10.5
    dark = scan(patterns=patterns, measurement="counts").subset(np.array([2, 1]))
    assert dark.measurement == "counts"
    np.testing.assert_array_equal(dark.positions_px, [[2.0, 9.25], [1.5, 6.0]])
    assert dark.patterns.sum() == 0
    with pytest.raises(DataError, match="at least one pattern"):
        dark.subset(slice(0, 0))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"patterns": np.ones((N, N))}, "patterns"),
        ({"patterns": np.ones((3, N, N + 1))}, "patterns"),
        ({"patterns": np.ones((0, N, N)), "positions_px": np.ones((0, 2))}, "patterns"),
        ({"patterns": np.ones((3, N, N), dtype=complex)}, "patterns"),
        ({"patterns": np.full((3, N, N), -1)}, "patterns"),
        ({"patterns": np.full((3, N, N), np.nan)}, "patterns"),
        ({"patterns": np.full((3, N, N), np.inf)}, "patterns"),
        ({"patterns": np.ones((3, N, N), dtype=int), "measurement": "amplitude"}, "patterns"),
        ({"positions_px": np.ones((3, 3))}, "positions"),
        ({"positions_px": np.ones((2, 2))}, "positions"),
        ({"positions_px": np.ones((4, 2))}, "positions"),
        ({"positions_px": np.full((3, 2), np.nan)}, "positions_px"),
        ({"probe": np.ones((N + 1, N + 1))}, "probe"),
        ({"probe": np.zeros((N, N))}, "probe"),
        ({"probe": np.full((N, N), np.inf)}, "probe"),
        ({"mask": np.ones((N, N + 1), dtype=bool)}, "mask"),
        ({"mask": np.zeros((N, N), dtype=bool)}, "mask"),
        ({"measurement": "intensity"}, "measurement"),
        ({"obj": np.ones((2, 8, 8))}, "obj"),
        ({"obj": np.full((8, 8), np.nan)}, "obj"),
    ],
)
def test_errors_name_source_and_field(fields, field):
    with pytest.raises(DataError) as raised:
        scan(**fields)
    assert "'run42.npz'" in str(raised.value)
    assert field in raised.value.received
    assert raised.value.expected
    assert raised.value.fix


def test_error_locates_a_bad_value():
    patterns = np.ones((600, N, N), dtype=np.float32)
    patterns[571, 2, 3] = -4.0
    with pytest.raises(DataError, match=r"-4\.0 at pattern 571, pixel \(2, 3\)"):
        scan(patterns=patterns, positions_px=np.zeros((600, 2)))


@given(change=st.sampled_from(["patterns", "positions_px", "probe", "mask", "measurement"]))
def test_hash_depends_on_every_field(change):
    changed = {
        "patterns": np.full((3, N, N), 8.0),
        "positions_px": np.zeros((3, 2)),
        "probe": np.full((N, N), 2j),
        "mask": np.eye(N, dtype=bool),
        "measurement": "amplitude",
    }
    base = {"patterns": np.full((3, N, N), 9.0)}
    assert scan(**base).data_hash() == scan(**base).data_hash()
    assert scan(**base | {change: changed[change]}).data_hash() != scan(**base).data_hash()


def test_a_memory_mapped_scan_equals_the_one_in_memory(tmp_path):
    patterns = np.arange(3 * N * N, dtype=np.uint16).reshape(3, N, N)
    patterns.tofile(tmp_path / "p.raw")
    mapped = np.memmap(tmp_path / "p.raw", dtype=np.uint16, mode="r", shape=(3, N, N))
    assert isinstance(scan(patterns=mapped).patterns, np.memmap)
    assert scan(patterns=mapped).data_hash() == scan(patterns=patterns).data_hash()


def test_shape_errors_are_data_errors_and_value_errors():
    with pytest.raises(ShapeError) as raised:
        scan(probe=np.ones((2, 2)))
    assert isinstance(raised.value, DataError)
    assert isinstance(raised.value, ValueError)
