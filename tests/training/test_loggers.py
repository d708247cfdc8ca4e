"""Each logger alone: files, refused settings, and failures, which never end a training."""

import csv
import json
import logging
import math
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ptycho_backend.config import ExecutionConfig, TrainingConfig
from ptycho_backend.errors import ConfigError, OutputError, TrainingStopped
from ptycho_backend.model_file.run import write_history
from ptycho_backend.training.loggers import flattened, make_logger, recording

ROOT = Path(__file__).parents[2]
HISTORY = [
    {"epoch": 1.0, "lr": 1e-3, "poisson_train_loss": 0.1 + 0.2, "poisson_val_loss": 1 / 3},
    {"epoch": 2.0, "lr": 5e-4, "poisson_train_loss": 0.25, "poisson_val_loss": 0.2},
    {"epoch": 3.0, "lr": 1e-4, "poisson_train_loss": 0.125, "poisson_val_loss": float("nan")},
]


@pytest.fixture(autouse=True)
def local_mlflow(monkeypatch):
    """Disable MLflow's configured servers, retries and telemetry."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def log_all(metrics, history=HISTORY):
    for row in history:
        metrics.log(row, int(row["epoch"]))


def train_until(error, metrics):
    with recording(metrics, TrainingConfig(), ExecutionConfig()):
        metrics.log(HISTORY[0], 1)
        raise error


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# --- CSV -----------------------------------------------------------------------------------------------------------


def test_csv_holds_every_finished_epoch(tmp_path):
    metrics = make_logger("csv", tmp_path)
    assert not (tmp_path / "metrics.csv").exists()
    files = set()
    for number, row in enumerate(HISTORY, 1):
        metrics.log(row, number)
        lines = (tmp_path / "metrics.csv").read_text().splitlines()
        assert lines[0] == "epoch,lr,poisson_train_loss,poisson_val_loss"
        assert lines[1:] == [",".join(str(value) for value in row.values()) for row in HISTORY[:number]]
        files.add((tmp_path / "metrics.csv").stat().st_ino)
    assert len(files) == 1, "lines are appended, so that other programs can follow the file"


def test_csv_equals_the_file_of_a_finished_run(tmp_path):
    """The order of the metrics from an engine has no effect."""
    metrics = make_logger("csv", tmp_path)
    log_all(metrics, [dict(reversed(row.items())) for row in HISTORY])
    metrics.close()
    write_history(tmp_path / "final.csv", HISTORY)
    assert (tmp_path / "metrics.csv").read_bytes() == (tmp_path / "final.csv").read_bytes()


def test_csv_of_a_resumed_training_starts_with_the_earlier_epochs(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,lr\n1.0,1\n2.0,2\n3.0,an epoch that is not in the checkpoint\n")
    metrics = make_logger("csv", tmp_path, history=HISTORY[:2])
    metrics.log(HISTORY[2], 3)
    write_history(tmp_path / "final.csv", HISTORY)
    assert (tmp_path / "metrics.csv").read_bytes() == (tmp_path / "final.csv").read_bytes()


def test_a_file_that_cannot_be_written_is_one_warning_and_is_written_later(tmp_path, caplog):
    folder = tmp_path / "away"
    metrics = make_logger("csv", folder)
    metrics.log(HISTORY[0], 1)
    metrics.log(HISTORY[1], 2)
    (warning,) = warnings_of(caplog)
    assert "'csv' fails, training goes on: OutputError" in warning
    folder.mkdir()
    metrics.log(HISTORY[2], 3)
    with (folder / "metrics.csv").open(newline="") as stream:
        assert [row["epoch"] for row in csv.DictReader(stream)] == ["1.0", "2.0", "3.0"]
    assert len(warnings_of(caplog)) == 1


def test_without_a_folder_there_is_no_csv_logger():
    assert make_logger("csv", None) is None


def test_none_is_no_logger(tmp_path):
    assert make_logger("none", tmp_path) is None
    assert list(tmp_path.iterdir()) == []


# --- TensorBoard ---------------------------------------------------------------------------------------------------


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def expected_scalars(history=HISTORY):
    names = [name for name in history[0] if name != "epoch"]
    return {
        name: [(int(row["epoch"]), pytest.approx(row[name], rel=1e-6, nan_ok=True)) for row in history]
        for name in names
    }


def test_tensorboard_reads_every_metric_at_its_epoch(tmp_path, needs_logger):
    needs_logger("tensorboard")
    metrics = make_logger("tensorboard", tmp_path)
    assert list(tmp_path.iterdir()) == []
    log_all(metrics)
    assert scalars(tmp_path / "tensorboard") == expected_scalars(), "flushed after every epoch"
    metrics.close()
    assert scalars(tmp_path / "tensorboard") == expected_scalars()


def test_events_of_a_resumed_training_start_with_the_earlier_epochs(tmp_path, needs_logger):
    needs_logger("tensorboard")
    first = make_logger("tensorboard", tmp_path)
    log_all(first, [*HISTORY[:2], {"epoch": 3.0, "lr": 1.0, "poisson_train_loss": 1.0, "poisson_val_loss": 1.0}])
    first.close()
    (tmp_path / "tensorboard" / "notes.txt").write_text("mine")
    second = make_logger("tensorboard", tmp_path, history=HISTORY[:2])
    second.log(HISTORY[2], 3)
    second.close()
    assert scalars(tmp_path / "tensorboard") == expected_scalars()
    assert (tmp_path / "tensorboard" / "notes.txt").read_text() == "mine"
    assert len(list((tmp_path / "tensorboard").glob("*tfevents*"))) == 1


def test_a_running_tensorboard_drops_the_replaced_epochs(tmp_path, needs_logger):
    needs_logger("tensorboard")
    pytest.importorskip("tensorflow", reason="without it TensorBoard's reader never looks at a file again")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = make_logger("tensorboard", tmp_path)
    log_all(first)
    first.close()
    watching = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert len(watching.Scalars("lr")) == 3
    second = make_logger("tensorboard", tmp_path)
    second.log(HISTORY[0], 1)
    assert [event.step for event in watching.Reload().Scalars("lr")] == [1]
    second.close()


def test_the_tensorboard_logger_imports_no_framework(tmp_path, needs_logger):
    needs_logger("tensorboard")
    code = f"""
