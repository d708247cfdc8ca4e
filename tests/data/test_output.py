"""Output: atomic files, run folders, and products of reconstructions."""

import errno
import os
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from ptycho_backend.data.hdf5_output import new_hdf5
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


class TestLeftovers:
    """Temporary files of a killed process are removed by the next one that writes the same file."""

    @staticmethod
    def left(target, pid, age_s=0.0, machine=None):
        words = unfinished_name(target).split("-")
        name = words[0].rpartition(".")[0]
        path = target.parent / f"{name}.{pid}-{machine or words[1]}-{words[2]}"
        path.write_text("half")
        os.utime(path, (time.time() - age_s,) * 2)
        return path

    def test_a_file_of_an_ended_process_is_removed(self, tmp_path):
        target = tmp_path / "a[1].txt"
        self.left(target, 2**31 - 1)
        write_text(target)
        assert list(tmp_path.iterdir()) == [target]

    def test_a_file_of_a_running_process_stays(self, tmp_path):
        other = self.left(tmp_path / "a.txt", os.getppid())
        write_text(tmp_path / "a.txt")
        assert other.is_file()

    @pytest.mark.parametrize(("age_s", "stays"), [(0.0, True), (90_000.0, False)])
    def test_a_file_of_another_machine_stays_for_a_day(self, tmp_path, age_s, stays):
        other = self.left(tmp_path / "a.txt", 2**31 - 1, age_s, machine="00000000")
        write_text(tmp_path / "a.txt")
        assert other.is_file() == stays

    @pytest.mark.parametrize(("age_s", "stays"), [(0.0, True), (90_000.0, False)])
    def test_a_file_without_a_process_stays_for_a_day(self, tmp_path, age_s, stays):
        other = tmp_path / ".a.txt.0a1b2c3d.tmp"
        other.write_text("half")
        os.utime(other, (time.time() - age_s,) * 2)
        write_text(tmp_path / "a.txt")
        assert other.is_file() == stays

    def test_files_of_other_targets_and_of_the_user_stay(self, tmp_path):
        self.left(tmp_path / "a.txt.b", 2**31 - 1)
        (tmp_path / ".a.txt.mine.tmp").write_text("mine")
        write_text(tmp_path / "a.txt")
        assert len(list(tmp_path.iterdir())) == 3

    def test_a_killed_writer(self, tmp_path):
        code = "import os, sys; from ptycho_backend.data.output import atomic_path\n"
        code += "with atomic_path(sys.argv[1]) as path:\n    path.write_text('half'); os.kill(os.getpid(), 9)"
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.txt")], check=False)
        assert [item.name for item in tmp_path.iterdir()] != ["a.txt"]
        write_text(tmp_path / "a.txt")
        assert [item.name for item in tmp_path.iterdir()] == ["a.txt"]


def write_text(target):
    with atomic_path(target) as unfinished:
        unfinished.write_text("new")


def unfinished_name(target):
    """Return the name of a temporary file."""
    with atomic_path(target) as unfinished:
        unfinished.write_text("x")
    target.unlink()
    return unfinished.name


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
import resource, signal, sys
from pathlib import Path
import numpy as np
from ptycho_backend.data.hdf5_writer import write_hdf5
from ptycho_backend.data.npz import write_npz
from ptycho_backend.data.product import Product, write_product
from ptycho_backend.errors import OutputError
from ptycho_backend.testing.scans import small_scan

scan = small_scan(n_positions=40)
product = Product(np.zeros((1, 2)), np.ones((8, 8)), np.ones((300, 300), complex), (0.0, 0.0), None, np.zeros(1, int),
                  np.zeros(0))
writers = {
    "product.h5": lambda path: write_product(path, product, {"coverage": np.ones((300, 300))}),
    "scan.h5": lambda path: write_hdf5(scan, path),
    "scan.npz": lambda path: write_npz(scan, path),
}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
for limit in (0, 500, 2_500, 20_000, 50_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        writers[Path(sys.argv[1]).name](sys.argv[1])
    except OutputError as error:
        assert "File too large" in str(error), error
    else:
        sys.exit(f"nothing was raised at {limit}")
"""


@pytest.mark.parametrize("name", ["product.h5", "scan.h5", "scan.npz"])
def test_a_full_disk_is_an_output_error_and_no_crash(tmp_path, name):
    """Without the file object below the HDF5 library, SIGSEGV ends the process."""
    pytest.importorskip("resource", reason="needs a limit of the file size")
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_caller_is_not_changed_by_the_hdf5_file(tmp_path):
    with pytest.raises(ZeroDivisionError), new_hdf5(tmp_path / "a.h5"):
        _ = 1 / 0


def test_hdf5_through_a_file_object_equals_a_file_of_the_library(tmp_path):
    values = np.random.default_rng(0).normal(size=(300, 70))
    with new_hdf5(tmp_path / "a.h5") as (file, _):
        file["group/values"] = values
        file.create_dataset("packed", data=values, chunks=(10, 10), compression="gzip")
        for number in range(200):
            file.attrs[f"attribute {number}"] = "x" * 200
            file[f"many/{number}"] = number
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["group/values"], values)
        np.testing.assert_array_equal(file["packed"], values)
        assert len(file.attrs) == 200
        assert sorted(item[()] for item in file["many"].values()) == list(range(200))
