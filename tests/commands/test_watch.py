"""``ptychopinn watch``: its messages, a real process, and a reconstruction that goes on."""

import json
import os
import signal
import sys
import time
import urllib.request
import webbrowser

import numpy as np
import pytest

from ptycho_backend.commands import incremental_image, watch
from ptycho_backend.data.image import Image
from ptycho_backend.data.image_file import RECONSTRUCTION
from ptycho_backend.data.npz import write_npz
from ptycho_backend.data.run_claim import claimed
from ptycho_backend.errors import DataError
from ptycho_backend.live import record


@pytest.fixture
def run_folder(tmp_path):
    """Return the folder of a finished reconstruction."""
    folder = tmp_path / "first"
    folder.mkdir()
    obj = np.ones((20, 24), dtype=np.complex64)
    Image(obj, np.ones(obj.shape, dtype=np.float32), (0.0, 0.0)).save(folder / RECONSTRUCTION)
    return folder


def state_of(url):
    with urllib.request.urlopen(f"{url}state.json", timeout=20) as answer:
        return json.load(answer)


# --- folders that are no run ----------------------------------------------------------------------------------------


def test_a_missing_folder_is_an_error(ptychopinn, fails_with, run_folder):
    fails_with(ptychopinn("watch", run_folder.parent / "frist"), 1, "which does not exist", "did you mean 'first'?")


def test_a_file_is_an_error(ptychopinn, fails_with, run_folder):
    fails_with(ptychopinn("watch", run_folder / RECONSTRUCTION), 1, "a file", f"ptychopinn info {RECONSTRUCTION}")


def test_another_folder_is_an_error(ptychopinn, fails_with, tmp_path):
    (tmp_path / "notes.txt").write_text("", encoding="utf-8")
    fails_with(ptychopinn("watch", tmp_path), 1, "with notes.txt")


def test_a_damaged_run_is_shown(run_folder):
    (run_folder / RECONSTRUCTION).write_bytes(b"no HDF5")
    watch.check_run(run_folder)


@pytest.mark.parametrize("name", ["a" * 300, "x\0y"])
def test_a_refused_name_is_an_error(tmp_path, name):
    with pytest.raises(DataError):
        watch.check_run(tmp_path / name)


def test_a_loop_of_links_is_an_error(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DataError):
        watch.check_run(tmp_path / "loop")


def test_no_folder_is_misuse(ptychopinn, fails_with):
    fails_with(ptychopinn("watch"), 2, "RUN")


@pytest.mark.parametrize("port", ["70000", "-1", "x"])
def test_a_wrong_port_is_misuse(ptychopinn, fails_with, run_folder, port):
    fails_with(ptychopinn("watch", run_folder, f"--port={port}"), 2, port)


def test_a_run_without_files_is_accepted_while_it_goes_on(tmp_path):
    with claimed(tmp_path / "later"):
        watch.check_run(tmp_path / "later")
    with pytest.raises(DataError):
        watch.check_run(tmp_path / "later")


# --- browser --------------------------------------------------------------------------------------------------------


def test_the_browser_opens_the_page(monkeypatch, caplog):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or True)
    watch.open_browser("http://127.0.0.1:1/x/")
    assert opened == ["http://127.0.0.1:1/x/"]
    assert caplog.text == ""


def test_a_missing_browser_is_a_warning(monkeypatch, caplog):
    def fail(url):
        raise webbrowser.Error

    for replacement in (lambda url: False, fail):
        monkeypatch.setattr(webbrowser, "open", replacement)
        watch.open_browser("http://127.0.0.1:1/x/")
    assert caplog.text.count("no browser could be opened") == 2


# --- processes ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for a child")
def test_a_process_serves_until_ctrl_c(started, run_folder):
    process = started("watch", run_folder, "--quiet")
    first, url = process.stdout.readline(), process.stdout.readline().strip()
    assert first.startswith("Watching '")
    assert url.startswith("http://127.0.0.1:")
    assert state_of(url)["status"] == "complete"
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, "", "Interrupted\n")


def test_a_reconstruction_is_watched(ptychopinn, scan, tmp_path, monkeypatch):
    """Every event of a real command is followed by a look at its live view."""
    from ptycho_backend.live import state as state_module
    from ptycho_backend.live.state import RunState

    for module, name in ((incremental_image, "WRITE_EVERY_S"), (record, "WRITE_EVERY_S"), (state_module, "REFRESH_S")):
        monkeypatch.setattr(module, name, 0.0)
    monkeypatch.setattr(incremental_image, "WRITING_SHARE", 1e9)
    target, values = tmp_path / "images", []
    state = RunState(target)
    original = record.ProgressRecord.__call__

    def observed(self, event):
        original(self, event)
        values.append(json.loads(state.document().content))

    monkeypatch.setattr(record.ProgressRecord, "__call__", observed)
    write_npz(scan, tmp_path / "scan.npz")
    options = ("--inference.iterations=4", "--inference.probe-iterations=2", "--backend=numpy")
    outcome = ptychopinn("reconstruct", tmp_path / "scan.npz", "--output", target, *options)
    assert outcome.status == 0, outcome.err
    assert {each["status"] for each in values} == {"running"}
    assert any(each["image"] and each["image"]["incomplete"].startswith("iterations: ") for each in values)
    assert max(len(curve["y"]) for each in values for curve in each["errors"]) >= 4
    assert values[-1]["stages"][-1]["total"] > 0
    time.sleep(0.01)
    end = json.loads(state.document().content)
    assert (end["status"], end["stages"], end["image"]["incomplete"]) == ("complete", [], "")
    assert not list(tmp_path.glob(".*"))
