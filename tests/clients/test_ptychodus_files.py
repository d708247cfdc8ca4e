"""Exchange of files with ptychodus in both directions (data 3.2 to 3.4)."""

from __future__ import annotations

import numpy as np
import pytest

import ptycho_backend as pb
from ptycho_backend.data.product import Product, read_product, write_product

pytestmark = pytest.mark.client

N = 32
POSITIONS_PX = np.array([[16.0, 40.5], [22.25, 17.0], [30.0, 25.0]])
MIDDLES_PX = POSITIONS_PX - 0.5
ORIGIN_PX = (-3.0, 2.0)


@pytest.fixture
def written(tmp_path, rng):
    """Return a product of this package, and the product that ptychodus reads from its file."""
    from ptychodus.api.io import load_product

    product = Product(
        positions_px=POSITIONS_PX,
        probe=rng.normal(size=(2, N, N)) + 1j,
        obj=rng.normal(size=(50, 70)) + 1j,
        obj_origin_px=ORIGIN_PX,
        pixel_size_m=(2e-8, 1e-8),
        indexes=np.arange(3),
        costs=np.array([2.0, 1.0]),
    )
    return product, load_product(write_product(tmp_path / "ours.h5", product))


def test_ptychodus_reads_products(written):
    ours, theirs = written
    geometry = theirs.object_.get_geometry()
    found = (
        getattr(geometry, f"map_probe_positions_to_object_{axis}_px")(theirs.probe_positions) for axis in ("y", "x")
    )
    np.testing.assert_allclose(np.stack(list(found), axis=1), MIDDLES_PX - ORIGIN_PX, atol=1e-9)
    np.testing.assert_allclose(theirs.object_.get_layer(0), ours.obj, rtol=1e-6)
    np.testing.assert_allclose(theirs.probes.get_probe_no_opr().get_array(), ours.probe, rtol=1e-6)
    assert [loss.value for loss in theirs.losses] == [2.0, 1.0]


def test_products_and_training_files_of_ptychodus(written, tmp_path, rng):
    from ptychodus.api import io
    from ptychodus.api.reconstruct import ReconstructInput

    product = written[1]
    io.save_product(tmp_path / "again.h5", product)
    expected = POSITIONS_PX - ORIGIN_PX  # its files have the origin at the object
    np.testing.assert_allclose(read_product(tmp_path / "again.h5").positions_px, expected, atol=1e-9)
    counts = rng.integers(1, 9, (3, N, N)).astype(np.uint16)
    bad_pixels = np.arange(N * N).reshape(N, N) == 8
    inputs = ReconstructInput(counts, bad_pixels, product)
    io.save_training_data(tmp_path / "train.h5", inputs, inpaint_bad_pixels=False)
    io.save_ptychopinn_training_data(tmp_path / "train.npz", inputs, inpaint_bad_pixels=False)
    for name, positions in (("train.h5", expected), ("train.npz", MIDDLES_PX - ORIGIN_PX)):
        scan = pb.load_scan(tmp_path / name)
        np.testing.assert_allclose(scan.positions_px, positions, atol=1e-9)
        np.testing.assert_array_equal(scan.mask, ~bad_pixels)
        np.testing.assert_array_equal(scan.counts(), counts * scan.mask)
        assert scan.measurement == "counts"
