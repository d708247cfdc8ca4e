"""Model files that are whole but odd: each is a ModelFileError when it is loaded, before any work."""

import hashlib
import io
import json
import os
import warnings
import zipfile

import h5py
import numpy as np
import pytest

import ptycho_backend as pb
from ptycho_backend.errors import ModelFileError
from ptycho_backend.model_file.bundle import FILE_NAME, read_bundle
from ptycho_backend.network.shipped import SHIPPED

with zipfile.ZipFile(SHIPPED) as shipped:
    MEMBERS = {name: shipped.read(name) for name in shipped.namelist()}
FIRST = "weights/step1/encoder0/conv0/kernel"
PROBE = "calibration/probe"


def write(path, changes=None, provenance=None, method=zipfile.ZIP_STORED, extra=()):
    """Write the shipped model with changed members and correct checksums."""
    changed = {name: value for name, value in (MEMBERS | (changes or {})).items() if name != "manifest.json"}
    manifest = json.loads(MEMBERS["manifest.json"])
    manifest["sha256"] = {name: hashlib.sha256(value).hexdigest() for name, value in changed.items()}
    if provenance is not None:
        manifest["provenance"] = provenance
    with zipfile.ZipFile(path, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a duplicate name
        for name, value in [("manifest.json", json.dumps(manifest).encode()), *changed.items(), *extra]:
            archive.writestr(name, value)
    return path


def weights(change):
    content = io.BytesIO(MEMBERS["weights.h5"])
    with h5py.File(content, "r+") as file:
        change(file)
    return {"weights.h5": content.getvalue()}


def put(key, value, **storage):
    def change(file):
        del file[key]
        file.create_dataset(key, data=value, **storage)

    return change


def claimed(key, shape, dtype="f4", **storage):
    def change(file):
        del file[key]
        file.create_dataset(key, shape, dtype, **storage)

    return change


def attribute(name, value):
    return lambda file: file["calibration"].attrs.__setitem__(name, value)


def twice(file):
    file["weights/again"] = file["weights/step1"]


def circle(file):
    file["weights/step1/again"] = file["weights"]


def without_value(file):
    del file[PROBE]
    file[PROBE] = h5py.Empty("c8")


def number_as_calibration(file):
    del file["calibration"]
    file["calibration"] = 1.0


def refused(path, *words):
    with pytest.raises(ModelFileError) as caught:
        pb.load_model(path)
    for word in (str(path), *words):
        assert word in str(caught.value)


def test_the_unchanged_model_is_read(tmp_path):
    assert read_bundle(write(tmp_path / "a.zip")).weights.keys() == read_bundle(SHIPPED).weights.keys()
    assert read_bundle(write(tmp_path / "b.zip", method=zipfile.ZIP_DEFLATED)).calibration.N == 64


HISTORIES = ["[1, 2]", "null", "5", '"text"', "{}", '[{"loss": "x"}]', '[{"loss": null}]', '[{"loss": true}]', "[[]]"]


@pytest.mark.parametrize("history", [*HISTORIES, f'[{{"loss": {"9" * 400}}}]', '[{"\\ud800": 1.0}]'])
def test_odd_histories(history, tmp_path):
    refused(write(tmp_path / "a.zip", {"history.json": history.encode()}), "history.json")


CHANGES = {
    "4 TB in a file of 1 MB": (claimed(FIRST, (10**6, 10**6), chunks=(1000, 1000)), "claims 4000000000000 bytes"),
    "packed 4 TB": (claimed(FIRST, (10**6, 10**6), chunks=(1000, 1000), compression="gzip"), "claims"),
    "values that are not stored": (claimed(FIRST, (3, 3, 8, 8)), "of which 0 are stored"),
    "a probe that is not stored": (claimed(PROBE, (1, 64, 64), "c8"), "of which 0 are stored"),
    "NaN": (put(FIRST, np.full((3, 3, 8, 8), np.nan, "f4")), "not finite"),
    "beyond float32": (put(FIRST, np.full((3, 3, 8, 8), 1e300)), "float32 cannot hold"),
    "another shape": (put(FIRST, np.ones((3, 3, 8, 9), "f4")), "shape"),
    "text": (put(FIRST, b"text"), "plain numbers"),
    "objects": (put(FIRST, ["a", "b"], dtype=h5py.string_dtype()), "plain numbers"),
    "a missing weight": (lambda file: file.__delitem__(FIRST), "missing"),
    "one group under two names": (twice, "twice"),
    "a group in itself": (circle, "twice"),
    "a probe of zeros": (put(PROBE, np.zeros((1, 64, 64), "c8")), "zeros only"),
    "a probe without a value": (without_value, "plain numbers"),
    "a real probe": (put(PROBE, np.ones((1, 64, 64))), "plain numbers"),
    "a probe of NaN": (put(PROBE, np.full((1, 64, 64), np.nan, "c8")), "not finite"),
    "a probe of two axes": (put(PROBE, np.ones((64, 64), "c8")), "(64, 64)"),
    "a probe that is no square": (put(PROBE, np.ones((1, 64, 32), "c8")), "(1, 64, 32)"),
    "a probe of another size": (put(PROBE, np.ones((1, 32, 32), "c8")), "N=64"),
    "a scale beyond float32": (attribute("rms_input_scale", 1e300), "rms_input_scale"),
    "a scale whose square is beyond float32": (attribute("rms_input_scale", 1e-30), "photon_scale"),
    "an infinite scale": (attribute("photon_scale", np.inf), "photon_scale"),
    "a scale of text": (attribute("photon_scale", "1"), "photon_scale"),
    "three scales": (attribute("photon_scale", np.ones(3)), "photon_scale"),
    "a number as hash": (attribute("probe_guess_sha256", 5), "probe_guess_sha256"),
    "a hash that is no UTF-8": (attribute("probe_guess_sha256", np.bytes_(b"\xff\xfe")), "weights.h5"),
    "calibration a data set": (number_as_calibration, "no group"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_odd_weights_and_calibrations(kind, tmp_path):
    change, word = CHANGES[kind]
    refused(write(tmp_path / "a.zip", weights(change)), word)


@pytest.mark.parametrize("key", [PROBE, FIRST])
@pytest.mark.parametrize("storage", ["external", "virtual", "link", "soft link"])
def test_values_of_other_files(key, storage, tmp_path):
    shape, dtype = ((1, 64, 64), "c8") if key == PROBE else ((3, 3, 8, 8), "f4")
    raw, other = tmp_path / "file-of-the-user", tmp_path / "other.h5"
    raw.write_bytes(np.full(shape, 0.5, dtype).tobytes())
    with h5py.File(other, "w") as file:
        file["x"] = np.full(shape, 0.25, dtype)

    def change(file):
        del file[key]
        if storage == "external":
            file.create_dataset(key, shape, dtype, external=[(str(raw), 0, h5py.h5f.UNLIMITED)])
        elif storage == "virtual":
            layout = h5py.VirtualLayout(shape, dtype)
            layout[...] = h5py.VirtualSource(str(other), "x", shape)
            file.create_virtual_dataset(key, layout)
        else:
            file[key] = h5py.ExternalLink(str(other), "x") if storage == "link" else h5py.SoftLink("/elsewhere")

    refused(write(tmp_path / "a.zip", weights(change)), "weights.h5")


PROVENANCES = {
    "a recipe of numbers": {"pretraining": {"recipe": [1, 2]}},
    "pretraining a text": {"pretraining": "long"},
    "conditions of text": {"conditions": {"size_px": ["a", "b"]}},
    "conditions without an end": {"conditions": {"size_px": [1]}},
    "unknown conditions": {"conditions": {"colour": [1, 2]}},
    "negative conditions": {"conditions": {"size_px": [-1, 2], "photons": [1, 2], "probe_size": [0.1, 0.2]}},
    "reversed conditions": {"conditions": {"size_px": [64, 32], "photons": [1, 2], "probe_size": [0.1, 0.2]}},
}


@pytest.mark.parametrize("kind", PROVENANCES)
def test_odd_provenance(kind, tmp_path):
    refused(write(tmp_path / "a.zip", provenance=PROVENANCES[kind]), "provenance")


@pytest.mark.parametrize("changes", [{"n_filters_scale": 16}, {"unrolled_steps": 8}, {"architecture": "cnn"}], ids=str)
def test_a_configuration_of_another_network_takes_no_memory(changes, tmp_path):
    values = json.loads(MEMBERS["config.json"])
    values["model"] |= changes
    refused(write(tmp_path / "a.zip", {"config.json": json.dumps(values).encode()}))


# --- archives ------------------------------------------------------------------------------------------------------


def test_a_member_that_is_there_twice_is_refused(tmp_path):
    refused(write(tmp_path / "a.zip", extra=[("config.json", b"{}")]), "2 members")


def test_a_member_that_unpacks_to_much_more_is_refused(tmp_path):
    refused(write(tmp_path / "a.zip", {"config.json": b" " * 2**27}, method=zipfile.ZIP_DEFLATED), "config.json")


def test_a_size_that_the_packed_bytes_cannot_hold_is_refused(tmp_path):
    path = write(tmp_path / "a.zip", method=zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\x01\x02", 0, content.rindex(b"history.json"))
    content[place + 24 : place + 28] = (2**26).to_bytes(4, "little")
    path.write_bytes(content)
    refused(path, "history.json")


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "nul", "long", "empty", "below a file"])
def test_paths_that_are_no_file(kind, tmp_path):
    path = tmp_path / "wts.h5.zip"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    places = {"device": "/dev/zero", "nul": "a\0b", "long": "x" * 5000, "below a file": f"{SHIPPED}/inside"}
    with pytest.raises(ModelFileError):
        pb.load_model(places.get(kind, path))
    if kind in ("pipe", "folder"):
        with pytest.raises(ModelFileError):
            pb.load_model(tmp_path)


@pytest.mark.parametrize("name", ["manifest.json", "weights.h5"])
def test_a_pipe_in_an_unpacked_folder_does_not_block(name, tmp_path):
    with zipfile.ZipFile(SHIPPED) as archive:
        archive.extractall(tmp_path)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    refused(tmp_path, name)
    assert not (tmp_path / FILE_NAME).exists()
