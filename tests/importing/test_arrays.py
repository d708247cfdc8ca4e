"""Arrays in files of every format: values, listing, blocks of rows, and errors that name file and array."""

import io
import re
import zipfile

import h5py
import hdf5plugin
import numpy as np
import pytest
import scipy.io
import tifffile

from ptycho_backend.errors import ConfigError, DataError, ShapeError
from ptycho_backend.importing import arrays, matlab
from ptycho_backend.importing.arrays import arrays_in, concatenated, open_array, split_address
from ptycho_backend.importing.description import PatternsDescription

STACK = np.random.default_rng(2).integers(0, 999, (7, 4, 6)).astype(np.uint16)


def hdf5(path, values, **options):
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, value in values.items():
            file.create_dataset(name, data=value, **options)
    return path


def matlab_73(path):
    """Write as MATLAB does: axes reversed, a block of 512 bytes before HDF5."""
    with h5py.File(path, "w", userblock_size=512) as file:
        file["dp"] = STACK
        file["dp"].attrs["MATLAB_class"] = np.bytes_("uint16")
        file["note"] = np.array([[104], [105]], np.uint16)
        file["note"].attrs["MATLAB_class"] = np.bytes_("char")
        file["#refs#/a"] = STACK
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file")
    return path


def tiff_pages(path):
    with tifffile.TiffWriter(path) as writer:
        for image in STACK:
            writer.write(image, contiguous=False)


