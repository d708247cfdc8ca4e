"""
Metrics loggers: CSV file, TensorBoard, MLflow, shared by both engines (spec: config 5.10).

A logger that fails during training logs a warning: a full disk or an unreachable server must not end a training.
"""

from __future__ import annotations

import csv
import logging
import os
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from ptycho_backend.config import ExecutionConfig, TrainingConfig, to_dict
from ptycho_backend.engines.model import History
from ptycho_backend.errors import ConfigError, OutputError, TrainingStopped, first_line
from ptycho_backend.model_file.run import METRICS, columns, write_history
from ptycho_backend.runtime.log_filters import filtered_logs

logger = logging.getLogger(__name__)

EVENTS = "tensorboard"  # folder of the event files
DATABASE = "mlflow.db"
ARTIFACTS = "mlruns"
LOG_FILES = (EVENTS, DATABASE, ARTIFACTS)  # in a run folder, beside METRICS
PACKAGES = {"tensorboard": ("tensorboard",), "mlflow": ("mlflow",)}
DATABASE_PACKAGES = ("sqlalchemy", "alembic")  # MLflow refuses new runs in its own file format
METRICS_PER_REQUEST = 1000  # MLflow's limit


class Row(NamedTuple):
    """Epoch (counted from 1), time in seconds since 1970, and metrics as in the history."""

    epoch: int
    time_s: float
    metrics: dict[str, float]


class MetricsLogger(ABC):
    """
    Writer of the metrics of every epoch.

    Parameters
    ----------
    history : list of dict
        Epochs of the checkpoint that training resumes from; they are written before the first new one.
    """

    name: str
    retries = True  # write again with the next epoch after a failure; False writes again only after training

    def __init__(self, history: Sequence[Mapping[str, float]] = ()) -> None:
        now = time.time()
        self._rows = [Row(int(metrics["epoch"]), now, _plain(metrics)) for metrics in history]
        self._parameters: dict[str, Any] = {}
        self._written, self._failed = 0, False

    def set_parameters(self, config: Mapping[str, Any]) -> None:
        """Set the configuration, as nested plain values, before the first epoch."""
        self._parameters = flattened(config)

    def log(self, metrics: Mapping[str, float], epoch: int) -> None:
        """Write the metrics of an epoch (counted from 1)."""
        self._rows.append(Row(epoch, time.time(), {"epoch": float(epoch)} | _plain(metrics)))
        if self.retries or not self._failed:
            self._write_pending()

    def close(self, status: str = "FINISHED") -> None:
        """Write the pending rows and end the record; `status` is FINISHED, FAILED or KILLED."""
        # A training that is stopped does not wait for an unreachable server.
        if self._written < len(self._rows) and (status == "FINISHED" or not self._failed):
            self._write_pending()
        self._attempt(lambda: self._end(status))

    def _write_pending(self) -> None:
        pending = self._rows[self._written :]
        # After a failure all rows are written again, because some of them may be lost.
        succeeded = self._attempt(lambda: self._write(pending, replace=self._written == 0))
        self._written = len(self._rows) if succeeded else 0

    def _attempt(self, action: Callable[[], None]) -> bool:
        try:
            action()
            return True
        except Exception as error:  # of any class: training goes on
            if not self._failed:
                kind, text = type(error).__name__, first_line(error)
                logger.warning("logger '%s' fails, training goes on: %s: %s", self.name, kind, text)
            self._failed = True
            return False

    @abstractmethod
    def _write(self, rows: Sequence[Row], replace: bool) -> None:
        """Write rows; with `replace` they are all rows, in place of everything written before."""

    def _end(self, status: str) -> None:
        return None