import sys
from pathlib import Path
from ptycho_backend.training.loggers import make_logger
metrics = make_logger("tensorboard", Path({str(tmp_path)!r}))
metrics.log({{"epoch": 1.0, "lr": 0.5}}, 1)
metrics.close()
assert metrics._written == 1
print(sorted({{"torch", "lightning", "tensorflow", "keras"}} & set(sys.modules)))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_events_that_cannot_be_written_are_one_warning_and_are_written_later(tmp_path, needs_logger, caplog):
    needs_logger("tensorboard")
    metrics = make_logger("tensorboard", tmp_path)
    metrics.log(HISTORY[0], 1)
    metrics._writer.close()  # like a disk that fails
    metrics.log(HISTORY[1], 2)
    assert len(warnings_of(caplog)) == 1
    metrics.log(HISTORY[2], 3)
    metrics.close()
    assert scalars(tmp_path / "tensorboard") == expected_scalars()
    assert len(warnings_of(caplog)) == 1


# --- MLflow --------------------------------------------------------------------------------------------------------


def runs_in(folder, experiment="ptychopinn"):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id], order_by=["attributes.start_time ASC"])
    values = [
        {
            name: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
        }
        for run in runs
    ]
    return found, runs, values


def expected_points(history=HISTORY):
    return {
        name: [(int(row["epoch"]), pytest.approx(row[name], rel=0, nan_ok=True)) for row in history]
        for name in history[0]
        if name != "epoch"
    }


