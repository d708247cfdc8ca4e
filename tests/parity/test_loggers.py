"""Loggers record the history of a training, under the same names on every engine (config 5.10)."""

from __future__ import annotations

import csv
import dataclasses
import signal
import sys

import pytest

from ptycho_backend import api
from ptycho_backend.config import ModelConfig, TrainingConfig
from ptycho_backend.errors import ConfigError, TrainingStopped
from ptycho_backend.events import BatchEvent
from ptycho_backend.model_file.run import write_history
from ptycho_backend.simulation.simulate import simulate_scan

pytestmark = pytest.mark.slow

NAMES = {"lr", "poisson_train_loss", "poisson_val_loss"}


@pytest.fixture(scope="module")
def scan():
    return simulate_scan(N=32, n_positions=9, object_name="lines", photons_per_pattern=2e5, step_px=3.3)


@pytest.fixture
def train(backend, execution, scan, monkeypatch):
    """Return a function that trains a small model for some epochs."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")

    def run(logger, folder, nepochs=2, on_event=lambda event: None, resume=False, fraction=0.2):
        training = TrainingConfig(
            model=ModelConfig(N=32, n_filters_scale=1, unrolled_steps=1),
            backend=backend.name,
            nepochs=nepochs,
            batch_size=4,
            probe_iterations=0,
            validation_fraction=fraction,
        )
        settings = dataclasses.replace(execution, logger=logger)
        return api.train(scan, training, settings, on_event, folder, resume)

    return run


def lines_of(folder):
    """Return the rows of a CSV file as numbers; empty without a file."""
    if not (folder / "metrics.csv").exists():
        return []
    with (folder / "metrics.csv").open(newline="") as stream:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]


def events_in(folder):
    """Return the scalars of event files as rows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return rows_of(
        (event.step, name, event.value) for name in events.Tags()["scalars"] for event in events.Scalars(name)
    )


def run_in(folder):
    """Return the metrics of the MLflow run in a database as rows, and its parameters."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("ptychopinn").experiment_id])
    assert run.info.status == "FINISHED"
    points = (point for name in run.data.metrics for point in client.get_metric_history(run.info.run_id, name))
    return rows_of((point.step, point.key, point.value) for point in points), run.data.params


def rows_of(points):
    rows = {}
    for step, name, value in points:
        assert name not in rows.setdefault(step, {"epoch": float(step)}), "one value per epoch"
        rows[step][name] = value
    return [rows[step] for step in sorted(rows)]


def test_csv_equals_the_history_and_none_changes_no_result(train, tmp_path):
    seen = []

    def listen(event):
        if isinstance(event, BatchEvent):
            seen.append((event.epoch, lines_of(tmp_path / "csv")))

    run = train("csv", tmp_path / "csv" / "checkpoints", nepochs=3, on_event=listen)
    for epoch, lines in seen:
        assert lines == run.history[: epoch - 1], "the file holds all finished epochs when the next one starts"
    assert {name for row in run.history for name in row} == {"epoch", *NAMES}
    write_history(tmp_path / "final.csv", run.history)
    assert (tmp_path / "csv" / "metrics.csv").read_bytes() == (tmp_path / "final.csv").read_bytes()
    quiet = train("none", tmp_path / "none", nepochs=3)
    assert {path.suffix for path in (tmp_path / "none").iterdir()} == {".zip", ".yaml"}
    assert run.history == quiet.history


def test_without_validation_a_line_has_no_validation_loss(train, tmp_path):
    run = train("csv", tmp_path, fraction=0.0)
    assert lines_of(tmp_path) == run.history
    assert set(run.history[0]) == {"epoch", "lr", "poisson_train_loss"}


def test_tensorboard_shows_the_history(train, tmp_path, needs_logger):
    needs_logger("tensorboard")
    run = train("tensorboard", tmp_path / "checkpoints")
    rows = events_in(tmp_path)
    assert [set(row) for row in rows] == [{"epoch", *NAMES}] * 2
    for row, expected in zip(rows, run.history, strict=True):
        assert row == pytest.approx(expected, rel=1e-6)
    assert not (tmp_path / "metrics.csv").exists(), "one writer"


def test_mlflow_shows_the_history_and_the_configuration(train, backend, tmp_path, needs_logger):
    needs_logger("mlflow")
    folder = tmp_path / "runs" / "new"
    run = train("mlflow", folder / "checkpoints")
    rows, parameters = run_in(folder)
    assert [set(row) for row in rows] == [{"epoch", *NAMES}] * 2
    assert rows == run.history
    assert parameters["training.backend"] == backend.name
    assert parameters["training.model.N"] == "32"
    assert not (folder / "metrics.csv").exists()


@pytest.mark.parametrize("logger", ["csv", pytest.param("tensorboard", marks=pytest.mark.slow)])
def test_a_resumed_training_is_shown_as_one(train, tmp_path, needs_logger, logger):
    needs_logger(logger)

    def stop(event):
        if isinstance(event, BatchEvent) and (event.epoch, event.batch) == (2, 1):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(TrainingStopped):
        train(logger, tmp_path / "checkpoints", on_event=stop)
    read = lines_of if logger == "csv" else events_in
    assert [row["epoch"] for row in read(tmp_path)] == [1.0]
    run = train(logger, tmp_path / "checkpoints", resume=True)
    assert [row["epoch"] for row in run.history] == [1.0, 2.0]
    for row, expected in zip(read(tmp_path), run.history, strict=True):
        assert row == pytest.approx(expected, rel=1e-6)


def test_a_logger_that_is_not_installed_is_an_error_before_any_work(train, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    events = []
    with pytest.raises(ConfigError, match=r"ptychopinn\[tensorboard\]"):
        train("tensorboard", tmp_path / "run" / "checkpoints", on_event=events.append)
    assert events == []
    assert list(tmp_path.iterdir()) == []
