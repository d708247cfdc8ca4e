"""Values of HDF5 that are in other files, or packed by a filter: complete, or an error that names what is missing."""

import h5py
import hdf5plugin
import numpy as np
import pytest

from ptycho_backend.data.readers import load_scan
from ptycho_backend.errors import DataError

N, n = 6, 6
PATTERNS = np.random.default_rng(3).integers(1, 99, (n, N, N)).astype(np.uint16)


def training_file(folder, patterns=None):
    with h5py.File(folder / "scan.h5", "w") as file:
        if patterns is not None:
            file["patterns"] = patterns
        file["probe"] = np.ones((1, N, N), complex)
        file["probe_position_y_px"] = np.arange(n) // 3 * 2.0
        file["probe_position_x_px"] = np.arange(n) % 3 * 2.0
    return folder / "scan.h5"


def part(path, values, name="x"):
    with h5py.File(path, "w") as file:
        file[name] = values
    return path


def virtual_file(folder, names=("data_0.h5", "data_1.h5", "data_2.h5")):
    """Return a training file whose patterns are in three other files, two in each."""
    layout = h5py.VirtualLayout(PATTERNS.shape, PATTERNS.dtype)
    for number, name in enumerate(names):
        rows = slice(2 * number, 2 * number + 2)
        part(folder / name, PATTERNS[rows])
        layout[rows] = h5py.VirtualSource(name, "x", (2, N, N))
    path = training_file(folder)
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset("patterns", layout)
    return path


def refused(path, *words):
    with pytest.raises(DataError) as raised:
        load_scan(path)
    for word in ("scan.h5", *words):
        assert word in str(raised.value)
    return raised.value


# Virtual datasets


def test_a_virtual_dataset_is_read_from_its_sources(tmp_path):
    np.testing.assert_array_equal(load_scan(virtual_file(tmp_path)).patterns, PATTERNS)


@pytest.mark.parametrize("missing", ["data_0.h5", "data_1.h5", "data_2.h5"])
def test_a_missing_source_file_is_named(tmp_path, missing):
    path = virtual_file(tmp_path)
    (tmp_path / missing).unlink()
    refused(path, f"no '{missing}'", "field 'patterns'", f"copy the missing file to '{tmp_path}'")


def test_a_source_without_its_dataset_is_named(tmp_path):
    path = virtual_file(tmp_path)
    part(tmp_path / "data_1.h5", PATTERNS[2:4], name="other")
    refused(path, "no dataset 'x' in", "data_1.h5")


@pytest.mark.parametrize("shape", [(1, N, N), (2, N, N - 1), (1,)])
def test_a_source_that_is_too_small_is_named(tmp_path, shape):
    path = virtual_file(tmp_path)
    part(tmp_path / "data_1.h5", np.ones(shape, np.uint16))
    refused(path, f"shape {shape}", "data_1.h5")


def test_a_source_that_is_no_hdf5_file_is_named(tmp_path):
    path = virtual_file(tmp_path)
    (tmp_path / "data_2.h5").write_bytes(b"")
    refused(path, "data_2.h5', which is no whole HDF5 file")


def test_a_missing_source_of_a_source_is_named(tmp_path):
    """The master file takes its patterns from another master file."""
    (tmp_path / "inner").mkdir()
    inner = virtual_file(tmp_path / "inner")
    layout = h5py.VirtualLayout(PATTERNS.shape, PATTERNS.dtype)
    layout[:] = h5py.VirtualSource(f"inner/{inner.name}", "patterns", PATTERNS.shape)
    path = training_file(tmp_path)
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset("patterns", layout)
    np.testing.assert_array_equal(load_scan(path).patterns, PATTERNS)
    (tmp_path / "inner" / "data_1.h5").unlink()
    refused(path, "no 'data_1.h5'")


def test_a_source_in_the_same_file(tmp_path):
    path = training_file(tmp_path)
    layout = h5py.VirtualLayout(PATTERNS.shape, PATTERNS.dtype)
    layout[:] = h5py.VirtualSource(".", "raw", PATTERNS.shape)
    with h5py.File(path, "a") as file:
        file["raw"] = PATTERNS
        file.create_virtual_dataset("patterns", layout)
    np.testing.assert_array_equal(load_scan(path).patterns, PATTERNS)
    with h5py.File(path, "a") as file:
        del file["raw"]
    refused(path, "no dataset 'raw'")


