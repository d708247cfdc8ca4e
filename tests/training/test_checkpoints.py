"""Checkpoints: round trip, refused files, full disks, the best epochs on disk."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import zipfile
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho_backend.config import ExecutionConfig, ModelConfig, TrainingConfig
from ptycho_backend.errors import ConfigError, DataError, ModelFileError, OutputError
from ptycho_backend.model_file.bundle import STATE, Bundle, read_bundle, write_bundle
from ptycho_backend.model_file.hdf5_weights import state_from_bytes, state_to_bytes
from ptycho_backend.model_file.trainer_state import ARRAYS, MAPPINGS, NUMBERS, TrainerState
from ptycho_backend.physics.calibration import Calibration
from ptycho_backend.training import checkpoints as module
from ptycho_backend.training.checkpoints import (
    LAST,
    CheckpointWriter,
    check_resumable,
    checkpoint_name,
    displaced_by,
    read_checkpoint,
)

PROBE = np.full((1, 32, 32), 1 + 2j, np.complex64)


def state(**fields):
    rng = np.random.default_rng(3)
    arrays = {"step1/head/kernel": rng.normal(size=(3, 3, 2, 2)).astype(np.float32), "log_scale": np.float32(0.5)}
    values = {
        "epoch": 3,
        "batch": 2,
        "steps": 17,
        "loss_sum": -1.25,
        "groups": 8.0,
        "first": arrays,
        "second": {name: np.square(value) for name, value in arrays.items()},
        "monitor": {"best": np.inf, "best_epoch": 0.0, "epochs": 3.0},
        "saved": {"epoch=001-poisson_val_loss=0.5.h5.zip": 0.5},
        "best_weights": arrays,
        "probe": PROBE,
    }
    return TrainerState(**{**values, **fields})


def bundle(trainer_state=None):
    return Bundle(
        training=TrainingConfig(model=ModelConfig(N=32), backend="pytorch", nepochs=9),
        calibration=Calibration(0.1, PROBE * 2, photons_per_pattern=1e5, photon_scale=1.0, probe_guess_sha256="ab"),
        weights={"log_scale": np.float32(0.25).reshape(())},
        provenance={"data_sha256": "0123456789abcdef0123"},
        state=trainer_state,
    )


def test_a_state_round_trips_exactly():
    before, after = state(), state_from_bytes(state_to_bytes(state()))
    for name in (*NUMBERS, *MAPPINGS):
        assert getattr(after, name) == getattr(before, name)
        assert type(getattr(after, name)) is type(getattr(before, name))
    for name in ARRAYS:
        assert set(getattr(after, name)) == set(getattr(before, name))
        for key, value in getattr(before, name).items():
            np.testing.assert_array_equal(getattr(after, name)[key], value)
    np.testing.assert_array_equal(after.probe, before.probe)


@pytest.mark.parametrize(("name", "value"), [("epoch", -1), ("steps", float("nan")), ("groups", float("inf"))])
def test_impossible_numbers_are_errors(name, value):
    with pytest.raises(ValueError, match=name):
        state_from_bytes(state_to_bytes(state(**{name: value})))


def test_a_checkpoint_is_a_model_file_with_the_first_probe(tmp_path):
    write_bundle(tmp_path / LAST, bundle(state()))
    found = read_checkpoint(tmp_path)
    np.testing.assert_array_equal(found.calibration.probe, PROBE)
    assert read_bundle(tmp_path / LAST).state.steps == 17
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(tmp_path / LAST) as archive:
        archive.extractall(unpacked)
    assert read_bundle(unpacked).state.steps == 17


def test_a_damaged_or_unlisted_state_is_an_error_that_names_it(tmp_path):
    write_bundle(tmp_path / LAST, bundle(state()))
    with zipfile.ZipFile(tmp_path / LAST) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    broken = bytearray(members[STATE])
    broken[len(broken) // 2] ^= 1
    with zipfile.ZipFile(tmp_path / LAST, "w") as archive:
        for name, content in {**members, STATE: bytes(broken)}.items():
            archive.writestr(name, content)
    with pytest.raises(ModelFileError, match=STATE):
        read_checkpoint(tmp_path)
    manifest = json.loads(members["manifest.json"])
    del manifest["sha256"][STATE]  # added later, without a checksum
    with zipfile.ZipFile(tmp_path / LAST, "w") as archive:
        for name, content in {**members, "manifest.json": json.dumps(manifest)}.items():
            archive.writestr(name, content)
    with pytest.raises(ModelFileError, match=STATE):
        read_checkpoint(tmp_path)


def test_links_out_of_a_state_are_errors(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["value"] = np.ones(3, np.float32)
    path = tmp_path / "state.h5"
    path.write_bytes(state_to_bytes(state()))
    with h5py.File(path, "r+") as file:
        file["first/outside"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "value")
    with pytest.raises(ValueError, match="link out of the file"):
        state_from_bytes(path.read_bytes())


def test_without_a_checkpoint_resuming_is_an_error(tmp_path):
    with pytest.raises(ModelFileError, match="none in"):
        read_checkpoint(tmp_path)
    write_bundle(tmp_path / LAST, bundle())
    with pytest.raises(ModelFileError, match="finished model"):
        read_checkpoint(tmp_path)


def test_only_epochs_and_engine_may_change():
    earlier = bundle(state())
    same = dataclasses.replace(earlier.training, nepochs=20, backend="tensorflow")
    data = {"data_sha256": "0123456789abcdef0123"}
    check_resumable(earlier, same, data)
    with pytest.raises(ConfigError, match=r"seed=0(.|\n)*seed=4"):
        check_resumable(earlier, dataclasses.replace(same, seed=4), data)
    with pytest.raises(DataError, match=r"no validation scan(.|\n)*cafecafe"):
        check_resumable(earlier, same, data | {"validation_sha256": "cafecafe"})
    with pytest.raises(DataError, match="feedfeed"):
        check_resumable(earlier, same, {"data_sha256": "feedfeedfeedfeedfeed"})


@pytest.fixture
def writer(tmp_path, monkeypatch):
    """Return a checkpoint writer that needs no real model."""
    monkeypatch.setattr(module, "bundle_of", lambda model, history, provenance: bundle())
    return CheckpointWriter(tmp_path / "checkpoints", {}, ExecutionConfig(save_top_k=1))


MODEL = SimpleNamespace(calibration=bundle().calibration, training=bundle().training)


def test_a_full_disk_is_a_warning_and_the_last_file_stays(writer, monkeypatch, caplog):
    writer.write(writer.last, MODEL, [], state(epoch=1))
    before = writer.last.read_bytes()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ptycho_backend.model_file.bundle.zipfile.ZipFile.writestr", full)
    with caplog.at_level(logging.WARNING):
        writer.write(writer.last, MODEL, [], state(epoch=2))
    assert "checkpoint of epoch 2 not written" in caplog.text
    assert "No space left" in caplog.text
    assert writer.last.read_bytes() == before
    assert [path.name for path in writer.folder.iterdir() if path.name.endswith(".tmp")] == []


def epoch_of(writer, number, loss, trainer_state):
    best = SimpleNamespace(monitor_name="m", mode="min")
    writer.write_epoch(MODEL, [{"epoch": number, "m": loss}], trainer_state, best)
    return sorted(path.name for path in writer.folder.glob("*.zip"))


def test_best_epochs_of_an_earlier_training_are_removed_with_the_first_checkpoint(writer):
    earlier, later = checkpoint_name(1, "m", 0.1), checkpoint_name(1, "m", 0.5)
    assert epoch_of(writer, 1, 0.1, state(saved={})) == [earlier, LAST]
    new = CheckpointWriter(writer.folder, {}, ExecutionConfig(save_top_k=1))
    assert epoch_of(new, 1, 0.5, state(saved={})) == [later, LAST]


def test_a_resumed_training_keeps_its_best_epochs(writer):
    best = checkpoint_name(1, "m", 0.1)
    epoch_of(writer, 1, 0.1, state(saved={}))
    resumed = CheckpointWriter(writer.folder, {}, ExecutionConfig(save_top_k=1))
    assert epoch_of(resumed, 2, 0.5, state(saved={best: 0.1})) == [best, LAST]


def test_a_failed_checkpoint_removes_no_earlier_one(writer, monkeypatch):
    before = epoch_of(writer, 1, 0.1, state(saved={}))
    new = CheckpointWriter(writer.folder, {}, ExecutionConfig(save_top_k=1))

    def full(*_, **__):
        raise OutputError("rule", "expected", "no space left", "fix")

    monkeypatch.setattr(module, "write_bundle", full)
    assert epoch_of(new, 1, 0.5, state(saved={})) == before


def test_two_trainings_with_one_folder(writer, tmp_path):
    other = CheckpointWriter(writer.folder, {})
    with writer.claimed(), pytest.raises(OutputError, match="one command at a time"), other.claimed():
        pytest.fail("two trainings")
    silent = CheckpointWriter(writer.folder, {}, silent=True)
    with writer.claimed(), silent.claimed():
        pass
    with other.claimed():
        pass
    assert [item.name for item in tmp_path.iterdir()] == ["checkpoints"]


def test_too_little_free_space_is_an_error_before_training(writer, monkeypatch):
    model = SimpleNamespace(get_weights=lambda: {"kernel": np.zeros(250_000, np.float32)})
    writer.check_free_space(model)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=11_900_000))
    with pytest.raises(OutputError, match="12 MB for files of 4 MB"):
        writer.check_free_space(model)


def test_a_folder_that_cannot_be_created_is_an_error_before_training(tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(OutputError, match="file"):
        CheckpointWriter(tmp_path / "file" / "checkpoints", {})


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.integers(-1, 3), st.sampled_from(["min", "max"]))
def test_the_best_k_are_saved(values, k, mode):
    """Of equal values the earlier one is removed first, as by Lightning's own callback."""
    saved: dict[str, float] = {}
    for epoch, value in enumerate(values, start=1):
        displaced = displaced_by(value, saved, k, mode)
        if displaced is not None:
            saved.pop(displaced, None)
            saved[checkpoint_name(epoch, "m", value)] = value
    sign = 1 if mode == "min" else -1
    best = sorted(sign * value for value in values)
    assert sorted(sign * value for value in saved.values()) == (best if k < 0 else best[:k])
    assert all(name.startswith(f"epoch={int(name[6:9]):03d}-m={value:.6g}") for name, value in saved.items())
