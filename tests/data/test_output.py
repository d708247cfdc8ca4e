"""Output: atomic files, run folders, and products of reconstructions."""

import errno
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from ptycho_backend.data.output import atomic_path, prepare_run_folder
from ptycho_backend.data.product import Product, read_product, write_product
from ptycho_backend.errors import DataError, OutputError

root = pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")


def write_half(target, error):
    with atomic_path(target) as unfinished:
        unfinished.write_text("half")
        raise error


def test_file_gets_its_name_after_completion(tmp_path):
    target = tmp_path / "a.txt"
    with atomic_path(target) as unfinished:
        unfinished.write_text("new")
        assert unfinished.parent == tmp_path
        assert not target.exists()
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_open_readers_keep_the_old_file(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with target.open() as reader:
        with atomic_path(target) as unfinished:
            unfinished.write_text("new")
        assert reader.read() == "old"


def test_failure_keeps_only_the_old_file(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_half(target, KeyboardInterrupt())
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_replacing_can_be_forbidden(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(OutputError, match=r"a\.txt', which exists"), atomic_path(target, overwrite=False):
        pytest.fail("nothing may be written")
    assert target.read_text() == "old"


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("x")
    with atomic_path(tmp_path / "atomic") as unfinished:
        unfinished.write_text("x")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_message_contains_the_reason_of_the_system(tmp_path, code):
    with pytest.raises(OutputError) as raised:
        write_half(tmp_path / "a.txt", OSError(code, os.strerror(code)))
    assert os.strerror(code) in raised.value.received
    assert str(tmp_path / "a.txt") in raised.value.received
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="No such file"), atomic_path(tmp_path / "no" / "a.txt") as unfinished:
        unfinished.write_text("x")


def test_a_block_that_writes_nothing_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match=r"a\.txt"), atomic_path(tmp_path / "a.txt"):
        pass


def test_a_folder_is_not_replaced_by_a_file(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(OutputError), atomic_path(tmp_path / "a") as unfinished:
        unfinished.write_text("x")
    assert [item.name for item in tmp_path.iterdir()] == ["a"]


@root
def test_a_folder_without_permission_is_an_output_error(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(OutputError, match="Permission denied"):
        prepare_run_folder(tmp_path / "locked")


def test_errors_of_the_caller_pass_unchanged(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "a.txt"):
        _ = 1 / 0


def test_a_run_folder_is_created_with_its_parents(tmp_path):
    folder = prepare_run_folder(str(tmp_path / "runs" / "star"))
    assert folder == tmp_path / "runs" / "star"
    assert list(folder.iterdir()) == []
    assert prepare_run_folder(folder) == folder, "an empty folder may be used"


def test_folder_with_files_needs_overwrite(tmp_path):
    (tmp_path / "result.h5").write_text("precious")
    with pytest.raises(OutputError, match="which holds 1 item"):
        prepare_run_folder(tmp_path)
    assert prepare_run_folder(tmp_path, overwrite=True) == tmp_path
    assert (tmp_path / "result.h5").read_text() == "precious"


@pytest.mark.parametrize("inside", ["", "run"])
def test_a_file_is_no_run_folder(tmp_path, inside):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(OutputError, match=r"a\.txt"):
        prepare_run_folder(tmp_path / "a.txt" / inside)


def reconstruction(path, **changes):
    values = {
        "obj": (np.arange(20.0).reshape(4, 5) + 1j).astype(np.complex64),
        "obj_origin_px": (-3.0, 7.5),
        "positions_px": np.array([[-1.0, 9.0], [0.25, 10.5], [-2.0, 8.0]]),
        "probe": np.ones((2, 4, 4), dtype=np.complex64),
        "pixel_size_m": (2e-9, 3e-9),
        "indexes": np.arange(3),
        "costs": np.array([1.0, 0.5]),
        "attributes": {"seed": 7, "config": {"nepochs": 2}, "versions": {"numpy": "2"}, "data_hash": "ab"},
    }
    coverage = np.arange(20.0, dtype=np.float32).reshape(4, 5)
    return write_product(path, Product(**values | changes), {"coverage": coverage})


@pytest.mark.parametrize("pixel_size_m", [(2e-9, 3e-9), None])
def test_a_reconstruction_reads_back_in_scan_coordinates(tmp_path, pixel_size_m):
    product = read_product(reconstruction(tmp_path / "a.h5", pixel_size_m=pixel_size_m))
    np.testing.assert_allclose(product.positions_px, [[-1.0, 9.0], [0.25, 10.5], [-2.0, 8.0]], atol=1e-9)
    assert product.obj_origin_px == (-3.0, 7.5)
    assert product.pixel_size_m == pixel_size_m
    np.testing.assert_array_equal(product.obj, np.arange(20.0).reshape(4, 5) + 1j)
    np.testing.assert_array_equal(product.costs, [1.0, 0.5])
    assert product.attributes["config"] == {"nepochs": 2}
    assert product.attributes["seed"] == 7


def test_product_file_contains_coverage_and_origin(tmp_path):
    with h5py.File(reconstruction(tmp_path / "a.h5")) as file:
        np.testing.assert_array_equal(file["ptychopinn/coverage"][()], np.arange(20.0).reshape(4, 5))
        assert file["ptychopinn/origin_px"][()].tolist() == [-3.0, 7.5]


def test_unknown_pixel_size_is_written_as_one_metre(tmp_path):
    with h5py.File(reconstruction(tmp_path / "a.h5", pixel_size_m=None)) as file:
        attrs = file["object"].attrs
        assert attrs["pixel_height_m"] == attrs["pixel_width_m"] == 1.0
        row = (file["probe_position_y_m"][1] - attrs["center_y_m"]) / attrs["pixel_height_m"] + (4 - 1) / 2
        assert row == pytest.approx(0.25 + 3.0 - 0.5)  # of the window's middle


def test_attributes_without_json_form_are_refused(tmp_path):
    with pytest.raises(DataError, match="field 'attributes'"):
        reconstruction(tmp_path / "a.h5", attributes={"model": object()})
    assert list(tmp_path.iterdir()) == []


FULL_DISK = """
import resource, sys
import numpy as np
from ptycho_backend.data.product import Product, write_product
from ptycho_backend.errors import OutputError
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
result = Product(np.zeros((1, 2)), np.ones((8, 8)), np.ones((300, 300), complex), (0.0, 0.0), None, np.zeros(1, int),
                 np.zeros(0))
try:
    write_product(sys.argv[1], result, {"coverage": np.ones((300, 300))})
except OutputError as error:
    sys.exit(0 if "File too large" in str(error) else str(error))
sys.exit("nothing was raised")
"""


def test_full_disk_during_hdf5_writing_is_an_output_error(tmp_path):
    pytest.importorskip("resource", reason="needs a limit of the file size")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "a.h5")], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
