"""State of a run folder: finished, running, half written, swapped and damaged."""

import json
import os
import shutil
import threading

import h5py
import numpy as np
import pytest

from ptycho_backend.data.image_file import RECONSTRUCTION
from ptycho_backend.data.product import INCOMPLETE
from ptycho_backend.data.run_claim import PROGRESS, claimed, control_folder
from ptycho_backend.data.run_folder import Contents
from ptycho_backend.data.run_folder import run_folder as run_of
from ptycho_backend.live import state as state_module
from ptycho_backend.live.curves import MAX_POINTS, error_curves, history_of, loss_curves
from ptycho_backend.live.state import RunState

METRICS = "metrics.csv"
CONTENTS = Contents((RECONSTRUCTION, METRICS), (RECONSTRUCTION,))


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Look at the folder on every request."""
    monkeypatch.setattr(state_module, "REFRESH_S", 0.0)


def values_of(state):
    return json.loads(state.document().content)


def test_a_finished_run(run_folder):
    values = values_of(RunState(run_folder))
    assert (values["name"], values["status"], values["owner"], values["note"]) == ("first", "complete", "", "")
    assert values["image"]["facts"]["size"] == "40 × 48 px of 10 nm"
    assert values["image"]["incomplete"] == ""
    assert values["errors"] == [{"name": "error", "x": [1, 2, 3], "y": [0.5, 0.25, 0.125]}]
    assert (values["stages"], values["messages"], values["losses"]) == ([], [], [])


def test_the_version_follows_the_content(run_folder, make_image):
    state = RunState(run_folder)
    first, picture = state.document(), state.picture("amplitude")
    assert state.document().version == first.version
    assert state.picture("amplitude") is picture
    make_image(2).save(run_folder / RECONSTRUCTION, overwrite=True)
    assert state.document().version != first.version
    changed = state.picture("amplitude")
    assert changed.version != picture.version
    assert changed.content != picture.content


def test_an_unfinished_image(run_folder, make_image):
    image = make_image(provenance={INCOMPLETE: "iterations: 3 of 10"})
    image.save(run_folder / RECONSTRUCTION, overwrite=True)
    values = values_of(RunState(run_folder))
    assert (values["status"], values["image"]["incomplete"]) == ("stopped", "iterations: 3 of 10")
    with claimed(run_folder):
        values = values_of(RunState(run_folder))
        assert values["status"] == "running"
        assert values["owner"].startswith(f"process {os.getpid()} on ")


def test_a_run_without_files_yet(tmp_path):
    state = RunState(tmp_path / "later")
    with claimed(tmp_path / "later"):
        values = values_of(state)
    assert (values["status"], values["image"], values["losses"], values["errors"]) == ("running", None, [], [])
    assert state.picture("amplitude") is None
    assert values_of(state)["status"] == "stopped"


def test_an_image_without_a_probe(run_folder, make_image):
    import dataclasses

    dataclasses.replace(make_image(), experiment=None).save(run_folder / RECONSTRUCTION, overwrite=True)
    state = RunState(run_folder)
    assert values_of(state)["image"]["probe"] is False
    assert state.picture("probe") is None
    assert state.picture("phase").content.startswith(b"\x89PNG")


def test_a_run_that_replaces_another_one(run_folder, make_image):
    """The view follows the new run, also across the swap; the old image is not mixed with the new losses."""
    state = RunState(run_folder)
    old = values_of(state)["image"]["version"]
    with run_of(run_folder, CONTENTS, overwrite=True) as new:
        assert new != run_folder
        (new / METRICS).write_text("epoch,a_train_loss\n1,0.5\n", encoding="utf-8")
        values = values_of(state)
        assert values["image"] is None
        assert values["losses"][0]["y"] == [0.5]
        make_image(3, name="new").save(new / RECONSTRUCTION)
        assert values_of(state)["image"]["title"] == "new"
    values = values_of(state)
    assert (values["status"], values["image"]["title"]) == ("complete", "new")
    assert values["image"]["version"] != old


def test_a_folder_that_vanishes(run_folder):
    state = RunState(run_folder)
    assert values_of(state)["image"] is not None
    shutil.rmtree(run_folder)
    values = values_of(state)
    assert (values["image"], values["status"]) == (None, "stopped")


def damaged(file):
    content = file.read_bytes()
    yield b""
    yield content[: len(content) // 2]
    yield b"no HDF5" * 100
    yield content[:600] + bytes(len(content) - 600)


def test_a_damaged_image_leaves_the_last_one(run_folder):
    file = run_folder / RECONSTRUCTION
    state, contents = RunState(run_folder), list(damaged(file))
    known = values_of(state)["image"]["version"]
    for number, content in enumerate(contents):
        file.write_bytes(content)
        os.utime(file, (number + 1, number + 1))
        values = values_of(state)
        assert values["image"]["version"] == known
        assert values["note"].startswith(f"{RECONSTRUCTION} cannot be read: ")
        assert state.picture("phase") is not None


def test_an_image_with_values_that_are_not_finite(run_folder):
    state = RunState(run_folder)
    with h5py.File(run_folder / RECONSTRUCTION, "r+") as file:
        file["object"][0, 0, 0] = np.nan
    values = values_of(state)
    assert values["image"] is None
    assert "object" in values["note"]


def test_a_picture_that_cannot_be_drawn_is_missing(run_folder, monkeypatch, caplog):
    def fail(image, name):
        raise ZeroDivisionError

    monkeypatch.setattr(state_module, "_drawn", fail)
    state = RunState(run_folder)
    assert state.picture("amplitude") is None
    assert "could not be drawn: ZeroDivisionError" in caplog.text
    assert values_of(state)["status"] == "complete"


def test_readers_in_threads_during_swaps(run_folder, make_image):
    """Twenty swaps under four readers: every answer is a state, and no reader fails."""
    state, stop, failures, seen = RunState(run_folder), threading.Event(), [], set()

    def read():
        while not stop.is_set():
            try:
                seen.add(values_of(state)["status"])
            except Exception as error:
                failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    image = make_image(4)
    for _ in range(20):
        with run_of(run_folder, CONTENTS, overwrite=True) as new:
            image.save(new / RECONSTRUCTION)
    stop.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert seen <= {"running", "complete", "stopped"}
    assert "running" in seen
    assert values_of(state)["status"] == "complete"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1, 2]",
        b"null",
        b'{"stages": 3, "errors": [1, null]}',
        b"[" * 10**5,
        b'{"errors": [{"stage": []}]}',
    ],
)
def test_a_record_of_another_form_is_ignored(run_folder, content):
    with claimed(run_folder) as control:
        (control / PROGRESS).write_bytes(content)
        values = values_of(RunState(run_folder))
    assert (values["status"], values["stages"], values["messages"]) == ("running", [], [])


def test_the_record_of_a_process_that_has_ended_is_ignored(run_folder):
    control = control_folder(run_folder)
    control.mkdir()
    (control / PROGRESS).write_text('{"stages": [{"stage": "iterations", "done": 1, "total": 2}]}', encoding="utf-8")
    assert values_of(RunState(run_folder))["stages"] == []
    with claimed(run_folder):
        assert len(values_of(RunState(run_folder))["stages"]) == 1
    assert not control.exists()


# --- curves ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "epochs"),
    [
        ("epoch,lr,a_train_loss\n1,0.1,2\n2,0.1,1\n", [1, 2]),
        ("epoch,lr,a_train_loss\n1,0.1,2\n2,0.1,1", [1]),  # being appended
        ("epoch,lr,a_train_loss\n1,0.1,2\n2,0.1\n3,0.1,1\n", [1, 3]),
        ("epoch,lr,a_train_loss\n1,0.1,x\n2,0.1,1\n", [2]),
        ("epoch,lr", []),
        ("", []),
        ("\n\n", []),
        ("\xff\n1\n", [None]),
    ],
)
def test_complete_lines_of_the_metrics(tmp_path, text, epochs):
    file = tmp_path / METRICS
    file.write_text(text, encoding="latin-1")
    assert [row.get("epoch") for row in history_of(file)] == epochs


def test_missing_metrics(tmp_path):
    assert history_of(tmp_path / METRICS) is None
    assert history_of(tmp_path) is None


def test_losses_are_curves():
    history = [{"epoch": 3.0, "lr": 0.1, "a_train_loss": 2.0}, {"epoch": 4.0, "a_train_loss": float("nan")}]
    assert loss_curves(history) == [{"name": "a_train_loss", "x": [3.0, 4.0], "y": [2.0, None]}]
    assert loss_curves([]) == []


def test_long_curves_are_thinned():
    (curve,) = error_curves([], np.linspace(1, 0, 5000).tolist())
    assert len(curve["x"]) == len(curve["y"]) == MAX_POINTS


def test_errors_of_every_stage():
    recorded = [{"stage": "a", "done": 1, "error": 0.5}, {"stage": "b", "done": 1, "error": None}]
    assert error_curves(recorded, [9.0]) == [
        {"name": "a", "x": [1.0], "y": [0.5]},
        {"name": "b", "x": [1.0], "y": [None]},
    ]
