"""NPZ files: every key, both orders of the patterns, memory, and error messages."""

import io
import json
import logging
import zipfile

import numpy as np
import pytest

from ptycho_backend.data import npz
from ptycho_backend.data.npz import write_npz
from ptycho_backend.data.readers import load_scan
from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import DataError, OutputError

N, COUNT = 6, 5


def arrays(**changes):
    """Return a valid set of arrays whose y and x differ everywhere; None leaves a key out."""
    rng = np.random.default_rng(1)
    values = {
        "xcoords": np.array([10.0, 20.5, 30.25, 40.0, 51.0]),
        "ycoords": np.array([1.0, 2.0, 4.0, 8.0, 16.5]),
        "diff3d": rng.integers(0, 99, (COUNT, N, N)).astype(np.uint16),
        "probeGuess": rng.normal(size=(N, N)) + 1j,
    } | changes
    return {key: value for key, value in values.items() if value is not None}


@pytest.fixture
def saved(tmp_path):
    def save(**changes):
        np.savez(tmp_path / "run42.npz", **arrays(**changes))
        return tmp_path / "run42.npz"

    return save


def test_positions_are_y_then_x(saved):
    scan = load_scan(saved())
    np.testing.assert_array_equal(scan.positions_px[:, 0], [1.0, 2.0, 4.0, 8.0, 16.5])
    np.testing.assert_array_equal(scan.positions_px[:, 1], [10.0, 20.5, 30.25, 40.0, 51.0])
    assert scan.source.endswith("run42.npz")


@pytest.mark.parametrize("compress", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["u1", ">u2", "<u2", ">u4", "<i4", ">f4"])
def test_patterns_keep_the_dtype_of_the_file(tmp_path, dtype, compress):
    stored = arrays()["diff3d"].astype(dtype)
    compress(tmp_path / "a.npz", **arrays(diff3d=stored))
    scan = load_scan(tmp_path / "a.npz")
    assert scan.patterns.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(scan.counts(), arrays()["diff3d"])


def test_every_optional_key_is_read(saved):
    bad = np.zeros((N, N), dtype=bool)
    bad[1, 4] = True
    obj = np.arange(70.0).reshape(7, 10) + 2j
    scan = load_scan(
        saved(
            bad_pixels=bad,
            objectGuess=obj,
            obj_origin_px=np.array([-3.0, 2.5]),
            pixel_size_m=np.array([8e-9, 9e-9]),
            measurement=np.array("counts"),
            metadata=np.array(json.dumps({"beamline": "2-ID-D"})),
            scan_index=np.zeros(COUNT, dtype=int),
        )
    )
    assert not scan.mask[1, 4]
    assert scan.mask.sum() == N * N - 1
    np.testing.assert_array_equal(scan.obj, obj.astype(np.complex64))
    assert scan.obj_origin_px == (-3.0, 2.5)
    assert scan.pixel_size_m == (8e-9, 9e-9)
    assert scan.measurement == "counts"
    assert scan.attributes == {"beamline": "2-ID-D"}


def test_absent_optional_keys_give_defaults(saved):
    scan = load_scan(saved())
    assert scan.obj is None
    assert scan.pixel_size_m is None
    assert scan.obj_origin_px == (0.0, 0.0)
    assert scan.mask.all()
    assert scan.attributes == {}


def test_a_stack_of_modes_is_kept(saved):
    assert load_scan(saved(probeGuess=np.ones((3, N, N), dtype=complex))).probe.shape == (3, N, N)


@pytest.mark.parametrize(
    ("obj", "shape"),
    [(np.zeros((0, 0), complex), None), (np.ones((1, 8, 9), complex), (8, 9)), (np.ones((8, 9)), (8, 9))],
)
def test_object_of_one_layer(saved, obj, shape):
    scan = load_scan(saved(objectGuess=obj))
    assert (None if scan.obj is None else scan.obj.shape) == shape


def test_diffraction_is_an_alias_of_diff3d(saved, caplog):
    caplog.set_level(logging.INFO)
    scan = load_scan(saved(diff3d=None, diffraction=arrays()["diff3d"]))
    np.testing.assert_array_equal(scan.patterns, arrays()["diff3d"])
    assert "'diffraction' is read instead" in caplog.text


