"""``--logger``: files in the run folder during and after a training."""

import csv
import sys
from importlib import import_module

import pytest
import yaml

from ptycho_backend.events import BatchEvent
from ptycho_backend.runtime import progress


@pytest.fixture
def train(scan_file, ptychopinn, quick, needs_pytorch, tmp_path, monkeypatch):
    """Return a function that trains two epochs, and records the run folder at the start of each."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    folder, seen = tmp_path / "run", {}

    class Recording(progress.EventLog):
        def __call__(self, event):
            if isinstance(event, BatchEvent):
                seen.setdefault(event.epoch, {path.name for path in folder.iterdir()} - {"checkpoints"})

    monkeypatch.setattr(progress, "EventLog", Recording)

    def run(*argv):
        outcome = ptychopinn("train", scan_file, "--output", folder, "--no-reconstruct", *quick, "--epochs=2", *argv)
        return outcome, folder, seen

    return run


def epochs_in(folder):
    with (folder / "metrics.csv").open(newline="") as stream:
        return [float(row["epoch"]) for row in csv.DictReader(stream)]


def test_csv_is_written_during_training(train):
    outcome, folder, seen = train()
    assert outcome.status == 0, outcome.err
    assert seen == {1: set(), 2: {"metrics.csv"}}
    assert epochs_in(folder) == [1.0, 2.0]


def test_no_logger_writes_the_csv_at_the_end(train):
    outcome, folder, seen = train("--logger", "none")
    assert outcome.status == 0, outcome.err
    assert seen == {1: set(), 2: set()}
    assert epochs_in(folder) == [1.0, 2.0]
    assert yaml.safe_load((folder / "config.yaml").read_text())["execution"]["logger"] == "none"


def test_tensorboard_files(train, needs_logger):
    needs_logger("tensorboard")
    outcome, folder, seen = train("--logger=tensorboard")
    assert outcome.status == 0, outcome.err
    assert seen == {1: set(), 2: {"tensorboard"}}
    assert [path for path in (folder / "tensorboard").iterdir() if "tfevents" in path.name]
    assert epochs_in(folder) == [1.0, 2.0]


@pytest.mark.parametrize(
    ("name", "package"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow"), ("mlflow", "sqlalchemy")]
)
def test_logger_that_is_not_installed(train, fails_with, needs_logger, monkeypatch, tmp_path, name, package):
    if package == "sqlalchemy":
        needs_logger("mlflow")
        import_module("mlflow.tracking")  # MLflow imported without SQLAlchemy stays without it in this process
    monkeypatch.setitem(sys.modules, package, None)
    outcome, _, seen = train("--logger", name)
    fails_with(outcome, 2, f"The logger '{name}' needs packages", package, f"pip install 'ptychopinn[{name}]'")
    assert seen == {}
    assert list(tmp_path.iterdir()) == []


def test_unknown_logger(train, fails_with):
    outcome, _, _ = train("--logger", "tensorbord")
    fails_with(outcome, 2, "csv", "mlflow", "did you mean 'tensorboard'?")
