"""HDF5 files of ptychodus: training files, products, and the object pixels of ptychodus."""

import h5py
import numpy as np
import pytest

from ptycho_backend.data.product import Product, read_product, write_product
from ptycho_backend.data.readers import load_scan
from ptycho_backend.errors import DataError, OutputError

N = 6
Y_PX, X_PX = np.array([3.0, 4.5, 20.0, 11.25]), np.array([30.0, 9.0, 8.5, 17.0])  # middles of the windows
POSITIONS_PX = np.stack([Y_PX, X_PX], axis=1) + 0.5  # pixel N//2
PIXEL_Y_M, PIXEL_X_M = 8e-9, 5e-9
OBJECT = (np.arange(24 * 37.0).reshape(24, 37) + 1j).astype(np.complex64)
PATTERNS = np.arange(4 * N * N).reshape(4, N, N).astype(">u2")


def write(path, values, attributes=()):
    with h5py.File(path, "w") as file:
        for key, value in values.items():
            if value is not None:
                file[key] = value
        for key, name, value in attributes:
            (file[key] if key else file).attrs[name] = value
    return path


def training_file(tmp_path, **changes):
    values = {
        "patterns": PATTERNS,
        "bad_pixels": np.arange(N * N).reshape(N, N) == 8,
        "probe": np.ones((2, N, N), dtype=complex),
        "probe_position_x_px": X_PX,
        "probe_position_y_px": Y_PX,
        "object": OBJECT,
        "object_pixel_height_m": PIXEL_Y_M,
        "object_pixel_width_m": PIXEL_X_M,
        "detector_object_distance_m": 1.5,
        "photon_energy_eV": 8000.0,
    } | changes
    return write(tmp_path / "train.h5", values)


def product_file(tmp_path, **changes):
    """Return a product whose positions fall on the object pixels (Y_PX, X_PX)."""
    middle_y, middle_x = (24 - 1) / 2, (37 - 1) / 2
    values = {
        "probe_position_indexes": np.arange(4),
        "probe_position_x_m": 4e-6 + (X_PX - middle_x) * PIXEL_X_M,
        "probe_position_y_m": -7e-6 + (Y_PX - middle_y) * PIXEL_Y_M,
        "probe": np.ones((1, 2, N, N), dtype=complex),
        "object": OBJECT[None],
        "object_layer_spacing_m": np.empty(0),
        "loss_epochs": np.arange(3),
        "loss_values": np.array([3.0, 2.0, 1.5]),
    } | changes
    attributes = [
        ("", "name", "star"),
        ("", "detector_object_distance_m", 1.5),
        ("", "photon_energy_eV", 8000.0),
        ("", "exposure_time_s", 0.0),
        ("object", "center_x_m", 4e-6),
        ("object", "center_y_m", -7e-6),
        ("object", "pixel_width_m", PIXEL_X_M),
        ("object", "pixel_height_m", PIXEL_Y_M),
    ]
    return write(tmp_path / "product.h5", values, [a for a in attributes if not a[0] or values[a[0]] is not None])


def test_training_file(tmp_path):
    scan = load_scan(training_file(tmp_path))
    np.testing.assert_array_equal(scan.positions_px, POSITIONS_PX)
    assert scan.patterns.dtype == np.dtype(">u2")
    np.testing.assert_array_equal(scan.patterns, PATTERNS)
    np.testing.assert_array_equal(np.argwhere(~scan.mask), [[1, 2]])
    assert scan.probe.shape == (2, N, N)
    np.testing.assert_array_equal(scan.obj, OBJECT)
    assert scan.obj_origin_px == (0.0, 0.0)
    assert scan.pixel_size_m == (PIXEL_Y_M, PIXEL_X_M)
    assert scan.attributes == {"detector_object_distance_m": 1.5, "photon_energy_eV": 8000.0}


def test_training_file_without_optional_keys(tmp_path):
    optional = ("bad_pixels", "object", "object_pixel_height_m", "detector_object_distance_m")
    scan = load_scan(training_file(tmp_path, **dict.fromkeys(optional)))
    assert scan.mask.all()
    assert scan.obj is None
    assert scan.pixel_size_m is None


def test_gain_corrected_patterns_are_counts_by_the_format(tmp_path):
    assert load_scan(training_file(tmp_path, patterns=PATTERNS / 3)).measurement == "counts"
    declared = training_file(tmp_path, patterns=PATTERNS / 3)
    with h5py.File(declared, "a") as file:
        file.attrs["measurement"] = np.bytes_("amplitude")
    assert load_scan(declared).measurement == "amplitude"


