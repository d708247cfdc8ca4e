"""Ctrl-C: status 130, a sentence on the saved files, no traceback, no unfinished file."""

import os
import shutil
import signal
import time

import numpy as np
import pytest

from ptycho_backend import api
from ptycho_backend.commands import results
from ptycho_backend.events import BatchEvent
from ptycho_backend.runtime import progress
from ptycho_backend.training.checkpoints import LAST, read_checkpoint

CORE = "config.yaml, metrics.csv, summary.json, wts.h5.zip"


def interrupting(*_, **__):
    raise KeyboardInterrupt


def test_interrupt_before_the_first_file(scan_file, ptychopinn, tmp_path, monkeypatch):
    monkeypatch.setattr(api, "train", interrupting)
    monkeypatch.setattr("ptycho_backend.commands.train.network_backend", lambda name: type("E", (), {"devices": list}))
    outcome = ptychopinn("train", scan_file, "--output", tmp_path / "deep" / "run")
    assert outcome.status == 130
    assert outcome.err == "Interrupted: no file was complete\n"
    assert list(tmp_path.iterdir()) == []


def test_interrupt_after_training_keeps_the_model(scan_file, ptychopinn, quick, needs_pytorch, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "prepare", interrupting)
    outcome = ptychopinn("train", scan_file, "--output", tmp_path / "run", *quick)
    assert outcome.status == 130
    assert f"Interrupted: saved in '{tmp_path / 'run'}': {CORE}\n" in outcome.err
    assert "Traceback" not in outcome.err


def test_interrupt_without_a_run_folder(ptychopinn, tmp_path, monkeypatch):
    monkeypatch.setattr("ptycho_backend.commands.simulate.simulate_scan", interrupting)
    outcome = ptychopinn("simulate", "--output", tmp_path / "scan.npz")
    assert (outcome.status, outcome.err) == (130, "Interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_signal_during_training(scan_file, ptychopinn, quick, needs_pytorch, tmp_path, monkeypatch):
    """Lightning itself handles a KeyboardInterrupt and ends the process with status 1."""
    events = []

    class Pressing(progress.EventLog):
        def __call__(self, event):
            events.append(event)
            if isinstance(event, BatchEvent):
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(progress, "EventLog", Pressing)
    previous = signal.getsignal(signal.SIGINT)
    outcome = ptychopinn("train", scan_file, "--output", tmp_path / "run", *quick)
    assert outcome.status == 130
    assert [type(event) for event in events] == [BatchEvent]
    last = tmp_path / "run" / "checkpoints" / "last.h5.zip"
    assert outcome.err.endswith(
        f"Interrupted: a signal after epoch 0 and batch 1 of the next one; saved in '{last}'; "
        "go on with --resume (in Python: resume=True)\n"
    )
    assert "Traceback" not in outcome.err
    assert {item.name for item in (tmp_path / "run").iterdir()} == {"checkpoints"}
    assert signal.getsignal(signal.SIGINT) == previous


def test_interrupt_keeps_earlier_results(scan_file, ptychopinn, needs_pytorch, tmp_path, monkeypatch):
    (tmp_path / "wts.h5.zip").write_text("earlier", encoding="utf-8")
    monkeypatch.setattr(api, "train", interrupting)
    outcome = ptychopinn("train", scan_file, "--output", tmp_path, "--overwrite", "--backend=pytorch")
    assert (outcome.status, outcome.err) == (130, "Interrupted: no file was complete\n")
    assert [item.name for item in tmp_path.iterdir()] == ["wts.h5.zip"]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_process_resumes(ptychopinn, scan_file, needs_pytorch, quick, tmp_path, number, started, wait_for):
    run = tmp_path / "run"
    process = started("train", scan_file, "--output", run, *quick, "--epochs=100000")
    wait_for(process, "epoch 2/")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert err.splitlines()[-1].startswith("Interrupted: a signal after epoch")
    assert "Traceback" not in err
    assert out == ""
    assert not list(run.rglob("*.tmp"))
    finished = read_checkpoint(run / "checkpoints").state.epoch
    more = f"--epochs={finished + 1}"
    outcome = ptychopinn("train", scan_file, "--output", run, "--resume", "--no-reconstruct", more)
    assert outcome.status == 0, outcome.err
    epochs = [line.partition(",")[0] for line in (run / "metrics.csv").read_text().splitlines()[1:]]
    assert [float(epoch) for epoch in epochs] == list(range(1, finished + 2))


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(10))
def test_killed_process_leaves_a_valid_checkpoint(
    scan_file, needs_pytorch, quick, tmp_path, attempt, started, wait_for
):
    # Epochs are short, so that checkpoints take most of the time.
    run = tmp_path / "run"
    process = started("train", scan_file, "--output", run, *quick, "--epochs=100000")
    wait_for(process, "epoch 2/")
    rng = np.random.default_rng(attempt)
    copies = []
    for delay in rng.uniform(0.0, 0.3, size=4):
        time.sleep(delay)
        folder = tmp_path / f"copy {len(copies)}"
        folder.mkdir()
        shutil.copy(run / "checkpoints" / LAST, folder)
        copies.append(folder)
    process.kill()
    process.communicate()
    for folder in (run / "checkpoints", *copies):
        assert read_checkpoint(folder).state.epoch >= 1
