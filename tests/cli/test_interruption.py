"""Ctrl-C: status 130, a sentence on what was kept, no traceback, no unfinished file."""

import os
import signal
import subprocess
import sys
import time

import pytest

from ptycho_backend import api, progress
from ptycho_backend.commands import results
from ptycho_backend.events import BatchEvent

CORE = "config.yaml, metrics.csv, summary.json, wts.h5.zip"


def interrupting(*_, **__):
    raise KeyboardInterrupt


def test_before_anything_is_complete_nothing_is_kept(scan_file, ptychopinn, tmp_path, monkeypatch):
    monkeypatch.setattr(api, "train", interrupting)
    monkeypatch.setattr("ptycho_backend.commands.train.get_backend", lambda name: type("E", (), {"devices": list}))
    outcome = ptychopinn("train", scan_file, "--output", tmp_path / "deep" / "run")
    assert outcome.status == 130
    assert outcome.err == "Interrupted: nothing was complete yet, nothing is kept\n"
    assert list(tmp_path.iterdir()) == []


def test_after_training_the_model_is_kept(scan_file, ptychopinn, quick, needs_pytorch, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "fit_to_scan", interrupting)
    outcome = ptychopinn("train", scan_file, "--output", tmp_path / "run", *quick)
    assert outcome.status == 130
    assert f"Interrupted: kept in '{tmp_path / 'run'}': {CORE}\n" in outcome.err
    assert "Traceback" not in outcome.err


def test_outside_of_a_run_folder_it_is_one_word(ptychopinn, tmp_path, monkeypatch):
    monkeypatch.setattr("ptycho_backend.commands.simulate.simulate_scan", interrupting)
    outcome = ptychopinn("simulate", "--output", tmp_path / "scan.npz")
    assert (outcome.status, outcome.err) == (130, "Interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_the_signal_during_training_ends_the_command(
    scan_file, ptychopinn, quick, needs_pytorch, tmp_path, monkeypatch
):
    """Lightning would turn a KeyboardInterrupt into an exit of its own, with status 1."""
    seen = []

    class Pressing(progress.EventLog):
        def __call__(self, event):
            seen.append(event)
            if isinstance(event, BatchEvent):
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(progress, "EventLog", Pressing)
    before = signal.getsignal(signal.SIGINT)
    outcome = ptychopinn("train", scan_file, "--output", tmp_path / "run", *quick)
    assert outcome.status == 130
    assert [type(event) for event in seen] == [BatchEvent]
    assert "Interrupted: nothing was complete yet" in outcome.err
    assert "Traceback" not in outcome.err
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGINT) == before


def test_an_earlier_run_survives_the_interruption_of_its_successor(
    scan_file, ptychopinn, needs_pytorch, tmp_path, monkeypatch
):
    (tmp_path / "wts.h5.zip").write_text("earlier", encoding="utf-8")
    monkeypatch.setattr(api, "train", interrupting)
    outcome = ptychopinn("train", scan_file, "--output", tmp_path, "--overwrite", "--backend=pytorch")
    assert (outcome.status, outcome.err) == (130, "Interrupted: nothing was complete yet, nothing is kept\n")
    assert [item.name for item in tmp_path.iterdir()] == ["wts.h5.zip"]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_process_that_is_interrupted_ends_in_order(scan_file, needs_pytorch, quick, tmp_path):
    argv = [sys.executable, "-m", "ptycho_backend.cli", "train", str(scan_file), "--output", str(tmp_path / "run")]
    options = [*quick, "--epochs=100000"]
    with subprocess.Popen([*argv, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        said = []
        while not (said and said[-1].startswith("epoch 2/")):
            line = process.stderr.readline()
            assert line, "".join(said)
            said.append(line)
        process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + 60
        out, err = process.communicate(timeout=deadline - time.monotonic())
    assert process.returncode == 130
    assert err.endswith("Interrupted: nothing was complete yet, nothing is kept\n")
    assert "Traceback" not in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []
