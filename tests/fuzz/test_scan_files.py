"""Damaged and odd scan files: an error with four lines, or a scan with finite values."""

import io
import shutil
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest

import ptycho_backend as pb
from ptycho_backend.data.hdf5_writer import write_hdf5

from ..importing import layouts

SCAN = pb.simulate_scan(N=32, n_positions=12, seed=5)


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return pb.write_npz(SCAN, tmp_path_factory.mktemp("npz") / "scan.npz")


@pytest.fixture(scope="module")
def hdf5(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hdf5")
    write_hdf5(SCAN, folder / "scan.h5")
    image = pb.Image(SCAN.obj, np.ones(SCAN.obj.shape, "f4"), SCAN.obj_origin_px)
    return {
        "training": folder / "scan.h5",
        "cxi": layouts.cxi(folder, layouts.truth(12))[0],
        "image": image.save(folder / "image.h5"),
    }


def right(result):
    """Return whether a result is an error of the package, or a scan whose numbers are finite."""
    if isinstance(result, pb.PtychoError):
        return True
    finite = np.isfinite(result.positions_px).all() and np.isfinite(result.probe).all()
    return bool(finite and np.isfinite(result.amplitude()).all() and len(result) == len(result.positions_px))


def test_arrays_of_an_npz_file(seed, draw, odd_array, outcome, npz, tmp_path):
    arrays = dict(np.load(npz))
    for key in draw.choice(list(arrays), draw.integers(1, 4), replace=False):
        if draw.random() < 0.2:
            del arrays[key]
        else:
            arrays[key] = odd_array(arrays[key])
    np.savez(tmp_path / "odd.npz", **arrays)
    assert right(outcome(pb.load_scan, tmp_path / "odd.npz"))


def test_bytes_of_an_npz_file(seed, damaged, outcome, npz, tmp_path):
    (tmp_path / "odd.npz").write_bytes(damaged(npz.read_bytes()))
    assert right(outcome(pb.load_scan, tmp_path / "odd.npz"))


def test_headers_of_an_npz_file(seed, draw, outcome, npz, tmp_path):
    with zipfile.ZipFile(npz) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = str(draw.choice(list(members)))
    array = np.load(io.BytesIO(members[name]))
    shape = tuple(int(side) for side in draw.choice([0, 1, 3, 2**20, 2**40, 2**62], draw.integers(0, 4)))
    descr = str(draw.choice(["<f4", "<f8", "|O", "<U9", "<c16", "|V8", "?", "<f99"]))
    header = f"{{'descr': {descr!r}, 'fortran_order': {bool(draw.integers(2))}, 'shape': {shape}, }}".encode()
    body = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + array.tobytes()
    with zipfile.ZipFile(tmp_path / "odd.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for key, content in (members | {name: body}).items():
            archive.writestr(key, content)
    assert right(outcome(pb.load_scan, tmp_path / "odd.npz"))


def names_of(file):
    names = []
    file.visititems(lambda name, item: names.append(name))
    return names


def change_hdf5(path, draw, odd_array, odd_value):
    """Replace some objects or attributes of an HDF5 file."""
    with h5py.File(path, "r+") as file:
        for _ in range(draw.integers(1, 4)):
            names = names_of(file)
            name = str(draw.choice(names)) if names else "new"
            kind, item = draw.integers(8), file.get(name)
            if kind == 0 and item is not None and item.attrs:
                key = str(draw.choice(list(item.attrs)))
                odd = (np.bytes_(b"\xff\xfe"), h5py.Empty("f8"), np.ones(3), "text", np.nan, -1.0, 0, 1e300)
                item.attrs[key] = odd[draw.integers(len(odd))]
                continue
            array = item[()] if isinstance(item, h5py.Dataset) and item.shape and item.size < 2**20 else np.ones(3)
            if name in file:
                del file[name]
            if kind in (1, 2, 3):
                changed = odd_array(array)
                file[name] = str(changed) if changed.dtype.kind == "U" else changed
            elif kind == 4:
                file.create_group(name)
            elif kind == 5:
                file[name] = (h5py.SoftLink("/nowhere"), h5py.SoftLink(f"/{name}"), h5py.ExternalLink("no.h5", "/x"))[
                    draw.integers(3)
                ]
            elif kind == 6:
                side = int(draw.choice([2**10, 2**20, 2**30]))
                file.create_dataset(name, (2, side, side), "f4", chunks=(1, 512, 512))


@pytest.mark.parametrize("kind", ["training", "cxi", "image"])
def test_values_of_an_hdf5_file(kind, seed, draw, odd_array, odd_value, outcome, hdf5, tmp_path):
    path = tmp_path / f"odd{hdf5[kind].suffix}"
    shutil.copy(hdf5[kind], path)
    change_hdf5(path, draw, odd_array, odd_value)
    if kind == "image":
        result = outcome(pb.load_image, path)
        assert isinstance(result, pb.PtychoError) or np.isfinite(result.obj).all()
    else:
        assert right(outcome(pb.load_scan, path))


READ = """
import sys, warnings
import ptycho_backend as pb
warnings.simplefilter("ignore")
for path in sys.argv[1:]:
    try:
        (pb.load_image if "image" in path else pb.load_scan)(path)
    except pb.PtychoError:
        pass
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["training", "cxi", "image"])
def test_bytes_of_an_hdf5_file(kind, hdf5, tmp_path):
    """The HDF5 library reads damaged bytes in C, so a process of its own contains a crash."""
    from .conftest import damage

    paths = []
    for seed in range(60):
        path = tmp_path / f"{kind}-{seed}{hdf5[kind].suffix}"
        path.write_bytes(damage(hdf5[kind].read_bytes(), np.random.default_rng([seed, 20])))
        paths.append(str(path))
    done = subprocess.run([sys.executable, "-c", READ, *paths], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