def test_selected_rows_of_a_source(tmp_path):
    """Every second pattern of a longer source: rows up to the last selected one are needed."""
    part(tmp_path / "long.h5", np.repeat(PATTERNS, 2, axis=0)[: 2 * n - 1])
    path = training_file(tmp_path)
    layout = h5py.VirtualLayout(PATTERNS.shape, PATTERNS.dtype)
    layout[:] = h5py.VirtualSource("long.h5", "x", (2 * n - 1, N, N))[::2]
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset("patterns", layout)
    np.testing.assert_array_equal(load_scan(path).patterns, PATTERNS)
    part(tmp_path / "long.h5", PATTERNS)
    refused(path, f"shape {PATTERNS.shape} instead of at least shape (11, 6, 6)")


def test_gaps_between_modules_stay_empty(tmp_path):
    """Parts without a source are no missing files."""
    part(tmp_path / "half.h5", PATTERNS[:, :, :2])
    path = training_file(tmp_path)
    layout = h5py.VirtualLayout(PATTERNS.shape, PATTERNS.dtype)
    layout[:, :, :2] = h5py.VirtualSource("half.h5", "x", (n, N, 2))
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset("patterns", layout, fillvalue=0)
    np.testing.assert_array_equal(load_scan(path, bad_pixels="off").patterns[:, :, :2], PATTERNS[:, :, :2])


def numbered_file(folder, numbers):
    """Return a file with one source for each block of two patterns, however many there are."""
    path = training_file(folder)
    space = h5py.h5s.create_simple(PATTERNS.shape, (h5py.h5s.UNLIMITED, N, N))
    space.select_hyperslab((0, 0, 0), count=(h5py.h5s.UNLIMITED, 1, 1), stride=(2, 1, 1), block=(2, N, N))
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_virtual(space, b"block_%b.h5", b"x", h5py.h5s.create_simple((2, N, N)))
    with h5py.File(path, "a") as file:
        h5py.h5d.create(file.id, b"patterns", h5py.h5t.NATIVE_UINT16, space, settings)
    for number in numbers:
        part(folder / f"block_{number}.h5", PATTERNS[2 * number : 2 * number + 2])
    return path


def test_numbered_sources_have_no_gap(tmp_path):
    np.testing.assert_array_equal(load_scan(numbered_file(tmp_path, (0, 1, 2))).patterns, PATTERNS)
    (tmp_path / "block_1.h5").unlink()
    refused(tmp_path / "scan.h5", "no 'block_1.h5'")


def test_a_missing_growing_source_is_named(tmp_path):
    path = training_file(tmp_path)
    unlimited = (h5py.h5s.UNLIMITED, N, N)
    spaces = []
    for _ in range(2):
        spaces.append(h5py.h5s.create_simple((0, N, N), unlimited))
        spaces[-1].select_hyperslab((0, 0, 0), count=(1, 1, 1), stride=(1, 1, 1), block=unlimited)
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_virtual(spaces[0], b"growing.h5", b"x", spaces[1])
    with h5py.File(path, "a") as file:
        h5py.h5d.create(file.id, b"patterns", h5py.h5t.NATIVE_UINT16, spaces[0], settings)
    refused(path, "no 'growing.h5'")
    with h5py.File(tmp_path / "growing.h5", "w") as file:
        file.create_dataset("x", data=PATTERNS, maxshape=(None, N, N))
    np.testing.assert_array_equal(load_scan(path).patterns, PATTERNS)


# Links and raw files


def test_a_missing_linked_file_is_named(tmp_path):
    path = training_file(tmp_path)
    with h5py.File(path, "a") as file:
        file["patterns"] = h5py.ExternalLink("linked.h5", "/x")
    part(tmp_path / "linked.h5", PATTERNS)
    np.testing.assert_array_equal(load_scan(path).patterns, PATTERNS)
    part(tmp_path / "linked.h5", PATTERNS, name="other")
    refused(path, "no '/x' in 'linked.h5'")
    (tmp_path / "linked.h5").unlink()
    refused(path, "no 'linked.h5'", "field 'patterns'")


@pytest.mark.parametrize("name", ["probe", "bad_pixels", "object", "object_pixel_width_m"])
@pytest.mark.parametrize(
    ("link", "word"),
    [
        (h5py.ExternalLink("gone.h5", "/x"), "no 'gone.h5'"),
        (h5py.SoftLink("/gone"), "broken link"),
        (h5py.SoftLink("/loop"), "broken link"),
    ],
)
def test_a_broken_link_is_no_absent_field(tmp_path, name, link, word):
    """Without a mask or probe the scan would be read, and reconstructed worse."""
    path = training_file(tmp_path, PATTERNS)
    with h5py.File(path, "a") as file:
        file["loop"] = h5py.SoftLink("/loop")
        if name in file:
            del file[name]
        file[name] = link
    refused(path, word, f"field '{name}'")


