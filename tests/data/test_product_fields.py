"""Broken fields of a product: each is an error that names file and field, and none is read as a number."""

import h5py
import numpy as np
import pytest

from ptycho_backend.data.product import Product, read_product, write_product
from ptycho_backend.errors import DataError

N, n = 8, 5
PRODUCT = Product(
    positions_px=np.random.default_rng(0).uniform(0, 20, (n, 2)),
    probe=np.ones((1, N, N), np.complex64),
    obj=np.ones((30, 30), np.complex64),
    obj_origin_px=(0.0, 0.0),
    pixel_size_m=None,
    indexes=np.arange(n),
    costs=np.array([2.0, 1.0]),
)
NOT_UTF8 = np.bytes_(b"\xff\xfe")


@pytest.fixture
def changed(tmp_path):
    def change(key=None, value=None, attribute=None, at=None):
        path = write_product(tmp_path / "product.h5", PRODUCT)
        with h5py.File(path, "r+") as file:
            if attribute is not None:
                file[key or "/"].attrs[attribute] = value
            elif at is not None:
                file[key][at] = value
            else:
                attributes = dict(file[key].attrs)
                del file[key]
                if value is not None:
                    file[key] = value
                    if isinstance(file.get(key), h5py.Dataset):
                        file[key].attrs.update(attributes)
        return path

    return change


def refused(path, *words):
    with pytest.raises(DataError) as raised:
        read_product(path)
    for word in ("product.h5", *words):
        assert word in str(raised.value)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("probe", 1.0, ["shape ()", "field 'probe'"]),
        ("probe", np.ones(N), ["shape (8,)", "field 'probe'"]),
        ("probe", np.ones((1, 1, 1, N, N)), ["shape (1, 1, 1, 8, 8)", "field 'probe'"]),
        ("probe", np.zeros((0, 1, N, N)), ["no 'probe'"]),
        ("probe", "text", ["plain numbers", "field 'probe'"]),
        ("object", np.ones(30), ["shape (30,)", "field 'object'"]),
        ("object", np.ones((1, 1, 30, 30)), ["shape (1, 1, 30, 30)"]),
        ("object", 1.0, ["shape ()", "field 'object'"]),
        ("object", None, ["no 'object'"]),
        ("probe_position_x_m", np.ones(n) + 1j, ["real numbers", "field 'probe_position_x_m'"]),
        ("probe_position_indexes", np.arange(n - 1), ["shape (4,)", "field 'probe_position_indexes'"]),
        ("probe_position_indexes", np.arange(n) + 0.5, ["fractions", "field 'probe_position_indexes'"]),
        ("probe_position_indexes", np.full(n, np.nan), ["5 of 5 values are not finite"]),
        ("loss_values", np.ones(3) + 1j, ["real numbers", "field 'loss_values'"]),
        ("ptychopinn", 4, ["an HDF5 group", "field 'ptychopinn'"]),
        ("ptychopinn", h5py.SoftLink("/gone"), ["an HDF5 group", "field 'ptychopinn'"]),
        ("ptychopinn/attributes", 5, ["This field is text", "field 'attributes'"]),
        ("ptychopinn/attributes", np.array([b"{}", b"{}"]), ["This field is text", "field 'attributes'"]),
        ("ptychopinn/attributes", NOT_UTF8, ["UTF-8", "field 'attributes'"]),
        ("ptychopinn/attributes", None, ["field 'attributes'"]),
        ("ptychopinn/attributes", "[" * 100000, ["mapping in JSON", "field 'attributes'"]),
        ("ptychopinn/attributes", "[1]", ["mapping in JSON", "field 'attributes'"]),
        ("ptychopinn/origin_px", np.ones(3), ["shape (3,)", "field 'origin_px'"]),
        ("ptychopinn/origin_px", 1.0, ["shape ()", "field 'origin_px'"]),
        ("ptychopinn/origin_px", np.full(2, np.nan), ["not finite", "field 'origin_px'"]),
        ("ptychopinn/origin_px", None, ["field 'origin_px'"]),
    ],
)
def test_a_broken_dataset_is_named(changed, key, value, words):
    refused(changed(key, value), *words)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("key", "at"), [("probe_position_x_m", 3), ("probe_position_y_m", 0), ("object", (0, 3, 3))], ids=str
)
def test_values_that_are_not_finite_are_named(changed, key, at, value):
    refused(changed(key, value, at=at), "1 of", "not finite", f"field '{key}'")


@pytest.mark.parametrize(
    ("key", "attribute", "value", "words"),
    [
        ("ptychopinn", "pixel_size_known", np.array([1.0, 0.0]), ["field 'pixel_size_known'"]),
        ("ptychopinn", "pixel_size_known", "yes", ["field 'pixel_size_known'"]),
        ("ptychopinn", "pixel_size_known", NOT_UTF8, ["field 'pixel_size_known'"]),
        ("object", "center_x_m", np.nan, ["field 'center_x_m'"]),
        ("object", "center_x_m", "here", ["field 'center_x_m'"]),
        ("object", "pixel_width_m", NOT_UTF8, ["field 'pixel_width_m'"]),
        (None, "name", NOT_UTF8, ["field 'name'"]),
        (None, "name", np.ones(2), ["This field is text", "field 'name'"]),
        (None, "comments", 4.0, ["This field is text", "field 'comments'"]),
        (None, "photon_energy_eV", np.array([1.0, 2.0]), ["field 'photon_energy_eV'"]),
        (None, "photon_energy_eV", "8 keV", ["field 'photon_energy_eV'"]),
        (None, "tilt_angle_deg", h5py.Empty("f4"), ["field 'tilt_angle_deg'"]),
    ],
)
def test_a_broken_attribute_is_named(changed, key, attribute, value, words):
    refused(changed(key, value, attribute), *words)


def test_a_whole_product_is_read(changed):
    product = read_product(changed(None, "as written", attribute="comments"))
    np.testing.assert_allclose(product.positions_px, PRODUCT.positions_px)
    assert product.attributes["comments"] == "as written"
    assert product.pixel_size_m is None
    np.testing.assert_array_equal(product.indexes, np.arange(n))
