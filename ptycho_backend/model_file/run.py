"""What training returns: a model, how it got there, and how to keep it."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_backend._version import __version__
from ptycho_backend.config import ExecutionConfig, TrainingConfig, save_yaml, to_dict
from ptycho_backend.data.output import atomic_path, prepare_run_folder
from ptycho_backend.engines.model import History, Model
from ptycho_backend.model_file.bundle import FILE_NAME, Bundle, write_bundle

CONFIG = "config.yaml"
METRICS = "metrics.csv"
SUMMARY = "summary.json"


@dataclass(eq=False)
class Run:
    """
    A finished training.

    Parameters
    ----------
    model : Model
        With the weights of the best epoch, or the last where `restore_best` is off.
    training, execution : configurations as used
    history : list of dict
        One per epoch: ``epoch``, ``lr``, the model's `train_loss_name` and `val_loss_name`.
    monitor : str
        The metric that chose the best epoch.
    summary : dict
        Figures of the run: seconds, validation loss and shot-noise floor, probe refinement.
    provenance : dict
        Engine, versions, seed, data hash.
    checkpoint : Path, optional
        The model file, once saved.
    """

    model: Model
    training: TrainingConfig
    execution: ExecutionConfig
    history: History
    monitor: str
    summary: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    checkpoint: Path | None = None

    def save(self, folder: Path | str, overwrite: bool = False) -> Path:
        """
        Write ``wts.h5.zip``, ``config.yaml``, ``metrics.csv`` and ``summary.json`` into a run folder.

        Raises
        ------
        OutputError
            If the folder holds something and `overwrite` is off, or cannot be written.
        """
        target = prepare_run_folder(folder, overwrite)
        self.write_into(target)
        return target

    def write_into(self, folder: Path) -> None:
        """Write the files into a folder that has been prepared."""
        self.checkpoint = write_bundle(folder / FILE_NAME, self.bundle())
        write_config(folder / CONFIG, self.training, self.execution)
        self.write_record_into(folder)

    def write_record_into(self, folder: Path) -> None:
        """Write what the training was, without the model: ``metrics.csv`` and ``summary.json``."""
        write_history(folder / METRICS, self.history)
        write_json(folder / SUMMARY, {**self.summary, "monitor": self.monitor, **self.provenance})

    def bundle(self) -> Bundle:
        """Return what the model file holds."""
        return bundle_of(self.model, self.history, self.provenance)


def bundle_of(model: Model, history: History, provenance: dict[str, Any]) -> Bundle:
    """Return what a model's file holds; the trained probe goes into the calibration too."""
    return Bundle(model.training, model.trained_calibration(), model.get_weights(), history, provenance)


def provenance_of(backend: str, versions: dict[str, str], seed: int, data_hash: str) -> dict[str, Any]:
    """Return what made a result, as plain values."""
    return {"backend": backend, "versions": {**own_versions(), **versions}, "seed": seed, "data_sha256": data_hash}


def own_versions() -> dict[str, str]:
    """Return the versions of what computes whatever the engine."""
    return {"ptychopinn": __version__, "numpy": np.__version__, "python": platform.python_version()}


def write_config(path: Path, training: TrainingConfig, execution: ExecutionConfig) -> None:
    """Write a configuration that 'ptychopinn train --config' reads."""
    values = {"training": to_dict(training), "execution": to_dict(execution)}
    with atomic_path(path) as temporary:
        save_yaml(values, temporary)


def write_history(path: Path, history: History) -> None:
    """Write one line per epoch, comma-separated, in full precision."""
    names = columns(history)
    rows = [{name: _plain(value) for name, value in row.items()} for row in history]
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def columns(history: History) -> list[str]:
    """Return the names of all metrics, in the same order whatever the engine: epoch, rate, the others by name."""
    names = {name for row in history for name in row}
    return sorted(names, key=lambda name: (name != "epoch", name != "lr", name))


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write plain values as JSON; numbers that are none become null."""
    text = json.dumps(without_nan(values), indent=2, allow_nan=False)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def without_nan(value: Any) -> Any:
    """Return plain values with None for every number that JSON cannot hold."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    plain = _plain(value)
    return plain if plain is value else without_nan(plain)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, int | float | str):
        return value
    return value.item() if hasattr(value, "item") else str(value)