WRITERS = {
    "a.h5": lambda path: hdf5(path, {"/entry/data/data": STACK}),
    "a.nxs": lambda path: hdf5(path, {"/entry/data/data": STACK}, **hdf5plugin.Bitshuffle(cname="lz4")),
    "a.cxi": lambda path: hdf5(path, {"/entry_1/data": STACK}, chunks=(3, 4, 6), compression="gzip"),
    "a.ptyd": lambda path: hdf5(path, {"/x": STACK}, **hdf5plugin.Blosc()),
    "a.emd": lambda path: hdf5(path, {"/x": STACK.astype(">u2")}),
    "a.npy": lambda path: np.save(path, STACK),
    "f.npy": lambda path: np.save(path, np.asfortranarray(STACK)),
    "a.npz": lambda path: np.savez(path, dp=STACK, note="text"),
    "c.npz": lambda path: np.savez_compressed(path, dp=STACK),
    "a.mat": lambda path: scipy.io.savemat(path, {"dp": STACK, "note": "text", "par": {"z": 1.0}}),
    "c.mat": lambda path: scipy.io.savemat(path, {"dp": STACK}, do_compression=True),
    "73.mat": matlab_73,
    "a.tif": lambda path: tifffile.imwrite(path, STACK),
    "c.tif": lambda path: tifffile.imwrite(path, STACK, compression="zlib"),
    "b.tif": lambda path: tifffile.imwrite(path, STACK, byteorder=">", compression="zlib"),
    "p.tiff": tiff_pages,
    "i.tif": lambda path: tifffile.imwrite(path, STACK, imagej=True),
    "noname": lambda path: path.write_bytes(npy_bytes(STACK.shape, STACK.tobytes())),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_written_array(tmp_path, name):
    WRITERS[name](tmp_path / name)
    source = open_array(str(tmp_path / name), axes_at_least=3)
    assert source.shape == STACK.shape
    assert source.dtype.newbyteorder("=") == np.uint16
    np.testing.assert_array_equal(source.all(), STACK)
    np.testing.assert_array_equal(source.read(slice(2, 5)), STACK[2:5])
    np.testing.assert_array_equal(source.read(slice(1, None, 3)), STACK[1::3])
    assert source.read(slice(9, 12)).shape == (0, 4, 6)


@pytest.mark.parametrize("name", WRITERS)
def test_the_listing_agrees_with_what_is_opened(tmp_path, name):
    WRITERS[name](tmp_path / name)
    infos = [info for info in arrays_in(tmp_path / name) if len(info.shape) == 3]
    assert [(info.shape, info.dtype.newbyteorder("=")) for info in infos] == [(STACK.shape, np.dtype("u2"))]
    address = f"{tmp_path / name}:{infos[0].name}" if infos[0].name else str(tmp_path / name)
    np.testing.assert_array_equal(open_array(address).all(), STACK)


def test_text_structures_and_objects_are_not_listed(tmp_path):
    hdf5(tmp_path / "a.h5", {"x": np.ones(3), "text": np.array([b"a", b"b"])})
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["words"] = "text"
        file["record"] = np.zeros(3, [("a", "i4"), ("b", "f4")])
        file["empty"] = h5py.Empty("f4")
        file["again"] = h5py.SoftLink("/x")  # the same array under a second name
    assert [(info.name, info.shape) for info in arrays_in(tmp_path / "a.h5")] == [("/x", (3,))]
    for name in WRITERS:
        WRITERS[name](tmp_path / name)
        assert all(info.dtype.kind in "biufc" for info in arrays_in(tmp_path / name))


@pytest.mark.parametrize("names", [("r", "i"), ("real", "imag"), ("re", "im")])
@pytest.mark.parametrize(("part", "dtype"), [("<f4", "c8"), ("<f8", "c16"), (">f4", "c8")])
def test_compounds_of_two_parts_are_complex(tmp_path, names, part, dtype):
    probe = (np.arange(6.0).reshape(2, 3) - 7j).astype(dtype)
    stored = np.zeros((2, 3), [(name, part) for name in names])
    stored[names[0]], stored[names[1]] = probe.real, probe.imag
    source = open_array(str(hdf5(tmp_path / "a.h5", {"probe": stored})))
    assert source.dtype.newbyteorder("=") == np.dtype(dtype)
    np.testing.assert_array_equal(source.all(), probe)


def test_complex_and_real_matlab_variables(tmp_path):
    probe = np.arange(6.0).reshape(2, 3) - 7j
    scipy.io.savemat(tmp_path / "a.mat", {"probe": probe, "z": 1.5})
    np.testing.assert_array_equal(open_array(f"{tmp_path}/a.mat:probe").all(), probe)
    np.testing.assert_array_equal(open_array(f"{tmp_path}/a.mat:z").all(), [[1.5]])


def test_scalars_are_read(tmp_path):
    hdf5(tmp_path / "a.h5", {"energy": 8.8})
    np.save(tmp_path / "a.npy", 8.8)
    for name in ("a.h5:/energy", "a.npy"):
        source = open_array(f"{tmp_path}/{name}")
        assert source.shape == ()
        assert source.all() == 8.8


def test_four_axes_of_a_compressed_tiff(tmp_path):
    values = np.arange(2 * 5 * 4 * 6, dtype=np.uint16).reshape(2, 5, 4, 6)
    tifffile.imwrite(tmp_path / "a.tif", values, compression="zlib", metadata={"axes": "TZYX"})
    source = open_array(str(tmp_path / "a.tif"))
    np.testing.assert_array_equal(source.read(slice(1, 2)), values[1:])


def test_stacks_of_several_sizes_in_a_tiff_have_numbers(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(STACK)
        writer.write(np.ones((3, 3), np.float32))
    np.testing.assert_array_equal(open_array(f"{tmp_path}/a.tif", axes_at_least=3).all(), STACK)
    np.testing.assert_array_equal(open_array(f"{tmp_path}/a.tif:1").all(), np.ones((3, 3)))
    with pytest.raises(DataError, match=r"2 arrays in '.*a\.tif': '0' \(7, 4, 6\) uint16; '1' \(3, 3\) float32"):
        open_array(f"{tmp_path}/a.tif")


def test_no_read_holds_more_than_its_rows(tmp_path, monkeypatch):
    """Each format that can be read in parts is: the values that come from the file are those of the rows."""
    sizes = []
    original = arrays.ArraySource.read
    monkeypatch.setattr(arrays.ArraySource, "read", lambda self, rows=slice(None): sized(original(self, rows)))

    def sized(values):
        sizes.append(values.nbytes)
        assert values.base is None or values.base.nbytes == values.nbytes
        return values

    for name in WRITERS:
        WRITERS[name](tmp_path / name)
        open_array(str(tmp_path / name), axes_at_least=3).read(slice(0, 2))
    assert set(sizes) == {STACK[:2].nbytes}


# Addresses


@pytest.mark.parametrize(
    ("address", "path", "name"),
    [
        ("a.h5", "a.h5", ""),
        ("a.h5:/entry/data", "a.h5", "/entry/data"),
        ("a.h5:x:y", "a.h5", "x:y"),
        ("b:c.h5:/x", "b:c.h5", "/x"),
        ("b:c.h5", "b:c.h5", ""),
        ("missing.h5:/x", "missing.h5", "/x"),
        ("missing", "missing", ""),
    ],
)
def test_addresses_are_split_at_the_end_of_the_file(tmp_path, monkeypatch, address, path, name):
    monkeypatch.chdir(tmp_path)
    for file in ("a.h5", "b:c.h5"):
        hdf5(tmp_path / file, {"x": STACK, "x:y": STACK})
    assert (str(split_address(address)[0]), split_address(address)[1]) == (path, name)


def test_a_name_without_its_leading_slash(tmp_path):
    hdf5(tmp_path / "a.h5", {"/entry/data/data": STACK})
    np.testing.assert_array_equal(open_array(f"{tmp_path}/a.h5:entry/data/data").all(), STACK)


def test_several_arrays_are_listed_with_their_shapes(tmp_path):
    hdf5(tmp_path / "a.h5", {"one": STACK, "two": STACK[:3], "x": np.ones(4)})
    with pytest.raises(DataError) as raised:
        open_array(f"{tmp_path}/a.h5", axes_at_least=3)
    assert "2 arrays in" in raised.value.received
    assert "'/one' (7, 4, 6) uint16; '/two' (3, 4, 6) uint16" in raised.value.received
    assert "--patterns.dataset /one" in raised.value.fix
    with pytest.raises(ShapeError, match=r"4 or more axes(.|\n)*'/x' \(4,\) float64"):
        open_array(f"{tmp_path}/a.h5", axes_at_least=4)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/entry/dat", ["no array '/entry/dat'", "did you mean", "/entry/data"]),
        ("/entry", ["no array '/entry'", "'/entry/data' (7, 4, 6) uint16"]),
        ("/words", ["dtype object", "field '/words'"]),
        ("/soft", ["no array '/soft'"]),
    ],
)
def test_wrong_names_are_refused(tmp_path, name, words):
    path = hdf5(tmp_path / "a.h5", {"/entry/data": STACK, "words": "text"})
    with h5py.File(path, "a") as file:
        file["soft"] = h5py.SoftLink("/soft")  # a link to itself
    with pytest.raises(DataError) as raised:
        open_array(f"{path}:{name}")
    for word in ["a.h5", *words]:
        assert word in str(raised.value)