@pytest.fixture(scope="module")
def database(needs_logger, tmp_path_factory):
    """Create a database once, because MLflow needs seconds for it."""
    needs_logger("mlflow")
    folder = tmp_path_factory.mktemp("mlflow") / "a run"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        make_logger("mlflow", folder).close()
    shutil.copy(folder / "mlflow.db", folder / "empty.db")
    return folder


@pytest.fixture
def with_database(database, tmp_path):
    """Return a folder with an empty database."""
    shutil.copy(database / "empty.db", tmp_path / "mlflow.db")
    return tmp_path


@pytest.mark.slow
def test_mlflow_records_configuration_and_metrics(database):
    folder = database
    metrics = make_logger("mlflow", folder)
    with recording(metrics, TrainingConfig(nepochs=3), ExecutionConfig(logger="mlflow")):
        log_all(metrics)
    found, (run,), values = runs_in(folder)
    assert values == [expected_points()]
    assert (run.info.run_name, run.info.status) == ("a run", "FINISHED")
    assert found.artifact_location == (folder / "mlruns").as_uri()
    parameters = run.data.params
    assert parameters["training.nepochs"] == "3"
    assert parameters["training.model.architecture"] == "unet"
    assert parameters["execution.logger"] == "mlflow"
    assert set(parameters) >= {f"execution.{name}" for name in vars(ExecutionConfig())}


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError(), "FAILED"), (TrainingStopped("asked to"), "KILLED"), (KeyboardInterrupt(), "KILLED")],
    ids=["failed", "stopped", "interrupted"],
)
@pytest.mark.slow
def test_mlflow_records_the_status_of_a_training(with_database, error, status):
    metrics = make_logger("mlflow", with_database, run_name="mine")
    with pytest.raises(type(error)):
        train_until(error, metrics)
    _, (run,), values = runs_in(with_database)
    assert (run.info.run_name, run.info.status) == ("mine", status)
    assert values == [expected_points(HISTORY[:1])]


@pytest.mark.slow
def test_mlflow_records_a_resumed_training_as_a_whole(with_database, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "my scans")
    for earlier, history in (([], HISTORY[:2]), (HISTORY[:2], HISTORY[2:])):
        metrics = make_logger("mlflow", with_database, history=earlier)
        with recording(metrics, TrainingConfig(), ExecutionConfig()):
            log_all(metrics, history)
    _, runs, values = runs_in(with_database, "my scans")
    assert len(runs) == 2
    assert values == [expected_points(HISTORY[:2]), expected_points()]