class CsvLogger(MetricsLogger):
    """
    CSV file with one line per epoch, which other programs can follow.

    Parameters
    ----------
    path : Path
    history : list of dict
    """

    name = "csv"

    def __init__(self, path: Path, history: Sequence[Mapping[str, float]] = ()) -> None:
        super().__init__(history)
        self._path = path

    def _write(self, rows: Sequence[Row], replace: bool) -> None:
        if replace:
            write_history(self._path, [row.metrics for row in rows])
            return
        names = columns([row.metrics for row in self._rows])
        with self._path.open("a", newline="", encoding="utf-8") as stream:
            csv.DictWriter(stream, names, lineterminator="\n").writerows(row.metrics for row in rows)


class TensorBoardLogger(MetricsLogger):
    """
    TensorBoard event file with one scalar (float32) per metric and the epoch as step.

    Parameters
    ----------
    folder : Path
        Created with the first event.
    history : list of dict
    """

    name = "tensorboard"
    SUFFIX = ".ptychopinn"

    def __init__(self, folder: Path, history: Sequence[Mapping[str, float]] = ()) -> None:
        super().__init__(history)
        self._folder = folder
        self._writer: Any = None

    def _write(self, rows: Sequence[Row], replace: bool) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        if replace:
            self._open()
        for row in rows:
            values = [
                Summary.Value(tag=name, simple_value=value) for name, value in row.metrics.items() if name != "epoch"
            ]
            event = Event(wall_time=row.time_s, step=row.epoch, summary=Summary(value=values))
            self._writer.write(event.SerializeToString())
        self._writer.flush()

    def _open(self) -> None:
        """Create a file in place of all earlier ones."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._end()
        self._folder.mkdir(parents=True, exist_ok=True)
        for earlier in self._folder.glob(f"*{self.SUFFIX}"):
            earlier.unlink()
        now = time.time()
        name = f"events.out.tfevents.{now:.6f}.{socket.gethostname()}.{os.getpid()}{self.SUFFIX}"
        # Not TensorBoard's EventFileWriter: it imports TensorFlow if that is installed.
        self._writer = RecordWriter((self._folder / name).open("xb"))
        # A session start at step 0 makes a running TensorBoard drop the earlier files.
        start = SessionLog(status=SessionLog.START)
        for event in (Event(wall_time=now, file_version="brain.Event:2"), Event(wall_time=now, session_log=start)):
            self._writer.write(event.SerializeToString())

    def _end(self, status: str = "") -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None


class MlflowLogger(MetricsLogger):
    """
    MLflow run with the configuration as parameters, and the metrics.

    Parameters
    ----------
    folder : Path or None
        Folder of database and artifacts if no tracking server is configured.
    run_name : str
    history : list of dict

    Raises
    ------
    OutputError
        If the tracking server or database is unreachable.
    """

    name = "mlflow"
    retries = False  # a request to an unreachable server fails only after minutes

    def __init__(self, folder: Path | None, run_name: str, history: Sequence[Mapping[str, float]] = ()) -> None:
        super().__init__(history)
        self._run_name, self._run_id = run_name, ""
        from mlflow import MlflowClient

        uri = tracking_uri(folder)
        try:
            with filtered_logs("mlflow"):
                artifacts = None
                if folder and uri:
                    folder.mkdir(parents=True, exist_ok=True)
                    artifacts = (folder / ARTIFACTS).absolute().as_uri()
                self._client = MlflowClient(tracking_uri=uri)
                self._experiment = _experiment(self._client, artifacts)
        except Exception as error:  # of any class: each MLflow store raises its own
            raise OutputError(
                "MLflow must be reachable when a training starts.",
                expected=f"a tracking server or database at {uri or 'MLFLOW_TRACKING_URI'}",
                received=f"{type(error).__name__}: {first_line(error)}",
                fix="start the server, correct MLFLOW_TRACKING_URI, or choose logger='csv'",
            ) from error

    def set_parameters(self, config: Mapping[str, Any]) -> None:
        """Create the run with the configuration as its parameters."""
        super().set_parameters(config)
        self._write_pending()

    def _write(self, rows: Sequence[Row], replace: bool) -> None:
        from mlflow.entities import Metric, Param

        if not self._run_id:
            run = self._client.create_run(self._experiment, run_name=self._run_name)
            self._run_id = run.info.run_id
            parameters = [Param(name, str(value)) for name, value in self._parameters.items()]
            self._client.log_batch(self._run_id, params=parameters)
        # MLflow stores a value with the same time and step once, also if it is sent again after a failure.
        metrics = [
            Metric(name, value, int(row.time_s * 1000), row.epoch)
            for row in rows
            for name, value in row.metrics.items()
            if name != "epoch"
        ]
        for start in range(0, len(metrics), METRICS_PER_REQUEST):
            self._client.log_batch(self._run_id, metrics=metrics[start : start + METRICS_PER_REQUEST])

    def _end(self, status: str) -> None:
        if self._run_id and self._written == len(self._rows):
            self._client.set_terminated(self._run_id, status)


def make_logger(
    name: str, folder: Path | None, run_name: str = "", history: History | None = None
) -> MetricsLogger | None:
    """
    Return a logger whose packages and destination are checked; no file is written yet.

    Parameters
    ----------
    name : {"csv", "tensorboard", "mlflow", "none"}
    folder : Path, optional
        Run folder. Without it "csv" writes no file.
    run_name : str
        Name of the MLflow run; "" takes the folder's name.
    history : list of dict, optional
        Epochs of the checkpoint that training resumes from.

    Returns
    -------
    MetricsLogger or None
        None for "none", and for "csv" without a folder.

    Raises
    ------
    ConfigError
        If a package or the folder is missing.
    OutputError
        If MLflow is unreachable.
    """
    earlier = history or []
    if name == "none" or (name == "csv" and folder is None):
        return None
    require(name, PACKAGES.get(name, ()))
    if name == "mlflow":
        return MlflowLogger(folder, run_name or (folder.absolute().name if folder else ""), earlier)
    if folder is None:
        raise _without_folder(name, "checkpoints=<folder>")
    return CsvLogger(folder / METRICS, earlier) if name == "csv" else TensorBoardLogger(folder / EVENTS, earlier)


@contextmanager
def recording(metrics: MetricsLogger | None, training: TrainingConfig, execution: ExecutionConfig) -> Iterator[None]:
    """Pass the configuration to a logger, and close it with the status of the block."""
    if metrics is None:
        yield
        return
    metrics.set_parameters({"training": to_dict(training), "execution": to_dict(execution)})
    try:
        yield
    except BaseException as error:
        metrics.close("KILLED" if isinstance(error, (TrainingStopped, KeyboardInterrupt)) else "FAILED")
        raise
    metrics.close()


def require(name: str, packages: Sequence[str]) -> None:
    """
    Check that the packages of a logger are installed.

    Raises
    ------
    ConfigError
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise ConfigError.not_installed(f"The logger '{name}'", packages, missing, name)


def tracking_uri(folder: Path | None) -> str | None:
    """
    Return MLflow's tracking URI: None if the user has configured one, else a database in the folder.

    Raises
    ------
    ConfigError
        If both are missing.
    """
    from mlflow.tracking import is_tracking_uri_set

    if is_tracking_uri_set():
        return None
    if folder is None:
        raise _without_folder("mlflow", "checkpoints=<folder>, or the environment variable MLFLOW_TRACKING_URI")
    require("mlflow", DATABASE_PACKAGES)
    return f"sqlite:///{(folder / DATABASE).absolute().as_posix()}"


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values under dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _plain(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


def _experiment(client: Any, artifacts: str | None) -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "ptychopinn"
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name, artifact_location=artifacts))


def _without_folder(name: str, place: str) -> ConfigError:
    return ConfigError(
        f"The logger '{name}' needs a place to write to.",
        expected=place,
        received=f"logger={name!r} and no folder",
        fix="give train() a folder for checkpoints, or choose logger='none'",
    )
