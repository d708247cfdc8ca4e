"""Import of damaged and misleading files (spec: data 3.2, 11): a scan, or an error of four lines with the file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

import ptycho_backend as pb
from ptycho_backend.config import from_dict
from ptycho_backend.errors import DataError, OutputError, PtychoError
from ptycho_backend.importing.arrays import arrays_in
from ptycho_backend.importing.description import ImportConfig

N, N_PATTERNS = 16, 12


def stack() -> np.ndarray:
    y, x = np.mgrid[:N, :N] - N // 2
    mean = 200 * np.exp(-(y**2 + x**2) / 8.0)
    return np.random.default_rng(0).poisson(mean, (N_PATTERNS, N, N)).astype(np.uint16)


@pytest.fixture
def positions(tmp_path):
    """Return the description of positions in object pixels."""
    np.save(tmp_path / "positions.npy", np.random.default_rng(1).uniform(0, 20, (N_PATTERNS, 2)))
    return {"y": str(tmp_path / "positions.npy"), "columns": "0,1", "unit": "px"}


def config_of(**sections) -> ImportConfig:
    return from_dict(ImportConfig, sections)


def assert_four_lines(error: PtychoError, name: str) -> None:
    assert len(str(error).splitlines()) == 4
    assert name in str(error)


def write_hdf5(path):
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("entry/data", data=stack(), chunks=(1, N, N), maxshape=(None, N, N))


def write_pages(path):
    with tifffile.TiffWriter(path) as file:
        for pattern in stack():
            file.write(pattern, contiguous=False)


WRITERS = {
    "a.npy": lambda path: np.save(path, stack()),
    "a.npz": lambda path: np.savez_compressed(path, dp=stack()),
    "a.h5": write_hdf5,
    "a.tif": lambda path: tifffile.imwrite(path, stack(), compression="zlib"),
    "b.tif": write_pages,
}


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    """Return a file with flipped bits, a number that promises too much, or a missing end."""
    values = bytearray(data)
    place = int(random.integers(min(len(values) - 4, int(random.choice([64, 512, len(values)])))))
    kind = random.integers(4)
    if kind == 0:
        return data[:place]
    if kind == 1:
        values[place] ^= 1 << int(random.integers(8))
    elif kind == 2:
        values[place : place + 4] = b"\xff\xff\xff\x7f"
    else:
        values[place:place] = random.bytes(5)
    return bytes(values)


@pytest.mark.parametrize("name", WRITERS)
def test_damaged_files_are_scans_or_errors_that_name_the_file(tmp_path, positions, name):
    path = tmp_path / name
    WRITERS[name](path)
    whole = path.read_bytes()
    n_errors = 0
    for seed in range(25):
        content = damaged(whole, np.random.default_rng(seed))
        path.write_bytes(content)
        try:
            scan = pb.import_scan(path, config_of(positions=positions), tmp_path / "out.h5")
        except PtychoError as error:
            n_errors += 1
            assert_four_lines(error, name)
            assert not (tmp_path / "out.h5").exists()
        else:
            assert len(scan.patterns) == N_PATTERNS
            (tmp_path / "out.h5").unlink()
        assert path.read_bytes() == content
    assert n_errors > 5


def test_a_tiff_tag_of_zero_is_damage(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack())
    with tifffile.TiffFile(path) as file:
        place = file.pages[0].tags["ImageWidth"].offset + 8
    content = bytearray(path.read_bytes())
    content[place : place + 4] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        arrays_in(path)
    assert_four_lines(error.value, "a.tif")


def test_a_damaged_name_in_hdf5_names_the_file(tmp_path):
    path = tmp_path / "a.h5"
    write_hdf5(path)
    with h5py.File(path, "a") as file:
        encoding = h5py.h5p.create(h5py.h5p.LINK_CREATE)
        encoding.set_char_encoding(h5py.h5t.CSET_UTF8)  # which the name is not
        file.id.links.create_soft(b"\x80data", b"/entry/data", lcpl=encoding)
    with pytest.raises(DataError) as error:
        arrays_in(path)
    assert_four_lines(error.value, "a.h5")


def test_damaged_groups_of_hdf5_name_the_file(tmp_path):
    path = tmp_path / "a.h5"
    write_hdf5(path)
    content = path.read_bytes()
    n_errors = 0
    for place in range(0, 1500, 11):
        path.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
        try:
            arrays_in(path)
        except DataError as error:
            assert_four_lines(error, "a.h5")
            n_errors += 1
    assert n_errors > 20


@pytest.mark.parametrize("option", ["files", "y", "text", "mask"])
def test_a_pipe_is_refused_without_waiting_for_its_writer(tmp_path, positions, option):
    np.save(tmp_path / "a.npy", stack())
    pipe = str(tmp_path / "pipe.npy")
    os.mkfifo(pipe)
    places = {"text": pipe, "columns": "0,1", "unit": "px"} if option == "text" else positions
    sections = {"positions": places | ({"y": pipe} if option == "y" else {})}
    sections |= {"detector": {"mask": pipe}} if option == "mask" else {}
    with pytest.raises(DataError, match="pipe, socket or device"):
        pb.import_scan(pipe if option == "files" else tmp_path / "a.npy", config_of(**sections))


def test_a_header_that_promises_terabytes_is_no_memory_error(tmp_path, positions):
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        file.create_dataset("d", (2**40, 1024, 1024), dtype="u1", chunks=(1, 1024, 1024))
        file.create_dataset("e", (10**6, 2048, 2048), dtype="u4", chunks=(1, 2048, 2048))
    np.save(tmp_path / "a.npy", stack())
    huge = str(tmp_path / "huge.h5")
    for name in "de":
        with pytest.raises(DataError, match="position") as error:
            pb.import_scan(f"{huge}:{name}", config_of(positions=positions))
        assert_four_lines(error.value, "patterns")
        detector = {"mask": f"{huge}:{name}"}
        with pytest.raises(DataError, match="one for every pattern") as error:
            pb.import_scan(tmp_path / "a.npy", config_of(positions=positions, detector=detector))
        assert_four_lines(error.value, "huge.h5")


@pytest.mark.parametrize("factor", [0.0, 1e300, 1e-10])
def test_values_that_no_scan_holds_leave_no_file(tmp_path, positions, factor):
    np.save(tmp_path / "a.npy", stack() * factor)
    sections = {"patterns": {"unit": "counts"}, "detector": {"centre_y_px": 8.0, "centre_x_px": 8.0}}
    with pytest.raises(DataError, match="hold photons") as error:
        pb.import_scan(tmp_path / "a.npy", config_of(positions=positions, **sections), tmp_path / "out.h5")
    assert_four_lines(error.value, "a.npy")
    assert not (tmp_path / "out.h5").exists()


def child(code: str, folder, **options) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(pb.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True, **options
    )


COMMAND = """
import sys
from ptycho_backend.cli import main
sys.exit(main(["import", "a.npy", "--positions.y", "positions.npy", "--positions.columns", "0,1",
               "--positions.unit", "px", "--output", "out.h5", "--no-progress"]))
