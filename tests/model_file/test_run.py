"""Run folder: model file, configuration, metrics and summary of a training."""

import csv
import dataclasses
import json
import platform
import time

import numpy as np
import pytest
import yaml

from ptycho_backend.config import ExecutionConfig, ModelConfig, TrainingConfig, from_dict
from ptycho_backend.engines.model import Model
from ptycho_backend.errors import OutputError
from ptycho_backend.model_file.bundle import read_bundle
from ptycho_backend.model_file.run import Run, provenance_of, without_nan, write_history, write_json
from ptycho_backend.physics.calibration import Calibration

HISTORY = [
    {"epoch": 1.0, "lr": 1e-3, "poisson_train_loss": 0.1 + 0.2, "poisson_val_loss": 1 / 3},
    {"epoch": 2.0, "lr": 5e-4, "poisson_train_loss": 0.25, "poisson_val_loss": float("nan")},
]
FILES = {"wts.h5.zip", "config.yaml", "metrics.csv", "summary.json"}


class FakeModel:
    """Attributes of a model that `Run` uses; its trained probe differs from the calibration's."""

    def __init__(self):
        probe = np.ones((1, 32, 32), np.complex64)
        self.training = TrainingConfig(model=ModelConfig(N=32), nepochs=2, backend="pytorch")
        self.calibration = Calibration(0.5, probe, photons_per_pattern=1e6)
        self.weights = {
            "log_scale": np.float32(0.1).reshape(()),
            "probe": np.stack([2 * probe.real, 3 * probe.real], axis=-1).astype(np.float32),
        }

    def get_weights(self):
        return {name: value.copy() for name, value in self.weights.items()}

    trained_calibration = Model.trained_calibration


@pytest.fixture
def run():
    model = FakeModel()
    return Run(
        model=model,
        training=model.training,
        execution=ExecutionConfig(threads=1),
        history=HISTORY,
        monitor="poisson_val_loss",
        summary={"training_seconds": np.float64(1.5), "probe_refined": np.bool_(True), "half_deviance": 0.3},
        provenance=provenance_of("pytorch", {"torch": "2.4"}, seed=3, data_hash="ab" * 32),
    )


def test_a_run_folder_holds_four_files(run, tmp_path):
    folder = run.save(tmp_path / "runs" / "first")
    assert {item.name for item in folder.iterdir()} == FILES
    assert run.checkpoint == folder / "wts.h5.zip"


def test_the_model_file_holds_the_model_and_the_trained_probe(run, tmp_path):
    bundle = read_bundle(run.save(tmp_path / "a"))
    assert bundle.training == run.training
    assert bundle.weights["log_scale"] == np.float32(0.1)
    np.testing.assert_array_equal(bundle.calibration.probe, np.full((1, 32, 32), 2 + 3j, np.complex64))
    assert bundle.calibration.photons_per_pattern == 1e6
    assert bundle.provenance == run.provenance


def test_the_configuration_is_complete_and_readable(run, tmp_path):
    values = yaml.safe_load((run.save(tmp_path / "a") / "config.yaml").read_text())
    assert list(values) == ["training", "execution"]
    assert from_dict(TrainingConfig, values["training"]) == run.training
    assert from_dict(ExecutionConfig, values["execution"]) == run.execution
    assert set(values["training"]) == {field.name for field in dataclasses.fields(TrainingConfig)}


def test_metrics_are_a_table_in_full_precision(run, tmp_path):
    with (run.save(tmp_path / "a") / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["epoch", "lr", "poisson_train_loss", "poisson_val_loss"]
    for row, expected in zip(rows, HISTORY, strict=True):
        np.testing.assert_equal({name: float(value) for name, value in row.items()}, expected)


def test_rows_may_have_different_columns(tmp_path):
    """Histories of two joined trainings can differ in their columns."""
    write_history(tmp_path / "metrics.csv", [{"epoch": 1, "a": 0.5}, {"epoch": 2, "b": 0.25}])
    with (tmp_path / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["epoch", "a", "b"]
    assert (rows[0]["a"], rows[1]["b"]) == ("0.5", "0.25")
    assert [rows[0]["b"], rows[1]["a"]] == ["", ""]


def test_numpy_numbers_are_written_as_numbers(tmp_path):
    write_history(tmp_path / "metrics.csv", [{"epoch": np.int64(1), "loss": np.float32(0.5)}])
    with (tmp_path / "metrics.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (float(row["epoch"]), float(row["loss"])) == (1.0, 0.5)


def test_the_summary_holds_figures_and_provenance(run, tmp_path):
    summary = json.loads((run.save(tmp_path / "a") / "summary.json").read_text())
    assert summary["training_seconds"] == 1.5
    assert summary["probe_refined"] is True
    assert summary["monitor"] == "poisson_val_loss"
    assert (summary["backend"], summary["seed"], summary["data_sha256"]) == ("pytorch", 3, "ab" * 32)
    assert summary["versions"]["torch"] == "2.4"
    assert summary["versions"]["python"] == platform.python_version()
    assert {"ptychopinn", "numpy"} <= set(summary["versions"])


def test_json_takes_paths_and_configurations(tmp_path):
    write_json(tmp_path / "a.json", {"path": tmp_path, "config": ModelConfig(N=32), "none": None})
    values = json.loads((tmp_path / "a.json").read_text())
    assert values["path"] == str(tmp_path)
    assert values["config"]["N"] == 32
    assert values["none"] is None


def test_nan_and_infinity_are_null(tmp_path):
    values = without_nan({"a": [1.0, float("nan")], "b": (float("inf"),), "c": "text", "d": 3})
    assert values == {"a": [1.0, None], "b": [None], "c": "text", "d": 3}
    values = {"a": np.float32("nan"), "b": np.float64("inf"), "c": Row(float("nan")), "d": None, "e": np.bool_(False)}
    write_json(tmp_path / "a.json", values)
    expected = {"a": None, "b": None, "c": {"x": None}, "d": None, "e": False}
    assert strict_json((tmp_path / "a.json").read_text()) == expected


@dataclasses.dataclass
class Row:
    """Dataclass among plain values."""

    x: float


def strict_json(text: str):
    """Read JSON without Python's extensions NaN and Infinity."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"a bare {name}"))


def test_a_summary_with_nan_is_valid_json(run, tmp_path):
    run.summary |= {"validation_loss": float("nan"), "shot_noise_floor": np.float32("inf")}
    summary = strict_json((run.save(tmp_path / "a") / "summary.json").read_text())
    assert (summary["validation_loss"], summary["shot_noise_floor"]) == (None, None)


def test_a_used_folder_is_an_error_and_stays_unchanged(run, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="empty folder"):
        run.save(tmp_path)
    assert [item.name for item in tmp_path.iterdir()] == ["notes.txt"]
    assert run.checkpoint is None


def test_overwriting_keeps_other_files(run, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "wts.h5.zip").write_text("old")
    run.save(tmp_path, overwrite=True)
    assert {item.name for item in tmp_path.iterdir()} == {*FILES, "notes.txt"}
    assert read_bundle(tmp_path).training == run.training
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_equal_runs_make_equal_files(run, tmp_path):
    one = run.save(tmp_path / "a")
    time.sleep(1.1)  # HDF5 stores times in seconds for groups with tracked order
    other = run.save(tmp_path / "b")
    for name in FILES:
        assert (one / name).read_bytes() == (other / name).read_bytes()