def test_product_positions_are_object_pixels(tmp_path):
    product = read_product(product_file(tmp_path))
    np.testing.assert_allclose(product.positions_px, POSITIONS_PX, atol=1e-9)
    assert product.obj_origin_px == (0.0, 0.0)
    assert product.pixel_size_m == (PIXEL_Y_M, PIXEL_X_M)
    assert product.probe.shape == (2, N, N)
    np.testing.assert_array_equal(product.obj, OBJECT)
    np.testing.assert_array_equal(product.costs, [3.0, 2.0, 1.5])
    assert product.attributes == {"name": "star", "detector_object_distance_m": 1.5, "photon_energy_eV": 8000.0}


def test_products_of_earlier_ptychodus_releases(tmp_path):
    path = product_file(tmp_path, loss_values=None, costs=np.array([5.0]))
    with h5py.File(path, "a") as file:
        del file.attrs["photon_energy_eV"]
        file.attrs["probe_energy_eV"] = 9000.0
    assert read_product(path).costs.tolist() == [5.0]
    assert read_product(path).attributes["photon_energy_eV"] == 9000.0


def test_product_without_patterns_is_refused_with_a_fix(tmp_path):
    path = product_file(tmp_path)
    with pytest.raises(DataError, match=r"product\.h5', a ptychodus product, alone"):
        load_scan(path)
    write(tmp_path / "diffraction.h5", {"patterns": PATTERNS})
    with pytest.raises(DataError) as raised:
        load_scan(path)
    assert str(tmp_path / "diffraction.h5") in raised.value.fix


def test_product_and_patterns_are_paired_by_index(tmp_path, caplog):
    product = product_file(tmp_path, probe_position_indexes=np.array([10, 11, 12, 13]))
    patterns = write(
        tmp_path / "diffraction.h5",
        {
            "patterns": PATTERNS,
            "indexes": np.array([13, -1, 10, 99]),
            "bad_pixels": np.arange(N * N).reshape(N, N) == 8,
        },
    )
    scan = load_scan(product, patterns=patterns)
    np.testing.assert_allclose(scan.positions_px, POSITIONS_PX[[3, 0]], atol=1e-9)
    np.testing.assert_array_equal(scan.patterns, PATTERNS[[0, 2]])
    np.testing.assert_array_equal(np.argwhere(~scan.mask), [[1, 2]])
    assert "4 positions and 4 patterns, of which 2 share an index" in caplog.text
    assert "product.h5" in scan.source
    assert "diffraction.h5" in scan.source


def test_a_negative_index_never_pairs(tmp_path):
    product = product_file(tmp_path, probe_position_indexes=np.array([-1, 0, 1, 2]))
    patterns = write(tmp_path / "p.h5", {"patterns": PATTERNS, "indexes": np.array([2, 1, -1, 0])})
    np.testing.assert_array_equal(load_scan(product, patterns=patterns).patterns, PATTERNS[[0, 1, 3]])


def test_patterns_without_indexes_are_in_the_order_of_positions(tmp_path):
    patterns = write(tmp_path / "p.h5", {"patterns": PATTERNS})
    scan = load_scan(product_file(tmp_path), patterns=patterns)
    np.testing.assert_allclose(scan.positions_px, POSITIONS_PX, atol=1e-9)
    np.testing.assert_array_equal(scan.patterns, PATTERNS)


def test_files_of_different_scans_are_refused(tmp_path):
    patterns = write(tmp_path / "p.h5", {"patterns": PATTERNS, "indexes": np.arange(100, 104)})
    with pytest.raises(DataError, match=r"'probe_position_indexes' and 'indexes' of '.*p\.h5"):
        load_scan(product_file(tmp_path), patterns=patterns)
    no_patterns = write(tmp_path / "q.h5", {"data": PATTERNS})
    with pytest.raises(DataError, match=r"no 'patterns' in '.*q\.h5"):
        load_scan(product_file(tmp_path), patterns=no_patterns)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"patterns": None}, ["no 'patterns'"]),
        ({"probe": None, "probes": np.ones((N, N))}, ["rename 'probes' to 'probe'"]),
        ({"probe_position_y_px": None}, ["no 'probe_position_y_px'"]),
        ({"probe_position_y_px": np.arange(3.0)}, ["3 and 4", "probe_position_y_px"]),
        ({"patterns": np.ones((5, N, N))}, ["5 positions", "4 positions"]),
        ({"patterns": np.ones((N, N))}, ["'patterns'", "(6, 6)"]),
        ({"patterns": np.array([b"abc"])}, ["'patterns'", "dtype"]),
        ({"probe": np.ones((2, 5, 5))}, ["'probe'", "(2, 5, 5)"]),
        ({"object": np.ones((2, 9, 9))}, ["'object'", "2 layers"]),
        ({"bad_pixels": np.ones((N, N))}, ["'mask'", "no good pixel"]),
        ({"object_pixel_width_m": 0.0}, ["'object_pixel_width_m'"]),
        ({"photon_energy_eV": np.nan}, ["'photon_energy_eV'"]),
    ],
)
def test_bad_training_files_name_file_and_field(tmp_path, changes, words):
    with pytest.raises(DataError) as raised:
        load_scan(training_file(tmp_path, **changes))
    for word in ["train.h5", *words]:
        assert word in str(raised.value)