@pytest.mark.parametrize("name", ["a.npz", "a.mat", "c.tif", "a.h5"])
def test_unknown_names_are_refused_in_every_format(tmp_path, name):
    WRITERS[name](tmp_path / name)
    with pytest.raises(DataError, match=rf"no array 'nothing' in '.*{re.escape(name)}'"):
        open_array(f"{tmp_path}/{name}:nothing")


def test_a_name_for_a_file_with_one_array_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", STACK)
    with pytest.raises(DataError, match="leave out the name 'dp'"):
        open_array(f"{tmp_path}/a.npy:dp")


@pytest.mark.parametrize("address", ["missing.h5", "missing.h5:/x", "y" * 300 + ".h5", "a\0b.npy", "."])
def test_missing_files_are_named(tmp_path, monkeypatch, address):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=re.escape(address.partition(":")[0][:30])):
        open_array(address)


# Linked, virtual and external values


def test_values_behind_links_are_read(tmp_path):
    hdf5(tmp_path / "data_1.h5", {"/entry/data": STACK})
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file["entry/data_000001"] = h5py.ExternalLink("data_1.h5", "/entry/data")
        file["soft"] = h5py.SoftLink("/entry/data_000001")
    np.testing.assert_array_equal(open_array(f"{tmp_path}/master.h5:/soft").all(), STACK)
    np.testing.assert_array_equal(open_array(f"{tmp_path}/master.h5").all(), STACK)
    assert len(arrays_in(tmp_path / "master.h5")) == 1


