"""Run folders of commands: refused, concurrent, stopped and killed ones neither lose nor mix runs (data 6.5, 6.6)."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from ptycho_backend import api
from ptycho_backend.config import ModelConfig, TrainingConfig
from ptycho_backend.data.readers import load_scan
from ptycho_backend.data.run_claim import claimed, control_folder
from ptycho_backend.data.run_folder import resumable_folder
from ptycho_backend.events import BatchEvent
from ptycho_backend.model_file.bundle import read_bundle
from ptycho_backend.runtime import progress
from ptycho_backend.training.checkpoints import LAST

QUICK = (
    *("--backend=pytorch", "--epochs=1", "--training.model.n_filters_scale=1", "--training.probe_iterations=0"),
    "--execution.precision=32-true",
)
LAST_CHECKPOINT = f"checkpoints/{LAST}"
POSIX = pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


FAST_IMAGE = ("--inference.iterations=1", "--inference.half_datasets=false")


@pytest.fixture(scope="module")
def complete(ptychopinn, scan_file, tmp_path_factory, needs_pytorch):
    """Return the folder of a complete run."""
    folder = tmp_path_factory.mktemp("runs") / "complete"
    outcome = ptychopinn("train", scan_file, "--output", folder, *QUICK, *FAST_IMAGE)
    assert outcome.status == 0, outcome.err
    (folder / "baseline.png").write_text("of a comparison", encoding="utf-8")
    return folder


@pytest.fixture
def run(complete, tmp_path):
    """Return a copy of a complete run."""
    return shutil.copytree(complete, tmp_path / "run")


@pytest.mark.parametrize(
    "options",
    [
        ["--execution.monitor", "no_such_metric"],
        ["--training.nepochs", "0"],
        ["--training.model.N", "64"],
        ["--execution.logger", "parchment"],
    ],
)
def test_a_refused_training_destroys_nothing(ptychopinn, scan_file, run, tmp_path, options):
    before = content(run)
    outcome = ptychopinn("train", scan_file, "--output", run, "--overwrite", *QUICK, *options)
    assert outcome.status != 0
    assert content(run) == before
    assert [item.name for item in tmp_path.iterdir()] == ["run"]


def test_a_refused_training_keeps_the_checkpoints_of_a_stopped_one(ptychopinn, scan_file, needs_pytorch, tmp_path):
    scan, run = load_scan(scan_file), tmp_path / "run"
    model = ModelConfig(N=32, n_filters_scale=1)
    config = TrainingConfig(model=model, nepochs=1, probe_iterations=0, backend="pytorch")
    api.train(scan, config, checkpoints=run / "checkpoints")
    before = content(run)
    assert LAST_CHECKPOINT in before
    argv = ("--output", run, "--overwrite", "--execution.monitor", "no_such_metric")
    assert ptychopinn("train", scan_file, *argv).status != 0
    assert content(run) == before


@pytest.mark.parametrize("command", ["train", "reconstruct"])
def test_a_folder_in_use_is_refused(ptychopinn, scan_file, fails_with, tmp_path, command):
    with claimed(tmp_path / "run"):
        outcome = ptychopinn(command, scan_file, "--output", tmp_path / "run")
    fails_with(outcome, 1, "one command at a time", f"process {os.getpid()}", f"kill {os.getpid()}")
    assert list(tmp_path.iterdir()) == []


def test_a_reconstruction_replaces_the_image_and_keeps_the_model(ptychopinn, scan_file, run, tmp_path):
    before = content(run)
    argv = ("--output", run, "--model", run, "--overwrite", *FAST_IMAGE)
    outcome = ptychopinn("reconstruct", scan_file, *argv)
    assert outcome.status == 0, outcome.err
    after = content(run)
    assert f"Written to {run}: " in outcome.out
    for name in ("wts.h5.zip", "metrics.csv", "config.yaml", LAST_CHECKPOINT):
        assert after[name] == before[name]
    assert after["reconstruction.h5"] != before["reconstruction.h5"]
    assert "baseline.png" in before
    assert "baseline.png" not in after
    assert [item.name for item in tmp_path.iterdir()] == ["run"]


def test_a_stopped_training_keeps_the_old_run_and_resumes(ptychopinn, scan_file, run, tmp_path, monkeypatch):
    class Pressing(progress.EventLog):
        def __call__(self, event):
            if isinstance(event, BatchEvent) and event.epoch > 1:
                signal.raise_signal(signal.SIGINT)

    before = content(run)
    argv = ("train", scan_file, "--output", run, "--no-reconstruct")
    with monkeypatch.context() as patch:
        patch.setattr(progress, "EventLog", Pressing)
        assert ptychopinn(*argv, "--overwrite", *QUICK, "--epochs=3").status == 130
    assert content(run) == before
    new = resumable_folder(run, LAST_CHECKPOINT)
    assert new != run
    assert len(read_bundle(new / LAST_CHECKPOINT).history) == 1
    outcome = ptychopinn(*argv, "--resume", "--epochs=2")
    assert outcome.status == 0, outcome.err
    assert len(read_bundle(run).history) == 2
    assert len((run / "metrics.csv").read_text().splitlines()) == 3
    assert "reconstruction.h5" not in content(run)
    assert [item.name for item in tmp_path.iterdir()] == ["run"]


def test_resuming_a_complete_run_shows_the_old_one_until_the_end(ptychopinn, scan_file, run, monkeypatch):
    before, seen = content(run), []

    class Reading(progress.EventLog):
        def __call__(self, event):
            if isinstance(event, BatchEvent):
                seen.append(content(run) == before)

    monkeypatch.setattr(progress, "EventLog", Reading)
    outcome = ptychopinn("train", scan_file, "--output", run, "--resume", "--no-reconstruct", "--epochs=3")
    assert outcome.status == 0, outcome.err
    assert seen
    assert all(seen)
    assert len(read_bundle(run).history) == 3


@pytest.mark.slow
@POSIX
@pytest.mark.parametrize("attempt", range(4))
def test_a_killed_training_leaves_the_old_run_and_resumes(
    ptychopinn, scan_file, run, tmp_path, attempt, started, wait_for
):
    before = content(run)
    argv = ("train", scan_file, "--output", run, "--no-reconstruct")
    process = started(*argv, "--overwrite", *QUICK, "--epochs=100000")
    wait_for(process, "epoch 2/")
    time.sleep(0.1 * attempt)
    process.kill()
    process.wait()
    assert content(run) == before
    finished = read_bundle(resumable_folder(run, LAST_CHECKPOINT) / LAST_CHECKPOINT).state.epoch
    outcome = ptychopinn(*argv, "--resume", f"--epochs={finished + 1}")
    assert outcome.status == 0, outcome.err
    assert len(read_bundle(run).history) == finished + 1
    assert len((run / "metrics.csv").read_text().splitlines()) == finished + 2
    assert not control_folder(run).exists()
    assert not list(run.rglob("*.tmp"))


@pytest.mark.slow
@POSIX
@pytest.mark.parametrize("command", ["train", "reconstruct"])
def test_one_of_two_commands_is_refused(scan_file, needs_pytorch, tmp_path, command):
    options = [*QUICK, "--no-reconstruct"] if command == "train" else ["--inference.iterations=1"]
    argv = [sys.executable, "-m", "ptycho_backend.cli", command, str(scan_file), "--output", "run", *options]
    both = [
        subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    shown = [process.communicate(timeout=300)[0] for process in both]
    assert sorted(process.returncode for process in both) == [0, 1], shown
    assert sum("Written to" in text for text in shown) == 1
    refused = next(text for text in shown if "Written to" not in text)
    assert "one command at a time" in refused or "needs an empty folder" in refused