@pytest.fixture
def server(monkeypatch):
    """Start a minimal tracking server; `down` makes it answer with status 503."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or "{}")
            here.asked.append(self.path.partition("?")[0].rpartition("mlflow/")[2])
            here.metrics += [] if here.down else body.get("metrics", [])
            info = {"run_id": "r", "run_uuid": "r", "experiment_id": "7", "status": "RUNNING"}
            answers = {
                "experiments/get-by-name": {"experiment": {"experiment_id": "7", "lifecycle_stage": "active"}},
                "runs/create": {"run": {"info": info, "data": {}}},
            }
            content = json.dumps(answers.get(here.asked[-1], {})).encode()
            self.send_response(503 if here.down else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer

        def log_message(self, *_):
            pass

    here = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here.down, here.asked, here.metrics = False, [], []
    threading.Thread(target=here.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{here.server_port}")
    yield here
    here.shutdown()
    here.server_close()


@pytest.mark.slow
def test_a_server_needs_no_folder_and_no_database(needs_logger, server, monkeypatch):
    needs_logger("mlflow")
    for package in ("sqlalchemy", "alembic"):
        monkeypatch.setitem(sys.modules, package, None)
    metrics = make_logger("mlflow", None, "mine")
    with recording(metrics, TrainingConfig(), ExecutionConfig()):
        log_all(metrics)
    assert server.asked[-1] == "runs/update"
    assert [(item["key"], item["step"]) for item in server.metrics] == [
        (name, step) for step in (1, 2, 3) for name in ("lr", "poisson_train_loss", "poisson_val_loss")
    ]


@pytest.mark.slow
def test_a_server_that_fails_for_a_time_is_one_warning_and_gets_all_rows(tmp_path, needs_logger, server, caplog):
    needs_logger("mlflow")
    metrics = make_logger("mlflow", tmp_path)
    with recording(metrics, TrainingConfig(), ExecutionConfig()):
        metrics.log(HISTORY[0], 1)
        server.down = True
        metrics.log(HISTORY[1], 2)
        asked = len(server.asked)
        metrics.log(HISTORY[2], 3)
        assert len(server.asked) == asked, "training waits only once for an unreachable server"
        server.down = False
    assert {item["step"] for item in server.metrics} == {1, 2, 3}
    # Rows that are sent twice have the same time, so MLflow stores them once.
    points = {(item["key"], item["step"], item["timestamp"]) for item in server.metrics}
    assert len(points) == 9
    (warning,) = [text for text in warnings_of(caplog) if "training goes on" in text]
    assert "'mlflow'" in warning
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.slow
def test_a_server_that_stays_unreachable_does_not_end_training(needs_logger, server, caplog):
    needs_logger("mlflow")
    metrics = make_logger("mlflow", None)
    server.down = True
    with recording(metrics, TrainingConfig(), ExecutionConfig()):
        log_all(metrics)
    assert len([text for text in warnings_of(caplog) if "training goes on" in text]) == 1


@pytest.mark.slow
def test_a_stopped_training_does_not_wait_for_a_server(needs_logger, server):
    needs_logger("mlflow")
    metrics = make_logger("mlflow", None)
    server.down = True
    with pytest.raises(TrainingStopped):
        train_until(TrainingStopped("asked to"), metrics)
    assert server.asked.count("runs/create") == 1


@pytest.mark.slow
def test_an_unreachable_server_is_an_error_before_training(tmp_path, needs_logger, monkeypatch):
    needs_logger("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(OutputError, match="reachable") as refused:
        make_logger("mlflow", tmp_path)
    assert "MLFLOW_TRACKING_URI" in refused.value.expected
    assert "choose logger='csv'" in refused.value.fix


@pytest.mark.slow
def test_a_database_that_cannot_be_created_is_an_error_before_training(tmp_path, needs_logger):
    needs_logger("mlflow")
    (tmp_path / "run").write_text("a file")
    with pytest.raises(OutputError, match="reachable") as refused:
        make_logger("mlflow", tmp_path / "run")
    assert str(tmp_path / "run" / "mlflow.db") in refused.value.expected


# --- refused settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "package"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow"), ("mlflow", "sqlalchemy")]
)
def test_a_missing_package_is_an_error_with_the_extra_to_install(tmp_path, monkeypatch, name, package, needs_logger):
    if package == "sqlalchemy":
        needs_logger("mlflow")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match="not installed") as refused:
        make_logger(name, tmp_path)
    assert refused.value.fix == f"pip install 'ptychopinn[{name}]'"
    assert package in refused.value.received
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_logger_without_a_destination_is_an_error(name, needs_logger):
    needs_logger(name)
    with pytest.raises(ConfigError, match="needs a place") as refused:
        make_logger(name, None)
    assert "checkpoints=<folder>" in refused.value.expected
    assert ("MLFLOW_TRACKING_URI" in refused.value.expected) == (name == "mlflow")


def test_recording_without_a_logger_does_nothing():
    with recording(None, TrainingConfig(), ExecutionConfig()):
        pass


def test_nested_values_get_dotted_names():
    assert flattened({"a": {"b": 1, "c": {"d": None}}, "e": [1, {"f": 2}]}) == {
        "a.b": 1,
        "a.c.d": None,
        "e": [1, {"f": 2}],
    }


def test_the_history_holds_nan_and_a_value_that_float32_rounds():
    """Controls: a NaN, and a value that float32 rounds."""
    assert math.isnan(HISTORY[2]["poisson_val_loss"])
    assert HISTORY[0]["poisson_train_loss"] != 0.3