def test_files_that_link_to_each_other_are_listed_once(tmp_path):
    for one, other in (("a", "b"), ("b", "c"), ("c", "b")):
        hdf5(tmp_path / f"{one}.h5", {"x": STACK})
        with h5py.File(tmp_path / f"{one}.h5", "a") as file:
            file["next"] = h5py.ExternalLink(f"{other}.h5", "/")
            file["loop"] = h5py.SoftLink("/")
    assert [info.name for info in arrays_in(tmp_path / "a.h5")] == ["/x", "/next/x", "/next/next/x"]


@pytest.mark.parametrize("name", ["/entry/data_000002", "/soft", "", "/group/x"])
def test_a_missing_linked_file_is_named(tmp_path, name):
    hdf5(tmp_path / "data_1.h5", {"x": STACK})
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file["entry/data_000001"] = h5py.ExternalLink("data_1.h5", "/x")
        file["entry/data_000002"] = h5py.ExternalLink("data_2.h5", "/x")
        file["soft"] = h5py.SoftLink("/entry/data_000002")
        file["group"] = h5py.ExternalLink("data_2.h5", "/")
    address = f"{tmp_path}/master.h5" + (f":{name}" if name else "")
    with pytest.raises(DataError, match=r"no 'data_2\.h5'"):
        open_array(address, axes_at_least=3)
    assert [info.name for info in arrays_in(tmp_path / "master.h5")] == ["/entry/data_000001"]


def test_external_files_next_to_the_file_are_read_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "raw.bin").write_bytes(b"head" + STACK.tobytes())
    (tmp_path / "elsewhere").mkdir()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", STACK.shape, "<u2", external=[("raw.bin", 4, STACK.nbytes)])
    monkeypatch.chdir(tmp_path / "elsewhere")
    np.testing.assert_array_equal(open_array(f"{tmp_path}/a.h5:/x").all(), STACK)
    (tmp_path / "raw.bin").write_bytes(b"head" + STACK.tobytes()[:-1])
    with pytest.raises(DataError, match=rf"'raw\.bin' with {STACK.nbytes + 3} instead of {STACK.nbytes + 4} bytes"):
        open_array(f"{tmp_path}/a.h5:/x")
    (tmp_path / "raw.bin").unlink()
    with pytest.raises(DataError, match=r"no 'raw\.bin'"):
        open_array(f"{tmp_path}/a.h5:/x")


# Damage


@pytest.mark.parametrize("name", [name for name in WRITERS if name not in ("noname",)])
@pytest.mark.parametrize("part", [0.0, 0.02, 0.5, 0.9])
def test_a_truncated_file_is_never_read_as_whole(tmp_path, name, part):
    """What can be read of a truncated file is what was written, or there is an error that names the file."""
    WRITERS[name](tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: int(len(whole) * part)])
    values, message = STACK, f"Fix: {name}"
    try:
        values = open_array(str(tmp_path / name), axes_at_least=3).all()
    except DataError as error:
        message = str(error)
    assert name in message
    assert "Fix" in message
    np.testing.assert_array_equal(values, STACK)


@pytest.mark.parametrize("rows", [5, 9])
@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, None])
def test_headers_that_promise_other_sizes_are_refused(tmp_path, rows, packing):
    lie = npy_bytes((rows, 4, 6), STACK.tobytes())
    if packing is None:
        path = tmp_path / "a.npy"
        path.write_bytes(lie)
    else:
        path = tmp_path / "a.npz"
        with zipfile.ZipFile(path, "w", packing) as archive:
            archive.writestr("dp.npy", lie)
            archive.writestr("other.npy", npy_bytes((2,), b"1234"))
    with pytest.raises(DataError, match=rf"{rows * 48} bytes of shape \({rows}, 4, 6\), dtype uint16; 336 are there"):
        open_array(f"{path}:dp" if packing is not None else str(path))