def test_position_last_is_recognised_by_the_number_of_coordinates(saved, caplog):
    caplog.set_level(logging.INFO)
    stored = arrays()["diff3d"]
    scan = load_scan(saved(diff3d=np.moveaxis(stored, 0, 2)))
    np.testing.assert_array_equal(scan.patterns, stored)
    assert scan.patterns.flags.c_contiguous
    assert "read as (y, x, position)" in caplog.text


def test_position_first_is_assumed_for_equal_axes(saved):
    stored = np.arange(COUNT**3).reshape(COUNT, COUNT, COUNT)
    scan = load_scan(saved(diff3d=stored, probeGuess=np.ones((COUNT, COUNT))))
    np.testing.assert_array_equal(scan.patterns, stored)


def test_planned_positions_after_the_last_pattern_are_dropped(saved, caplog):
    scan = load_scan(saved(diff3d=arrays()["diff3d"][:3]))
    np.testing.assert_array_equal(scan.positions_px[:, 0], [1.0, 2.0, 4.0])
    assert "5 positions for 3 patterns: the last 2 are dropped" in caplog.text


def test_stack_is_not_transposed_for_as_many_positions_as_pixels(saved):
    six = np.arange(6.0)
    assert len(load_scan(saved(xcoords=six, ycoords=six))) == COUNT  # N = 6 positions for 5 patterns of 6×6


def test_several_scans_in_one_file_are_reported(saved, caplog):
    load_scan(saved(scan_index=np.array([0, 0, 1, 1, 1])))
    assert "holds 2 scans" in caplog.text


def test_required_keys_are_not_suggested(saved):
    with pytest.raises(DataError) as raised:
        load_scan(saved(xcoords=None))
    assert "ycoords" not in raised.value.fix


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"diff3d": None}, ["'diff3d'", "which holds probeGuess, xcoords, ycoords"]),
        ({"diff3d": None, "diff_3d": np.ones(3)}, ["rename 'diff_3d' to 'diff3d'"]),
        ({"xcoords": None, "ycoords": None}, ["no 'xcoords', 'ycoords'"]),
        ({"xcoords": np.arange(4.0)}, ["'ycoords' and 'xcoords' of equal length", "5 and 4"]),
        ({"xcoords": np.ones((2, 5))}, ["shape (2, 5)", "'xcoords'"]),
        ({"xcoords": np.array(list("abcde"))}, ["dtype <U1", "'xcoords'"]),
        ({"xcoords": np.arange(4.0), "ycoords": np.arange(4.0)}, ["4 positions", "'diff3d'"]),
        ({"diff3d": np.ones((7, 8, 9))}, ["shape (7, 8, 9)", "'diff3d'"]),
        ({"diff3d": np.ones((COUNT, N))}, ["shape (5, 6)", "'diff3d'"]),
        ({"diff3d": np.array(1.0)}, ["shape ()", "'diff3d'"]),
        ({"diff3d": np.ones((COUNT, N, N), dtype=complex)}, ["complex", "patterns"]),
        ({"probeGuess": np.ones((N - 1, N - 1))}, ["(5, 5)", "'probe'"]),
        ({"objectGuess": np.ones((2, 8, 8))}, ["2 layers", "'objectGuess'"]),
        ({"bad_pixels": np.zeros((N, N + 1))}, ["(6, 7)", "'mask'"]),
        ({"bad_pixels": np.array(["x"])}, ["'bad_pixels'"]),
        ({"measurement": np.array("photons")}, ["'photons'", "'measurement'"]),
        ({"measurement": np.array(3)}, ["dtype int64", "'measurement'"]),
        ({"metadata": np.array("{broken")}, ["'{broken'", "'metadata'"]),
        ({"metadata": np.array("[1]")}, ["'[1]'", "'metadata'"]),
        ({"pixel_size_m": np.array([1e-9])}, ["shape (1,)", "'pixel_size_m'"]),
        ({"obj_origin_px": np.array([0.0, np.nan])}, ["two finite numbers", "'obj_origin_px'"]),
        ({"diff3d": np.array([{"a": 1}])}, ["Python objects", "'diff3d'", "JSON"]),
        ({"metadata": np.array({"a": 1})}, ["Python objects", "'metadata'", "JSON"]),
    ],
)
def test_bad_content_names_file_and_field(saved, changes, words):
    with pytest.raises(DataError) as raised:
        load_scan(saved(**changes))
    for word in ["run42.npz", *words]:
        assert word in str(raised.value)


