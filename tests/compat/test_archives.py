"""Other, damaged and malicious archives raise errors with the reason; nothing in them is executed."""

import io
import json
import os
import pickle
import zipfile

import h5py
import numpy as np
import pytest

from ptycho_backend.compat.predecessor.archive import read_archive
from ptycho_backend.compat.predecessor.conversion import convert
from ptycho_backend.compat.predecessor.keras_file import read_keras
from ptycho_backend.errors import ModelFileError
from ptycho_backend.model_file.zip_members import read_member


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def members_of(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


MANIFEST = pickle.dumps({"models": ["diffraction_to_obj"], "version": "1.0"})
FOREIGN = {
    "our own file": ({"manifest.json": "{}", "config.json": "{}"}, "already"),
    "a SavedModel": ({"manifest.dill": MANIFEST, "diffraction_to_obj/saved_model.pb": "x"}, "SavedModel"),
    "a checkpoint of Lightning": ({"archive/data.pkl": "x", "archive/version": "3"}, "PyTorch"),
    "an archive of the PyTorch port": ({"manifest.dill": MANIFEST, "diffraction_to_obj/model.pth": "x"}, "PyTorch"),
    "no manifest": ({"something": "x"}, "no member 'manifest.dill'"),
    "another manifest": ({"manifest.dill": pickle.dumps([1])}, "names neither"),
    "other models": ({"manifest.dill": pickle.dumps({"models": ["baseline"]})}, "names neither"),
    "no parameters": ({"manifest.dill": MANIFEST}, "params.dill"),
    "odd parameters": ({"manifest.dill": MANIFEST, "diffraction_to_obj/params.dill": pickle.dumps(3)}, "no dictionary"),
    "no network": ({"manifest.dill": MANIFEST, "diffraction_to_obj/params.dill": pickle.dumps({})}, "model.keras"),
    "a damaged manifest": ({"manifest.dill": MANIFEST[:-3]}, "manifest.dill"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_archives(kind, tmp_path):
    members, word = FOREIGN[kind]
    (tmp_path / "wts.h5.zip").write_bytes(zipped(members))
    for path in (tmp_path / "wts.h5.zip", tmp_path):
        with pytest.raises(ModelFileError) as caught:
            read_archive(path)
        assert word in str(caught.value)
        assert "wts.h5.zip" in caught.value.received


def test_other_files_and_folders(tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"anything")
    (tmp_path / "wts.h5").write_bytes(b"\x89HDF\r\n\x1a\n...")
    (tmp_path / "text.zip").write_bytes(b"no zip at all")
    (tmp_path / "saved/variables").mkdir(parents=True)
    (tmp_path / "saved/saved_model.pb").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    for name, word in {
        "model.ckpt": "PyTorch",
        "wts.h5": "HDF5",
        "text.zip": "not a readable zip",
        "saved": "SavedModel",
        "empty": "a folder without",
        "missing.zip": "no such file",
    }.items():
        with pytest.raises(ModelFileError) as caught:
            read_archive(tmp_path / name)
        assert word in str(caught.value), name


def test_nothing_is_executed_or_extracted(old_model, archive_of, tmp_path):
    old = old_model()

    class Malicious:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/ran",)

    contents = members_of(
        archive_of(old.keras_file, old.description, data_source=Malicious(), label=Malicious(), size=10**5000)
    )
    contents |= {name: pickle.dumps(Malicious()) for name in contents if name.endswith("custom_objects.dill")}
    contents |= {"../outside": b"x", "/tmp/outside": b"x", "diffraction_to_obj/../../escaped": b"x"}
    (tmp_path / "old.zip").write_bytes(zipped(contents))
    done = convert(tmp_path / "old.zip", tmp_path / "new")
    assert done.bundle.training.model.N == 64
    assert sorted(item.name for item in tmp_path.iterdir()) == ["new", "old.zip"]
    assert sorted(item.name for item in (tmp_path / "new").iterdir()) == ["config.yaml", "summary.json", "wts.h5.zip"]


def test_members_that_are_too_large():
    content = zipped({"big": b"0" * 100_000})
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert len(read_member(archive, "big")) == 100_000
        with pytest.raises(ValueError, match="claims 100000 bytes"):
            read_member(archive, "big", 99_999)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.999])
def test_a_truncated_archive(share, old_model, tmp_path):
    content = old_model().archive
    (tmp_path / "cut.zip").write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelFileError, match=r"cut\.zip"):
        convert(tmp_path / "cut.zip", tmp_path / "new")
    assert not (tmp_path / "new").exists()


# --- .keras files ----------------------------------------------------------------------------------------------------


