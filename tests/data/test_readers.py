"""Choice of the reader by load_scan, and errors for other files."""

import contextlib
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho_backend.data.readers import load_scan
from ptycho_backend.errors import DataError

N, COUNT = 4, 3
Y, X = np.array([0.0, 2.0, 5.0]), np.array([1.0, 7.0, 3.5])
COUNTS = np.arange(COUNT * N * N, dtype=np.uint16).reshape(COUNT, N, N)


def write_npz_file(path):
    np.savez(path, xcoords=X, ycoords=Y, diff3d=COUNTS, probeGuess=np.ones((N, N), dtype=complex))


def write_training_file(path):
    with h5py.File(path, "w") as file:
        file["patterns"] = COUNTS
        file["probe"] = np.ones((1, N, N), dtype=complex)
        file["probe_position_x_px"] = X - 0.5  # middles of the windows
        file["probe_position_y_px"] = Y - 0.5


def write_cxi_file(path):
    pixel_m = 1e-9 * 1.0 / (N * 1e-6)
    with h5py.File(path, "w") as file:
        file["entry_1/data_1/data"] = COUNTS
        file["entry_1/instrument_1/detector_1/distance"] = 1.0
        file["entry_1/instrument_1/detector_1/x_pixel_size"] = 1e-6
        file["entry_1/instrument_1/detector_1/y_pixel_size"] = 1e-6
        file["entry_1/instrument_1/source_1/wavelength"] = 1e-9
        file["entry_1/instrument_1/source_1/illumination"] = np.ones((N, N), dtype=complex)
        file["entry_1/sample_1/geometry_1/translation"] = np.stack([X, Y, 0 * X], axis=1) * pixel_m


WRITERS = {
    "run42.npz": write_npz_file,
    "run42.NPZ": write_npz_file,
    "run42.h5": write_training_file,
    "run42.hdf5": write_training_file,
    "run42.hdf": write_training_file,
    "run42.cxi": write_cxi_file,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("kind", [str, Path])
def test_every_format_gives_the_same_scan(tmp_path, name, kind):
    with (tmp_path / name).open("wb") as stream:
        WRITERS[name](stream)
    scan = load_scan(kind(tmp_path / name))
    np.testing.assert_array_equal(scan.patterns, COUNTS)
    np.testing.assert_allclose(scan.positions_px, np.stack([Y, X], axis=1), atol=1e-9)
    assert scan.measurement == "counts"
    assert scan.source == str(tmp_path / name)


def test_missing_file_gets_the_nearest_name(tmp_path):
    write_npz_file(tmp_path / "scan_042.npz")
    with pytest.raises(DataError, match=r"scan_42\.npz', which does not exist(.|\n)*'scan_042\.npz'"):
        load_scan(tmp_path / "scan_42.npz")
    with pytest.raises(DataError, match=r"nor does folder '.*nowhere'"):
        load_scan(tmp_path / "nowhere" / "scan.npz")


def test_folder_is_refused(tmp_path):
    write_npz_file(tmp_path / "b.npz")
    with pytest.raises(DataError, match=r"a folder(.|\n)*name one file in it: b\.npz"):
        load_scan(tmp_path)


@pytest.mark.parametrize(("name", "words"), [("scan.mat", "'.mat'"), ("scan", "no suffix")])
def test_an_unknown_suffix_lists_the_known_ones(tmp_path, name, words):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError) as raised:
        load_scan(tmp_path / name)
    assert words in raised.value.received
    assert name in raised.value.received
    assert raised.value.expected == "one of .npz, .h5, .hdf5, .hdf, .cxi"


@pytest.mark.parametrize("name", ["run42.npz", "run42.h5", "run42.cxi"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"hello " * 1000])
def test_a_file_of_another_kind_is_a_data_error(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="run42"):
        load_scan(tmp_path / name)