def npy_bytes(shape, values, descr="<u2"):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue() + values


def test_nothing_is_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}]))
    np.savez(tmp_path / "a.npz", x=np.array([{"a": 1}]), y=STACK)
    for address in ("a.npy", "a.npz:x"):
        with pytest.raises(DataError, match="Python objects"):
            open_array(f"{tmp_path}/{address}")
    np.testing.assert_array_equal(open_array(f"{tmp_path}/a.npz").all(), STACK)


@pytest.mark.parametrize("variable", ["note", "par"])
def test_matlab_text_and_structures_are_refused(tmp_path, variable):
    WRITERS["a.mat"](tmp_path / "a.mat")
    with pytest.raises(DataError, match=f"a variable of class (char|struct), field '{variable}'"):
        open_array(f"{tmp_path}/a.mat:{variable}")


def test_text_of_matlab_7_3_is_refused(tmp_path):
    with pytest.raises(DataError, match="text, or an empty variable of MATLAB, field 'note'"):
        open_array(f"{matlab_73(tmp_path / 'a.mat')}:note")


@pytest.mark.parametrize("name", ["a.bin", "a.h5", "a.npz", "a.mat", "a.tif", "a.npy"])
def test_other_content_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"no array of numbers " * 99)
    with pytest.raises(DataError, match=re.escape(name)):
        open_array(f"{tmp_path}/{name}")


def test_large_matlab_variables_lie_in_a_temporary_file(tmp_path, monkeypatch):
    copies = []
    monkeypatch.setattr(matlab, "IN_MEMORY_BYTES", 100)
    monkeypatch.setattr(matlab, "gather_rows", lambda values, rows: copies.append(len(rows)) or values[rows])
    WRITERS["a.mat"](tmp_path / "a.mat")
    np.testing.assert_array_equal(open_array(f"{tmp_path}/a.mat:dp").all(), STACK)
    assert copies == [len(STACK)]


@pytest.mark.parametrize("dtype", ["u2", "f8", "c16"])
@pytest.mark.parametrize("kind", [0x55, 14, 0xFF])
def test_a_type_that_scipy_does_not_check_is_refused(tmp_path, dtype, kind):
    """SciPy ends the process for such a type."""
    scipy.io.savemat(tmp_path / "a.mat", {"dp": STACK.astype(dtype)})
    content = bytearray((tmp_path / "a.mat").read_bytes())
    real = STACK.astype(dtype).real.copy(order="F").tobytes(order="F")
    place = content.index(real) - 8
    assert content[place] in matlab.NUMBER_TYPES
    content[place] = kind
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(DataError, match=rf"unknown type {kind}"):
        open_array(f"{tmp_path}/a.mat:dp")


def test_a_variable_without_its_flags_is_refused(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"dp": STACK})
    content = bytearray((tmp_path / "a.mat").read_bytes())
    assert content[140] == 8  # length of the flags; SciPy takes it for granted
    content[140] = 0
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(DataError, match="without its flags"):
        open_array(f"{tmp_path}/a.mat:dp")


# Raw files


def raw(tmp_path, header=b"", **changes):
    path = tmp_path / "a.raw"
    path.write_bytes(header + STACK.astype("<u2").tobytes())
    settings = {"raw_shape": "7x4x6", "raw_dtype": "<u2", "raw_offset_bytes": len(header)} | changes
    return open_array(str(path), PatternsDescription(**settings), axes_at_least=3)


def test_raw_files_have_a_declared_shape(tmp_path):
    np.testing.assert_array_equal(raw(tmp_path).all(), STACK)
    np.testing.assert_array_equal(raw(tmp_path, b"0123456").read(slice(3, 5)), STACK[3:5])
    np.testing.assert_array_equal(raw(tmp_path, raw_dtype=">u2").all(), STACK.byteswap())