def changed_config(keras_file, change):
    members = members_of(keras_file)
    config = json.loads(members["config.json"])
    change(config, {layer["config"]["name"]: layer for layer in config["config"]["layers"]})
    return zipped(members | {"config.json": json.dumps(config)})


def changed_weights(keras_file, change):
    members = members_of(keras_file)
    buffer = io.BytesIO(members["model.weights.h5"])
    with h5py.File(buffer, "r+") as file:
        change(file)
    return zipped(members | {"model.weights.h5": buffer.getvalue()})


def rename(name):
    def change(config, layers):
        text = json.dumps(config).replace(f'"{name}"', '"renamed"')
        config.clear()
        config.update(json.loads(text))

    return change


def resize(layer_name):
    def change(config, layers):
        layers[layer_name]["config"]["batch_shape"] = [None, 96, 96, 1]

    return change


CONFIGS = {
    "no complex object": (rename("obj"), "not the published network"),
    "no amplitude": (rename("amp"), "not the published network"),
    "another side": (resize("input"), "takes patterns of"),
    "another phase": (lambda _, layers: layers["phi"]["config"].update(scale=1.0), "phase is not"),
    "another amplitude": (lambda _, layers: layers["amp"]["config"].update(activation_name="elu"), "'elu'"),
    "no layers": (lambda config, _: config.pop("config"), "no functional model"),
    "layers of nothing": (lambda config, _: config["config"].update(layers=[3]), "no functional model"),
    "amplitude and phase not joined": (
        lambda _, layers: layers["obj"].update(inbound_nodes=layers["trimmed_obj"]["inbound_nodes"]),
        "does not join",
    ),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_other_graphs(kind, old_model, archive_of, tmp_path):
    old, (change, word) = old_model(), CONFIGS[kind]
    keras_file = changed_config(old.keras_file, change)
    (tmp_path / "old.zip").write_bytes(archive_of(keras_file, old.description))
    with pytest.raises(ModelFileError) as caught:
        convert(tmp_path / "old.zip", tmp_path / "new")
    assert word in str(caught.value)


def replaced(path, value):
    def change(file):
        del file[path]
        file[path] = value

    return change


WEIGHTS = {
    "a missing kernel": (lambda file: file.__delitem__("layers/conv2d_3/vars/0"), "cannot be read|missing"),
    "another shape": (replaced("layers/conv2d_3/vars/0", np.zeros((5, 5, 2, 2), "f4")), "has a kernel of"),
    "text": (replaced("layers/conv2d_3/vars/0", "words"), "plain numbers"),
    "whole numbers": (replaced("layers/conv2d_3/vars/1", np.zeros(64, "i4")), "plain numbers"),
    "NaN": (replaced("layers/conv2d_3/vars/1", np.full(64, np.nan, "f4")), "not finite"),
    "a link out of the file": (replaced("layers/conv2d_3", h5py.ExternalLink("/etc/passwd", "x")), "a link"),
    "a group": (
        lambda file: (file.__delitem__("layers/conv2d_3/vars/0"), file.create_group("layers/conv2d_3/vars/0")),
        "plain numbers",
    ),
    "a huge dataset": (lambda file: replace_by_huge_dataset(file, "layers/conv2d_3/vars/0"), "claims"),
    "no layers": (lambda file: file.__delitem__("layers"), "no layers"),
}


def replace_by_huge_dataset(file, path):
    del file[path]
    file.create_dataset(path, shape=(2**20, 2**20), dtype="f4", chunks=(64, 64))


@pytest.mark.parametrize("kind", WEIGHTS)
def test_other_weights(kind, old_model, archive_of, tmp_path):
    old, (change, words) = old_model(), WEIGHTS[kind]
    keras_file = changed_weights(old.keras_file, change)
    (tmp_path / "old.zip").write_bytes(archive_of(keras_file, old.description))
    with pytest.raises(ModelFileError, match=words):
        convert(tmp_path / "old.zip", tmp_path / "new")


def test_damaged_keras_files(old_model):
    content = old_model().keras_file
    for damaged in (b"", b"PK", content[:1000], zipped({"config.json": "{"}), zipped({"config.json": "[" * 100_000})):
        with pytest.raises(ValueError, match=r"keras|JSON|member"):
            read_keras(damaged)


def test_layers_are_identified_by_name(old_model):
    """Keras numbers weights by depth in the graph, and layers by order of creation."""
    old = old_model()
    file = read_keras(old.keras_file)
    stored = h5py.File(io.BytesIO(members_of(old.keras_file)["model.weights.h5"]))
    group = stored["layers/conv2d_12/vars"]
    name = group.attrs["name"]
    assert name != "conv2d_12"
    np.testing.assert_array_equal(file.convolutions[name][0], group["0"][()])