def test_group_instead_of_array_is_refused(tmp_path):
    path = training_file(tmp_path, object=None)
    with h5py.File(path, "a") as file:
        file.create_group("object")
    with pytest.raises(DataError, match=r"a group or a broken link, field 'object' of '.*train\.h5"):
        load_scan(path)


def test_type_without_numpy_equivalent_is_refused(tmp_path):
    path = training_file(tmp_path, probe_position_x_px=None)
    with h5py.File(path, "a") as file:
        space = h5py.h5s.create_simple((4,))
        h5py.h5d.create(file.id, b"probe_position_x_px", h5py.h5t.UNIX_D32LE, space)
    with pytest.raises(DataError, match=r"field 'probe_position_x_px' of '.*train\.h5"):
        load_scan(path)


def test_products_without_geometry_name_the_attribute(tmp_path):
    path = product_file(tmp_path)
    with h5py.File(path, "a") as file:
        del file["object"].attrs["center_y_m"]
    with pytest.raises(DataError, match=r"no 'center_y_m' in '.*product\.h5, attributes of '/object'"):
        read_product(path)


def result(**changes):
    values = {
        "positions_px": POSITIONS_PX,
        "probe": np.ones((2, N, N), dtype=np.complex64),
        "obj": OBJECT,
        "obj_origin_px": (-5.5, 2.0),
        "pixel_size_m": (PIXEL_Y_M, PIXEL_X_M),
        "indexes": np.array([4, 5, 6, 9]),
        "costs": np.array([2.0, 1.0]),
        "attributes": {"seed": 3, "config": {"N": 64}, "photon_energy_eV": 8000.0},
    }
    return Product(**values | changes)


@pytest.mark.parametrize("pixel_size_m", [(PIXEL_Y_M, PIXEL_X_M), None])
def test_written_product_is_read_back(tmp_path, pixel_size_m):
    back = read_product(write_product(tmp_path / "a.h5", result(pixel_size_m=pixel_size_m)))
    np.testing.assert_allclose(back.positions_px, result().positions_px, atol=1e-9)
    np.testing.assert_array_equal(back.obj, OBJECT)
    np.testing.assert_array_equal(back.indexes, [4, 5, 6, 9])
    np.testing.assert_array_equal(back.costs, [2.0, 1.0])
    assert back.obj_origin_px == (-5.5, 2.0)
    assert back.pixel_size_m == pixel_size_m
    assert back.attributes | {"seed": 3, "config": {"N": 64}, "photon_energy_eV": 8000.0} == back.attributes


def test_the_layout_of_a_written_product(tmp_path):
    with h5py.File(write_product(tmp_path / "a.h5", result(), {"coverage": np.ones((24, 37))})) as file:
        assert file["object"].shape == (1, 24, 37)
        assert file["probe"].shape == (1, 2, N, N)
        assert file["object"].dtype == file["probe"].dtype == np.complex64
        assert file["object_layer_spacing_m"].shape == (0,)
        assert file["loss_epochs"][()].tolist() == [0, 1]
        assert file.attrs["photon_energy_eV"] == 8000.0
        assert file.attrs["detector_object_distance_m"] == 0.0
        assert bool(file.attrs["far_field"])
        # ptychodus: pixel = (m - centre) / pixel + (size - 1) / 2
        attrs = file["object"].attrs
        y_px = (file["probe_position_y_m"][()] - attrs["center_y_m"]) / attrs["pixel_height_m"] + 11.5
        x_px = (file["probe_position_x_m"][()] - attrs["center_x_m"]) / attrs["pixel_width_m"] + 18.0
        np.testing.assert_allclose(y_px, Y_PX + 5.5, atol=1e-9)
        np.testing.assert_allclose(x_px, X_PX - 2.0, atol=1e-9)
        np.testing.assert_array_equal(file["ptychopinn/coverage"][()], np.ones((24, 37)))


def test_writing_a_product_needs_an_object_and_a_new_name(tmp_path):
    with pytest.raises(DataError, match=r"A product holds an object(.|\n)*a\.h5"):
        write_product(tmp_path / "a.h5", result(obj=None))
    write_product(tmp_path / "a.h5", result())
    with pytest.raises(OutputError, match=r"a\.h5', which exists"):
        write_product(tmp_path / "a.h5", result())
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]