def test_raw_files_with_a_header_for_every_pattern(tmp_path):
    stack = STACK.reshape(7, 1, 4, 6)
    content = b"file" + b"".join(b"pattern" + pattern.tobytes() for pattern in STACK)
    (tmp_path / "scan.mib").write_bytes(content)
    settings = {"raw_dtype": "<u2", "raw_offset_bytes": 4, "raw_pattern_header_bytes": 7}
    for shape, expected in (("7x4x6", STACK), ("7x1x4x6", stack)):
        source = open_array(str(tmp_path / "scan.mib"), PatternsDescription(raw_shape=shape, **settings))
        np.testing.assert_array_equal(source.all(), expected)
        np.testing.assert_array_equal(source.read(slice(2, 7, 3)), expected[2:7:3])
        assert source.dtype == expected.dtype
    with pytest.raises(DataError, match="headers of 7 for each pattern"):
        open_array(str(tmp_path / "scan.mib"), PatternsDescription(raw_shape="6x4x6", **settings))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"raw_shape": "8x4x6"}, DataError, ["384 bytes", "336 bytes", "7 rows of 4x6"]),
        ({"raw_shape": "6x4x6"}, DataError, ["288 bytes", "7 rows of 4x6"]),
        ({"raw_offset_bytes": 24}, DataError, ["360 bytes", "6.5 rows"]),
        ({"raw_dtype": ""}, ConfigError, ["--patterns.raw_dtype"]),
        ({"raw_dtype": "O"}, ConfigError, ["--patterns.raw_dtype 'O'"]),
        ({"raw_dtype": "nonsense"}, ConfigError, ["--patterns.raw_dtype 'nonsense'"]),
        ({"raw_shape": "7*4*6"}, ConfigError, ["--patterns.raw_shape '7*4*6'"]),
        ({"raw_shape": "7x0x6"}, ConfigError, ["sides above 0"]),
        ({"raw_shape": "99999999999x99999999999x6"}, DataError, ["336 bytes"]),
        ({"raw_shape": "28x6"}, ShapeError, ["3 or more axes", "(28, 6)"]),
    ],
)
def test_raw_files_of_another_size_are_refused(tmp_path, changes, error, words):
    with pytest.raises(error) as raised:
        raw(tmp_path, **changes)
    for word in words:
        assert word in str(raised.value)


# Files in a row


def test_files_in_a_row_are_one_array(tmp_path):
    parts = [STACK[:3], STACK[3:3], STACK[3:4], STACK[4:]]
    sources = []
    for number, part in enumerate(parts):
        np.save(tmp_path / f"{number}.npy", part)
        sources.append(open_array(str(tmp_path / f"{number}.npy")))
    joint = concatenated(sources)
    assert joint.shape == STACK.shape
    np.testing.assert_array_equal(joint.all(), STACK)
    for start in range(8):
        for stop in range(8):
            for step in (1, 2, 3, 5):
                rows = slice(start, stop, step)
                np.testing.assert_array_equal(joint.read(rows), STACK[rows])


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (STACK[:, :3], ["(7, 4, 6)", "(7, 3, 6)"]),
        (STACK.astype(np.float32), ["uint16", "float32"]),
        (np.uint16(3), ["(7, 4, 6)", "()"]),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path, other, words):
    np.save(tmp_path / "a.npy", STACK)
    np.save(tmp_path / "b.npy", other)
    with pytest.raises(DataError) as raised:
        concatenated([open_array(str(tmp_path / name)) for name in ("a.npy", "b.npy")])
    for word in ["a.npy", "b.npy", *words]:
        assert word in str(raised.value)


def test_no_files_are_refused():
    with pytest.raises(ShapeError, match="at least one file"):
        concatenated([])


def test_a_file_that_changes_is_noticed(tmp_path):
    path = hdf5(tmp_path / "a.h5", {"x": STACK})
    source = open_array(str(path))
    hdf5(path, {"x": STACK[:3]})
    with pytest.raises(DataError, match=r"shape \(3, 4, 6\)(.|\n)*import the file again"):
        source.all()
