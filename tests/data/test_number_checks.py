"""Numbers of a scan that no measurement has: object pixels, origins, and values beyond float32."""

import numpy as np
import pytest

import ptycho_backend as pb
from ptycho_backend.errors import DataError

BASE = pb.simulate_scan(N=32, n_positions=9, seed=3)
COUNTS = BASE.patterns.astype(np.float64)
FIELDS = {"patterns": BASE.patterns, "positions_px": BASE.positions_px, "probe": BASE.probe}


def refused(field, **fields):
    with pytest.raises(DataError) as caught:  # a warning of NumPy would be an error too
        pb.Scan(**(FIELDS | fields))
    assert f"field '{field}'" in str(caught.value)


PIXELS = [
    (0.0, 0.0),
    (-1e-9, 1e-9),
    (1e-9, np.nan),
    (np.inf, 1e-9),
    (1e-9,),
    1e-9,
    ("a", "b"),
    ([1], [1, 2]),
    (1e300, 1),
]


@pytest.mark.parametrize("pixel", PIXELS, ids=str)
def test_an_object_pixel_is_a_pair_of_lengths(pixel):
    refused("pixel_size_m", pixel_size_m=pixel)


@pytest.mark.parametrize("pixel", [(0.0, 0.0), (-1e-9, 1e-9), (np.nan, 1e-9), (1e-9, np.inf)])
def test_an_object_pixel_of_a_file_is_checked(pixel, tmp_path):
    pb.write_npz(BASE, tmp_path / "good.npz")
    np.savez(tmp_path / "odd.npz", **(dict(np.load(tmp_path / "good.npz")) | {"pixel_size_m": np.array(pixel)}))
    with pytest.raises(DataError, match="field 'pixel_size_m'"):
        pb.load_scan(tmp_path / "odd.npz")


@pytest.mark.parametrize("origin", [(np.nan, 0.0), (0.0, np.inf), (1.0,), "text", (None, 1), (1j, 0)], ids=str)
def test_an_origin_is_a_pair_of_numbers(origin):
    refused("obj_origin_px", obj_origin_px=origin)


def test_good_pairs_become_floats():
    scan = pb.Scan(**FIELDS, pixel_size_m=np.array([1e-9, 2e-9]), obj_origin_px=(-3, 4))
    assert (scan.pixel_size_m, scan.obj_origin_px) == ((1e-9, 2e-9), (-3.0, 4.0))


@pytest.mark.parametrize("largest", [1e200, 1e308, 1e31])
def test_counts_beyond_float32(largest):
    refused("patterns", patterns=COUNTS / COUNTS.max() * largest)


@pytest.mark.parametrize("largest", [1e-150, 1e-44, 1e16, 1e150])
def test_amplitudes_beyond_float32(largest):
    amplitude = np.sqrt(COUNTS)
    refused("patterns", patterns=amplitude / amplitude.max() * largest, measurement="amplitude")


@pytest.mark.parametrize("largest", [1e-10, 1.0, 1e10])
def test_amplitudes_in_any_usual_unit_are_read(largest):
    amplitude = np.sqrt(COUNTS) / np.sqrt(COUNTS).max() * largest
    assert pb.Scan(**(FIELDS | {"patterns": amplitude}), measurement="amplitude").N == 32


def test_a_masked_pixel_may_hold_anything():
    patterns, mask = COUNTS.copy(), np.ones((32, 32), bool)
    patterns[:, 3, 3], mask[3, 3] = 1e300, False
    assert not pb.Scan(**(FIELDS | {"patterns": patterns}), mask=mask).mask[3, 3]


@pytest.mark.parametrize("value", [1e300, np.nan, -np.inf])
def test_probes_and_objects_beyond_float32(value):
    probe, obj = BASE.probe.astype(np.complex128), BASE.obj.astype(np.complex128)
    probe[0, 3, 3] = obj[3, 3] = value
    refused("probe", probe=probe)
    refused("obj", obj=obj)


def test_a_probe_that_is_0_in_float32():
    refused("probe", probe=np.full((1, 32, 32), 1e-60))


@pytest.mark.parametrize("key", ["patterns", "positions_px"])
@pytest.mark.parametrize(
    "value", ["text", [[1, 2], [3]], [None, 1], object(), {}], ids=["text", "ragged", "none", "object", "empty"]
)
def test_values_that_are_no_numbers(key, value):
    with pytest.raises(DataError, match=key):
        pb.Scan(**(FIELDS | {key: value}))