"""


def test_a_full_disk_leaves_no_file(tmp_path, positions):
    np.save(tmp_path / "a.npy", np.tile(stack(), (1, 4, 4)))
    code = "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    code += f"resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n{COMMAND}"
    process = child(code, tmp_path)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "OutputError" in text
    assert "Traceback" not in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "positions.npy"]


def test_ctrl_c_during_the_writing_leaves_no_file(tmp_path, positions):
    np.save(tmp_path / "a.npy", stack())
    slow = "import time, ptycho_backend.importing.frames as f\nblocks = f.Frames.blocks\n"
    slow += "def wait(self):\n    for block in blocks(self):\n        yield block\n        time.sleep(60)\n"
    process = child(slow + "f.Frames.blocks = wait\n" + COMMAND, tmp_path)
    end = time.monotonic() + 60
    while not list(tmp_path.glob(".out.h5.*")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "positions.npy"]


def test_a_file_larger_than_the_memory_is_read_in_blocks(tmp_path):
    shape = (4096, 512, 512)  # 2 GiB of which little is on the disk
    with h5py.File(tmp_path / "a.h5", "w") as file:
        patterns = file.create_dataset("d", shape, dtype="u2", chunks=(64, 512, 512))
        patterns[0, 250:262, 250:262] = stack()[0, 2:14, 2:14]
    code = """
import resource, ptycho_backend as pb
from ptycho_backend.importing.arrays import open_array
source = open_array("a.h5:d")
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, used + 2**29))
for first in range(0, 4096, 256):
    source.read(slice(first, first + 128))
"""
    process = child(code, tmp_path)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 0, text


def test_an_output_that_the_system_refuses_is_an_output_error(tmp_path, positions):
    np.save(tmp_path / "a.npy", stack())
    os.mkfifo(tmp_path / "pipe.h5")
    (tmp_path / "folder.h5").mkdir()
    names = (
        "x" * 300 + ".h5",
        "null\0.h5",
        "half\ud800.h5",
        "missing/out.h5",
        "pipe.h5",
        "folder.h5",
        "out.txt",
        "out",
    )
    for name in names:
        with pytest.raises(OutputError) as error:
            pb.import_scan(tmp_path / "a.npy", config_of(positions=positions), tmp_path / name, overwrite=True)
        assert_four_lines(error.value, "")
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("kind", ["same", "link", "positions", "probe"])
def test_no_file_that_is_read_is_replaced(tmp_path, positions, kind):
    np.savez(tmp_path / "a.npz", dp=stack())
    np.savez(tmp_path / "places.npz", places=np.load(positions["y"]))
    np.savez(tmp_path / "probe.npz", probe=np.ones((N, N), complex))
    os.symlink(tmp_path / "a.npz", tmp_path / "link.npz")
    output = tmp_path / {"same": "a.npz", "link": "link.npz", "positions": "places.npz", "probe": "probe.npz"}[kind]
    before = output.read_bytes()
    sections = {"positions": positions | {"y": str(tmp_path / "places.npz")}}
    sections |= {"probe": {"array": str(tmp_path / "probe.npz")}}
    with pytest.raises(OutputError, match="which is read") as error:
        pb.import_scan(tmp_path / "a.npz", config_of(**sections), output, overwrite=True)
    assert_four_lines(error.value, output.name)
    assert output.read_bytes() == before