@pytest.mark.parametrize("bytes_left", [0, PATTERNS.nbytes - 1])
def test_a_short_raw_file_is_named(tmp_path, bytes_left):
    path = training_file(tmp_path)
    with h5py.File(path, "a") as file:
        file.create_dataset("patterns", PATTERNS.shape, "<u2", external=[("raw.bin", 0, h5py.h5f.UNLIMITED)])
    (tmp_path / "raw.bin").write_bytes(PATTERNS.tobytes())
    np.testing.assert_array_equal(load_scan(path).patterns, PATTERNS)
    (tmp_path / "raw.bin").write_bytes(PATTERNS.tobytes()[:bytes_left])
    refused(path, f"'raw.bin' with {bytes_left} instead of {PATTERNS.nbytes} bytes")
    (tmp_path / "raw.bin").unlink()
    refused(path, "no 'raw.bin'")


# Filters


def packed_file(path, code, name="patterns"):
    """Write patterns of a dataset that claims a filter, without packing them."""
    with h5py.File(path, "a") as file:
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_chunk((1, N, N))
        settings.set_filter(code, h5py.h5z.FLAG_OPTIONAL, (0, 2))
        space = h5py.h5s.create_simple(PATTERNS.shape)
        dataset = h5py.h5d.create(file.id, name.encode(), h5py.h5t.NATIVE_UINT16, space, settings)
        for number in range(n):
            dataset.write_direct_chunk((number, 0, 0), PATTERNS[number].tobytes(), 0)
    return path


def test_a_filter_that_no_plugin_has_is_named(tmp_path):
    error = refused(packed_file(training_file(tmp_path), 555), "compression", "HDF5 filter 555", "field 'patterns'")
    assert "HDF5_PLUGIN_PATH" in error.fix


def test_values_that_a_filter_cannot_unpack_are_damaged(tmp_path):
    refused(packed_file(training_file(tmp_path), 32008), "bitshuffle (HDF5 filter 32008)", "field 'patterns'")
    (tmp_path / "gzip").mkdir()
    refused(packed_file(training_file(tmp_path / "gzip"), 1), "gzip (HDF5 filter 1)", "field 'patterns'")


def test_a_missing_filter_of_a_virtual_source_is_named(tmp_path):
    path = virtual_file(tmp_path, ("data_0.h5",))
    layout = h5py.VirtualLayout(PATTERNS.shape, PATTERNS.dtype)
    layout[:] = h5py.VirtualSource("packed.h5", "x", PATTERNS.shape)
    packed_file(tmp_path / "packed.h5", 555, "x")
    with h5py.File(path, "a") as file:
        del file["patterns"]
        file.create_virtual_dataset("patterns", layout)
    refused(path, "HDF5 filter 555", "field 'patterns'")


@pytest.mark.parametrize(
    "options",
    [hdf5plugin.Bitshuffle(), hdf5plugin.LZ4(), hdf5plugin.Blosc(), hdf5plugin.Zstd(), {"compression": "lzf"}],
)
def test_compressed_patterns_are_read(tmp_path, options):
    path = training_file(tmp_path)
    with h5py.File(path, "a") as file:
        file.create_dataset("patterns", data=PATTERNS, **options)
    np.testing.assert_array_equal(load_scan(path).patterns, PATTERNS)


# Numbers


@pytest.mark.parametrize("names", [("r", "i"), ("real", "imag"), ("re", "im")])
def test_a_compound_of_two_parts_is_a_complex_probe(tmp_path, names):
    path = training_file(tmp_path, PATTERNS)
    probe = np.arange(N * N).reshape(N, N) - 3j
    stored = np.zeros((N, N), [(name, "<f8") for name in names])
    stored[names[0]], stored[names[1]] = probe.real, probe.imag
    with h5py.File(path, "a") as file:
        del file["probe"]
        file["probe"] = stored
    np.testing.assert_array_equal(load_scan(path).probe[0], probe)


@pytest.mark.parametrize(
    "values",
    [np.zeros(n, [("a", "f4"), ("b", "f4")]), np.zeros(n, [("r", "S1"), ("i", "S1")]), h5py.Empty("f4"), "text"],
)
def test_records_and_text_are_no_positions(tmp_path, values):
    path = training_file(tmp_path, PATTERNS)
    with h5py.File(path, "a") as file:
        del file["probe_position_y_px"]
        file["probe_position_y_px"] = values
    refused(path, "plain numbers", "field 'probe_position_y_px'")