def test_objects_under_unknown_keys_are_never_opened(saved):
    assert len(load_scan(saved(history=np.array([{"a": 1}], dtype=object)))) == COUNT


def full_scan():
    stored = arrays()
    return Scan(
        patterns=stored["diff3d"],
        positions_px=np.stack([stored["ycoords"], stored["xcoords"]], axis=1),
        probe=np.stack([stored["probeGuess"], 0.1j * stored["probeGuess"]]),
        measurement="counts",
        mask=np.arange(N * N).reshape(N, N) != 9,
        obj=np.arange(56.0).reshape(7, 8) * (1 + 1j),
        obj_origin_px=(-2.0, 3.0),
        pixel_size_m=(5e-9, 6e-9),
        attributes={"seed": np.int64(3), "gain": np.array([1.5, 2.0]), "note": "ünïcode"},
    )


def test_written_scan_is_read_back(tmp_path):
    scan = full_scan()
    back = load_scan(write_npz(scan, tmp_path / "a.npz"))
    assert back.data_hash() == scan.data_hash()
    assert back.patterns.dtype == np.uint16
    np.testing.assert_array_equal(back.obj, scan.obj)
    assert back.obj_origin_px == scan.obj_origin_px
    assert back.pixel_size_m == scan.pixel_size_m
    assert back.attributes == {"seed": 3, "gain": [1.5, 2.0], "note": "ünïcode"}


def test_written_file_has_the_keys_of_other_tools(tmp_path):
    write_npz(full_scan(), tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["xcoords"], arrays()["xcoords"])
        np.testing.assert_array_equal(file["ycoords"], arrays()["ycoords"])
        np.testing.assert_array_equal(file["xcoords_start"], file["xcoords"])
        np.testing.assert_array_equal(file["ycoords_start"], file["ycoords"])
        np.testing.assert_array_equal(file["diff3d"], arrays()["diff3d"])
        np.testing.assert_array_equal(np.argwhere(file["bad_pixels"]), [[1, 3]])
        assert file["probeGuess"].shape == (2, N, N)
        assert file["scan_index"].tolist() == [0] * COUNT
        assert file["measurement"] == "counts"


def test_an_existing_file_is_replaced_only_on_request(tmp_path):
    (tmp_path / "a.npz").write_text("precious")
    with pytest.raises(OutputError, match=r"a\.npz', which exists"):
        write_npz(full_scan(), tmp_path / "a.npz")
    assert (tmp_path / "a.npz").read_text() == "precious"
    assert len(load_scan(write_npz(full_scan(), tmp_path / "a.npz", overwrite=True))) == COUNT