def test_a_renamed_file_is_a_data_error(tmp_path):
    write_npz_file(tmp_path / "a.npz")
    for name in ("a.h5", "a.cxi"):
        (tmp_path / name).write_bytes((tmp_path / "a.npz").read_bytes())
        with pytest.raises(DataError, match="whole HDF5 file"):
            load_scan(tmp_path / name)
    np.save(tmp_path / "b.npy", COUNTS)
    (tmp_path / "b.npy").rename(tmp_path / "b.npz")
    with pytest.raises(DataError, match="not a zip file"):
        load_scan(tmp_path / "b.npz")


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["run42.npz", "run42.h5"])
def test_an_unreadable_file_is_a_data_error(tmp_path, name):
    WRITERS[name](tmp_path / name)
    (tmp_path / name).chmod(0)
    with pytest.raises(DataError, match="ermission"):
        load_scan(tmp_path / name)


@pytest.fixture(scope="session")
def whole_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    for name in ("run42.npz", "run42.h5", "run42.cxi"):
        WRITERS[name](folder / name)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@given(name=st.sampled_from(["run42.npz", "run42.h5", "run42.cxi"]), share=st.floats(0, 1))
def test_a_truncated_file_is_always_a_data_error(whole_files, tmp_path_factory, name, share):
    content = whole_files[name]
    path = tmp_path_factory.mktemp("cut") / name
    path.write_bytes(content[: int(share * (len(content) - 1))])
    with pytest.raises(DataError, match="run42"):
        load_scan(path)


@given(share=st.floats(0, 1), flip=st.integers(1, 255))
def test_damaged_npz_is_read_correctly_or_refused(whole_files, tmp_path_factory, share, flip):
    content = bytearray(whole_files["run42.npz"])
    content[int(share * (len(content) - 1))] ^= flip
    path = tmp_path_factory.mktemp("flip") / "run42.npz"
    path.write_bytes(content)
    patterns = COUNTS  # a changed byte that no reader uses
    with contextlib.suppress(DataError):
        patterns = load_scan(path).patterns
    np.testing.assert_array_equal(patterns, COUNTS)


@pytest.mark.parametrize("name", ["x" * 300 + ".npz", "x" * 5000 + ".h5", "a\0b.npz", "run42.npz/inside.npz", ""])
def test_names_that_the_system_refuses_are_data_errors(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_npz_file(tmp_path / "run42.npz")
    with pytest.raises(DataError) as raised:
        load_scan(name)
    assert name[:20] in str(raised.value)
    with pytest.raises(DataError):
        load_scan("run42.npz", patterns=name or ".")


@pytest.mark.parametrize(
    "value", [np.bytes_(b"\xff\xfe"), np.ones(3), 4, h5py.Empty("f4"), np.array(["counts", "counts"], "S6")], ids=repr
)
def test_a_broken_measurement_is_named(tmp_path, value):
    WRITERS["run42.h5"](tmp_path / "run42.h5")
    with h5py.File(tmp_path / "run42.h5", "a") as file:
        file.attrs["measurement"] = value
    with pytest.raises(DataError, match=r"field 'measurement' of '.*run42\.h5"):
        load_scan(tmp_path / "run42.h5")


def test_second_file_of_patterns_is_for_products_only(tmp_path):
    for name in ("run42.npz", "run42.h5", "run42.cxi"):
        WRITERS[name](tmp_path / name)
        with pytest.raises(DataError, match=f"Only a product(.|\n)*{name}"):
            load_scan(tmp_path / name, patterns=tmp_path / "run42.h5")


@pytest.mark.realdata
def test_the_measured_star(star_path):
    scan = load_scan(star_path)
    assert scan.patterns.shape == (516, 128, 128)
    assert scan.patterns.dtype == np.uint16
    assert scan.measurement == "counts"
    assert scan.probe.shape == (1, 128, 128)
    np.testing.assert_allclose(scan.positions_px.max(axis=0), [403.9176940917969, 400.8925476074219])
    assert scan.counts().sum(axis=(1, 2)).mean() == pytest.approx(4.6e5, rel=0.05)
    small = load_scan(star_path, N=64)
    np.testing.assert_array_equal(small.patterns, scan.patterns[:, 32:96, 32:96])
    np.testing.assert_allclose(small.positions_px, scan.positions_px / 2)
