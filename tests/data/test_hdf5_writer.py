"""Writer of training files: a round trip of every field, and nothing half-written (spec: data 3.3, 6.1, 8.1)."""

import resource
import signal

import h5py
import numpy as np
import pytest

from ptycho_backend.data.hdf5_writer import ScanFields, write_hdf5, write_hdf5_blocks
from ptycho_backend.data.readers import load_scan
from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import DataError, OutputError, ShapeError
from ptycho_backend.simulation.simulate import simulate_scan


@pytest.fixture(scope="module")
def scan():
    made = simulate_scan(N=16, n_positions=9, seed=3)
    attributes = {"sample": "leaf", "photon_energy_eV": 8000.5, "steps": [1, 2], "nested": {"a": None}}
    mask = made.mask.copy()
    mask[3, 5] = False
    return made.changed(
        mask=mask, pixel_size_m=(2.5e-8, 3e-8), attributes=attributes, obj_origin_px=(-4.25, 7.0), searched=()
    )


def fields_of(scan, **changes):
    values = {
        "positions_px": scan.positions_px,
        "mask": scan.mask,
        "measurement": scan.measurement,
        "probe": scan.probe,
    }
    return ScanFields(**{**values, **changes})


def test_round_trip_of_every_field(tmp_path, scan):
    read = load_scan(write_hdf5(scan, tmp_path / "scan.h5"), bad_pixels="off")
    assert read.patterns.dtype == scan.patterns.dtype
    for name in ("patterns", "probe", "mask", "obj"):
        np.testing.assert_array_equal(getattr(read, name), getattr(scan, name))
    np.testing.assert_allclose(read.positions_px, scan.positions_px, rtol=0, atol=1e-12)
    for name in ("measurement", "obj_origin_px", "pixel_size_m", "attributes"):
        assert getattr(read, name) == getattr(scan, name)


@pytest.mark.parametrize("N", [16, 17])
def test_positions_in_the_file_are_those_of_ptychodus(tmp_path, N):
    """The middle of the window, counted from the first pixel of the object."""
    obj = np.ones((40, 40), dtype=np.complex64)
    patterns, positions = np.ones((2, N, N), dtype=np.uint16), np.array([[3.0, 4.0], [10.0, 12.5]])
    made = Scan(patterns, positions, np.ones((N, N), dtype=complex), obj=obj, obj_origin_px=(2.0, -1.0))
    with h5py.File(write_hdf5(made, tmp_path / "scan.h5")) as file:
        first_pixel = file["probe_position_y_px"][:] - (N - 1) / 2, file["probe_position_x_px"][:] - (N - 1) / 2
    # Scan coordinate of pixel N//2, less N//2, is the first pixel of the window.
    np.testing.assert_allclose(first_pixel[0], positions[:, 0] - N // 2 - 2.0)
    np.testing.assert_allclose(first_pixel[1], positions[:, 1] - N // 2 + 1.0)


def test_optional_fields_may_be_absent(tmp_path, scan):
    path = write_hdf5_blocks(
        tmp_path / "scan.h5", [scan.patterns], scan.patterns.dtype, fields_of(scan, probe=None, pixel_size_m=None)
    )
    read = load_scan(path)
    assert read.pixel_size_m is None
    assert read.obj is None
    assert read.attributes == {"probe_guess": "patterns"}


def test_amplitude_is_declared(tmp_path, scan):
    amplitude = np.sqrt(scan.patterns).astype(np.float32)
    path = write_hdf5_blocks(
        tmp_path / "scan.h5", [amplitude], amplitude.dtype, fields_of(scan, measurement="amplitude")
    )
    assert load_scan(path).measurement == "amplitude"


def test_blocks_are_streamed_into_contiguous_patterns(tmp_path, scan):
    """Each block is taken once, in order, and a reader can map the values."""
    taken = []

    def blocks():
        for first in range(0, 9, 2):
            taken.append(first)
            yield scan.patterns[first : first + 2]

    path = write_hdf5_blocks(tmp_path / "scan.h5", blocks(), scan.patterns.dtype, fields_of(scan))
    assert taken == [0, 2, 4, 6, 8]
    with h5py.File(path) as file:
        dataset = file["patterns"]
        assert dataset.chunks is None
        offset = dataset.id.get_offset()
    mapped = np.memmap(path, scan.patterns.dtype, mode="r", offset=offset, shape=scan.patterns.shape)
    np.testing.assert_array_equal(mapped, scan.patterns)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, RuntimeError("damaged chunk")])
def test_an_interrupted_file_leaves_the_old_one(tmp_path, scan, error):
    def blocks():
        yield scan.patterns[:4]
        raise error

    path = tmp_path / "scan.h5"
    path.write_bytes(b"old")
    expected = DataError if isinstance(error, RuntimeError) else error
    with pytest.raises(expected):
        write_hdf5_blocks(path, blocks(), scan.patterns.dtype, fields_of(scan), overwrite=True)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_existing_file_is_replaced_on_request(tmp_path, scan):
    path = write_hdf5(scan, tmp_path / "scan.h5")
    with pytest.raises(OutputError, match="exists"):
        write_hdf5(scan, path)
    write_hdf5(scan.subset(slice(0, 3)), path, overwrite=True)
    assert len(load_scan(path)) == 3


def test_lack_of_space_is_an_error_before_any_block_is_read(tmp_path, scan):
    """A limit on the size of files stands in for a full disk: the space is reserved first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    taken = []

    def blocks():
        taken.append(1)
        yield np.zeros((1000, 16, 16), dtype=np.uint16)

    fields = fields_of(scan, positions_px=np.zeros((1000, 2)))
    try:
        with pytest.raises(OutputError, match=r"scan\.h5"):
            write_hdf5_blocks(tmp_path / "scan.h5", blocks(), np.uint16, fields)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert taken == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("n", "side"), [(8, 16), (10, 16), (9, 15)])
def test_blocks_have_one_pattern_for_every_position(tmp_path, scan, n, side):
    blocks = iter(np.ones((n, 1, side, side), dtype=np.uint16))
    with pytest.raises(ShapeError, match="Every position has one pattern"):
        write_hdf5_blocks(tmp_path / "scan.h5", blocks, np.uint16, fields_of(scan))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_an_output_error(tmp_path, scan):
    with pytest.raises(OutputError, match="none"):
        write_hdf5(scan, tmp_path / "none" / "scan.h5")
