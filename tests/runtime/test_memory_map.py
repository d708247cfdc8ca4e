"""Arrays larger than memory: mapped if a file holds them in one piece, else unpacked (data 8)."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from ptycho_backend.data import fields, npz, resize
from ptycho_backend.data.readers import load_scan
from ptycho_backend.errors import DataError, OutputError
from ptycho_backend.runtime import memory_map
from ptycho_backend.runtime.memory_map import chunks, gather_rows, release, scratch_array, scratch_folder

N, n = 16, 40
PATTERNS = np.random.default_rng(0).poisson(50.0, (n, N, N)).astype(np.uint16)
Y, X = (values * 3.0 for values in np.divmod(np.arange(n), 7))


@pytest.fixture
def small_limits(monkeypatch, tmp_path):
    """Lower all limits, so that small arrays are treated as larger than memory."""
    for module in (memory_map, npz, fields):
        monkeypatch.setattr(module, "IN_MEMORY_BYTES", 2000)
    monkeypatch.setattr(memory_map, "BLOCK_BYTES", 3 * PATTERNS[0].nbytes)
    monkeypatch.setattr(npz, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(npz, "MAP_FROM_BYTES", 2000)
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def npz_file(folder, save=np.savez, patterns=PATTERNS):
    path = folder / "scan.npz"
    save(path, diff3d=patterns, xcoords=X, ycoords=Y, probeGuess=np.ones((N, N), complex))
    return path


def hdf5_file(folder, patterns=PATTERNS, userblock_size=0, **options):
    path = folder / "scan.h5"
    with h5py.File(path, "w", userblock_size=userblock_size) as file:
        file.create_dataset("patterns", data=patterns, **options)
        file["probe"] = np.ones((1, N, N), complex)
        file["probe_position_y_px"], file["probe_position_x_px"] = Y, X
    return path


def is_mapped(array):
    return isinstance(array, np.memmap)


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<i4", "<f4", ">f8"])
def test_a_contiguous_dataset_is_mapped_in_its_own_file(small_limits, tmp_path, dtype):
    patterns = PATTERNS.astype(dtype)
    scan = load_scan(hdf5_file(tmp_path, patterns))
    assert is_mapped(scan.patterns)
    assert scan.patterns.filename == tmp_path / "scan.h5" or scan.patterns.filename == str(tmp_path / "scan.h5")
    assert scan.patterns.dtype == patterns.dtype
    np.testing.assert_array_equal(scan.patterns, patterns)


def test_a_user_block_shifts_the_map(small_limits, tmp_path):
    np.testing.assert_array_equal(load_scan(hdf5_file(tmp_path, userblock_size=4096)).patterns, PATTERNS)


@pytest.mark.parametrize("options", [{"compression": "gzip"}, {"chunks": (7, N, 5)}, {"shuffle": True}])
def test_a_chunked_dataset_is_unpacked_into_an_unnamed_file(small_limits, tmp_path, options):
    scan = load_scan(hdf5_file(tmp_path, **options))
    assert is_mapped(scan.patterns)
    np.testing.assert_array_equal(scan.patterns, PATTERNS)
    assert list(small_limits.iterdir()) == []


def test_an_external_dataset_is_read_from_its_own_file(small_limits, tmp_path):
    raw = tmp_path / "raw.bin"
    raw.write_bytes(b"12345678" + PATTERNS.tobytes())
    path = hdf5_file(tmp_path)
    with h5py.File(path, "a") as file:
        del file["patterns"]
        file.create_dataset("patterns", PATTERNS.shape, PATTERNS.dtype, external=[(str(raw), 8, PATTERNS.nbytes)])
    np.testing.assert_array_equal(load_scan(path).patterns, PATTERNS)


@pytest.mark.parametrize("fortran", [False, True])
def test_a_compressed_member_is_unpacked(small_limits, tmp_path, fortran):
    patterns = np.asfortranarray(PATTERNS) if fortran else PATTERNS
    scan = load_scan(npz_file(tmp_path, np.savez_compressed, patterns))
    assert is_mapped(scan.patterns)
    np.testing.assert_array_equal(scan.patterns, PATTERNS)
    assert list(small_limits.iterdir()) == []


def test_a_damaged_compressed_member_is_an_error(small_limits, tmp_path):
    path = npz_file(tmp_path, np.savez_compressed)
    content = bytearray(path.read_bytes())
    content[2000] ^= 0xFF  # within the patterns
    path.write_bytes(content)
    with pytest.raises(DataError, match="diff3d"):
        load_scan(path)


def test_patterns_with_the_position_last_are_transposed_block_by_block(small_limits, tmp_path):
    scan = load_scan(npz_file(tmp_path, patterns=np.moveaxis(PATTERNS, 0, 2)))
    assert is_mapped(scan.patterns)
    np.testing.assert_array_equal(scan.patterns, PATTERNS)


@pytest.mark.parametrize("side", [12, 20])
def test_resizing_to_another_detector_size(small_limits, tmp_path, side):
    path = npz_file(tmp_path)
    scan = load_scan(path, N=side)
    assert is_mapped(scan.patterns)
    np.testing.assert_array_equal(scan.patterns, resize.centred(PATTERNS, side))


def test_rows_are_gathered_in_their_order(small_limits):
    rows = np.random.default_rng(1).permutation(n)[: n - 3]
    found = gather_rows(PATTERNS, rows)
    assert is_mapped(found)
    np.testing.assert_array_equal(found, PATTERNS[rows])


def test_released_values_remain(small_limits):
    values = scratch_array(PATTERNS.shape, PATTERNS.dtype)
    values[:] = PATTERNS
    release(values[3:5])
    np.testing.assert_array_equal(values, PATTERNS)
    np.testing.assert_array_equal(np.concatenate(list(chunks(values, 7))), PATTERNS)


def test_changes_of_a_private_map_remain(tmp_path):
    """Its changed pages exist only in memory."""
    np.save(tmp_path / "a.npy", PATTERNS)
    private = np.load(tmp_path / "a.npy", mmap_mode="c")
    private[0] = 7
    release(private[:3])
    np.testing.assert_array_equal(private[0], 7)


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="only Linux reports resident pages")
def test_released_pages_are_not_resident():
    values = scratch_array((2**29,), np.uint8)
    values[: 2**26] = 1
    before = resident_bytes()
    release(values)
    assert before - resident_bytes() > 0.9 * 2**26
    assert values[2**26 - 1] == 1


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_full_disk_is_an_error_before_the_work(small_limits, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(memory_map, "_reserve", full)
    with pytest.raises(OutputError, match="No space left on device") as raised:
        scratch_array((1000, 1000), np.float32)
    assert str(small_limits) in raised.value.expected
    assert "TMPDIR" in raised.value.fix


def test_a_full_disk_is_not_reported_as_a_damaged_file(small_limits, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(memory_map, "_reserve", full)
    for path in (npz_file(tmp_path, np.savez_compressed), hdf5_file(tmp_path, compression="gzip")):
        with pytest.raises(OutputError, match="No space left"):
            load_scan(path)


def test_temporary_files_lie_in_tmpdir(small_limits):
    assert scratch_folder() == small_limits


def test_small_arrays_stay_in_memory():
    assert not is_mapped(scratch_array((10, 10), np.float32))