def test_attributes_without_json_form_are_refused_before_writing(tmp_path):
    scan = full_scan()
    scan.attributes["rng"] = np.random.default_rng(0)
    with pytest.raises(DataError, match="Generator is no plain value, field 'attributes'"):
        write_npz(scan, tmp_path / "a.npz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("order", ["C", "F"])
def test_large_uncompressed_patterns_are_mapped(tmp_path, monkeypatch, order):
    monkeypatch.setattr(npz, "MAP_FROM_BYTES", 300)  # the patterns have 360 bytes and a header
    stored = np.asarray(arrays()["diff3d"], order=order)
    np.savez(tmp_path / "stored.npz", **arrays(diff3d=stored))
    np.savez_compressed(tmp_path / "packed.npz", **arrays(diff3d=stored))
    mapped, packed = load_scan(tmp_path / "stored.npz"), load_scan(tmp_path / "packed.npz")
    assert isinstance(mapped.patterns, np.memmap)
    assert not isinstance(packed.patterns, np.memmap)
    np.testing.assert_array_equal(mapped.patterns, arrays()["diff3d"])
    assert mapped.data_hash() == packed.data_hash()
    assert not mapped.patterns.flags.writeable


def test_a_mapped_scan_can_replace_its_own_file(tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "MAP_FROM_BYTES", 1)
    path = write_npz(full_scan(), tmp_path / "a.npz")
    scan = load_scan(path)
    write_npz(scan, path, overwrite=True)
    assert load_scan(path).data_hash() == scan.data_hash() == full_scan().data_hash()


def npy_header(shape, descr="<u2", version=(1, 0)):
    stream = io.BytesIO()
    write = np.lib.format.write_array_header_1_0 if version == (1, 0) else np.lib.format.write_array_header_2_0
    write(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def lying_file(tmp_path, key, content, packing=zipfile.ZIP_STORED):
    """Return a file of which one member has other bytes, in front of a member with foreign ones."""
    np.savez(tmp_path / "good.npz", **arrays())
    with zipfile.ZipFile(tmp_path / "good.npz") as good, zipfile.ZipFile(tmp_path / "lie.npz", "w", packing) as lie:
        lie.writestr(f"{key}.npy", content)
        lie.writestr("other.npy", b"foreign bytes " * 1000)
        for name in good.namelist():
            if name != f"{key}.npy":
                lie.writestr(name, good.read(name))
    return tmp_path / "lie.npz"


@pytest.mark.parametrize("limit", [1, 2**26], ids=["mapped", "read"])
@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
@pytest.mark.parametrize(
    ("shape", "descr"), [((7, N, N), "<u2"), ((4, N, N), "<u2"), ((COUNT, N, N), "<u4"), ((COUNT, N, N), "u1")]
)
def test_a_header_that_promises_another_size_is_refused(tmp_path, monkeypatch, limit, packing, version, shape, descr):
    monkeypatch.setattr(npz, "MAP_FROM_BYTES", limit)
    path = lying_file(tmp_path, "diff3d", npy_header(shape, descr, version) + arrays()["diff3d"].tobytes(), packing)
    with pytest.raises(DataError, match=r"lie\.npz', field 'diff3d': the header promises \d+ bytes.*; 360 are there"):
        load_scan(path)


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("diff3d", (2**40, N, N)),
        ("xcoords", (2**50,)),
        ("probeGuess", (2**31, 2**31)),
        ("ycoords", (2**70,)),
        ("diff3d", (-5, N, -N)),
    ],
)
def test_no_memory_is_taken_for_a_header(tmp_path, monkeypatch, key, shape, packing):
    for name in ("scratch_array", "_unpacked"):
        monkeypatch.setattr(npz, name, lambda *_: pytest.fail("memory is taken"))
    path = lying_file(tmp_path, key, npy_header(shape, "<f8") + b"\0" * 4000, packing)
    with pytest.raises(DataError, match=rf"lie\.npz', field '{key}'"):
        load_scan(path)


def test_a_directory_that_promises_more_than_packing_allows_is_refused(tmp_path, monkeypatch):
    """The size of a member is in the directory of the archive, too, and may lie with the header."""
    monkeypatch.setattr(npz, "scratch_array", lambda *_: pytest.fail("memory is taken"))
    content = npy_header((2**20, 8, 8), "<f8") + bytes(4000)
    path = lying_file(tmp_path, "diff3d", content, zipfile.ZIP_DEFLATED)
    promised = 2**29 + len(content) - 4000
    whole = path.read_bytes()
    assert whole.count(len(content).to_bytes(4, "little")) == 2  # in the member's header and in the directory
    path.write_bytes(whole.replace(len(content).to_bytes(4, "little"), promised.to_bytes(4, "little")))
    with pytest.raises(DataError, match=rf"field 'diff3d': {promised} bytes cannot be packed in \d+"):
        load_scan(path)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00\xff\xff{",
        b"\x93NUMPY\x09\x00\x04\x00{}  ",
        b"\x93NUMPY\x01\x00\x04\x00((((",
        b"\x93NUMPY\x01\x00\x88\x13" + b"(" * 5000,
        b"\x93NUMPY\x01\x00\x88\x13" + b"-" * 5000,
        b"\x93NUMPY\x01\x00\x02\x00'\n",
    ],
)
def test_a_broken_header_is_refused(tmp_path, header):
    with pytest.raises(DataError, match=r"lie\.npz', field 'diff3d'"):
        load_scan(lying_file(tmp_path, "diff3d", header))


@pytest.mark.parametrize("text", ["[" * 100000, '{"a":' * 100000, "[" * 100000 + "]" * 100000])
def test_metadata_nested_without_end_is_refused(saved, text):
    with pytest.raises(DataError, match=r"mapping in JSON(.|\n)*field 'metadata' of '.*run42\.npz'"):
        load_scan(saved(metadata=np.array(text)))
