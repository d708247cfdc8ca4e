"""Ctrl-C: status 130, a sentence on what was kept, no traceback, no unfinished file."""

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
    last = tmp_path / "run" / "checkpoints" / "last.h5.zip"
    assert outcome.err.endswith(
        f"Interrupted: a signal after epoch 0 and batch 1 of the next one; kept in '{last}'; "
        "go on with --resume (in Python: resume=True)\n"
    )
    assert "Traceback" not in outcome.err
    assert {item.name for item in (tmp_path / "run").iterdir()} == {"checkpoints"}
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
@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_process_that_is_stopped_goes_on_later(
    ptychopinn, scan_file, needs_pytorch, quick, tmp_path, number, started, wait_for
):
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


@pytest.mark.parametrize("attempt", [0, *(pytest.param(number, marks=pytest.mark.slow) for number in range(1, 10))])
def test_killed_at_any_moment_a_run_leaves_a_checkpoint_that_loads(
    scan_file, needs_pytorch, quick, tmp_path, attempt, started, wait_for
):
    # From the second epoch on; most of the time goes into writing, for the epochs are short.
    run = tmp_path / "run"
    process = started("train", scan_file, "--output", run, *quick, "--epochs=100000")
    wait_for(process, "epoch 2/")
    rng = np.random.default_rng(attempt)
    seen = []
    for delay in rng.uniform(0.0, 0.3, size=4):
        time.sleep(delay)
        folder = tmp_path / f"seen {len(seen)}"
        folder.mkdir()
        shutil.copy(run / "checkpoints" / LAST, folder)  # what another process finds at this moment
        seen.append(folder)
    process.kill()
    process.communicate()
    for folder in (run / "checkpoints", *seen):
        assert read_checkpoint(folder).state.epoch >= 1
