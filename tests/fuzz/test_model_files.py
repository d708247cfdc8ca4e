"""Damaged and odd model files with correct checksums: a ModelFileError, or a model with finite values."""

import hashlib
import io
import json
import zipfile

import h5py
import numpy as np
import pytest

import ptycho_backend as pb
from ptycho_backend.errors import ModelFileError
from ptycho_backend.model_file.bundle import read_bundle
from ptycho_backend.network.loading import checked_bundle
from ptycho_backend.network.shipped import SHIPPED

from .test_scan_files import change_hdf5

with zipfile.ZipFile(SHIPPED) as shipped:
    MEMBERS = {name: shipped.read(name) for name in shipped.namelist()}


def right(result):
    if isinstance(result, pb.PtychoError):
        return isinstance(result, ModelFileError)
    values = [*result.weights.values(), result.calibration.probe]
    return all(np.isfinite(value).all() for value in values) and isinstance(result.history, list)


def write(path, changes):
    changed = {name: value for name, value in (MEMBERS | changes).items() if name != "manifest.json"}
    manifest = json.loads(changes.get("manifest.json", MEMBERS["manifest.json"]))
    if isinstance(manifest, dict):
        manifest["sha256"] = {name: hashlib.sha256(value).hexdigest() for name, value in changed.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in {"manifest.json": json.dumps(manifest).encode(), **changed}.items():
            archive.writestr(name, value)
    return path


def with_odd_places(values, draw, odd_value, share=0.05):
    """Return JSON values with some of them replaced."""
    if draw.random() < share:
        return odd_value()
    if isinstance(values, dict):
        return {key: with_odd_places(value, draw, odd_value) for key, value in values.items() if draw.random() > 0.01}
    if isinstance(values, list):
        return [with_odd_places(value, draw, odd_value) for value in values]
    return values


@pytest.mark.parametrize("member", ["config.json", "history.json", "manifest.json"])
def test_values_of_a_json_member(member, seed, draw, odd_value, outcome, tmp_path):
    values = with_odd_places(json.loads(MEMBERS[member]), draw, odd_value, share=0.1)
    path = write(tmp_path / "odd.zip", {member: json.dumps(values).encode()})
    assert right(outcome(checked_bundle, path))


def test_values_of_the_weights(seed, draw, odd_array, odd_value, outcome, tmp_path):
    weights = tmp_path / "weights.h5"
    weights.write_bytes(MEMBERS["weights.h5"])
    change_hdf5(weights, draw, odd_array, odd_value)
    assert right(outcome(checked_bundle, write(tmp_path / "odd.zip", {"weights.h5": weights.read_bytes()})))


def test_bytes_of_the_archive(seed, damaged, outcome, tmp_path):
    (tmp_path / "odd.zip").write_bytes(damaged(SHIPPED.read_bytes()))
    result = outcome(checked_bundle, tmp_path / "odd.zip")
    same = read_bundle(SHIPPED).weights
    assert isinstance(result, pb.PtychoError) or all((result.weights[key] == same[key]).all() for key in same)


def test_bytes_of_a_member(seed, draw, damaged, outcome, tmp_path):
    member = str(draw.choice(["config.json", "history.json"]))
    assert right(outcome(checked_bundle, write(tmp_path / "odd.zip", {member: damaged(MEMBERS[member])})))


def test_states_of_a_training(seed, draw, odd_array, odd_value, outcome, tmp_path):
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for name in ("first", "second", "best_weights"):
            file[f"{name}/a/kernel"] = np.ones((3, 3, 2, 2), "f4")
        for name in ("monitor", "schedule", "saved"):
            file.create_group(name).attrs["value"] = 1.0
        file.attrs.update({"epoch": 1.0, "batch": 0.0, "steps": 3.0, "loss_sum": 1.0, "groups": 2.0})
        file["probe"] = np.ones((1, 64, 64), "c8")
    state = tmp_path / "state.h5"
    state.write_bytes(content.getvalue())
    if seed:
        change_hdf5(state, draw, odd_array, odd_value)
    result = outcome(read_bundle, write(tmp_path / "odd.zip", {"trainer_state.h5": state.read_bytes()}))
    assert right(result)
    assert seed or result.state.epoch == 1
