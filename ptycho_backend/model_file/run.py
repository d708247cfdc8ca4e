"""Result of a training, and the files of a run folder (spec: model_file 5)."""

from __future__ import annotations

import csv
import json
import math
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_backend._version import __version__
from ptycho_backend.config import ExecutionConfig, TrainingConfig, save_yaml, to_dict
from ptycho_backend.data.output import atomic_path
from ptycho_backend.data.run_folder import Contents, run_folder
from ptycho_backend.engines.model import History, Model
from ptycho_backend.model_file.bundle import FILE_NAME, Bundle, write_bundle
from ptycho_backend.plots.notebook import curves_png, html_summary
from ptycho_backend.runtime.plain_values import to_plain

CONFIG = "config.yaml"
METRICS = "metrics.csv"
SUMMARY = "summary.json"
RUN_FILES = (FILE_NAME, CONFIG, METRICS, SUMMARY)


@dataclass(eq=False)
class Run:
    """
    Result of a finished training.

    Parameters
    ----------
    model : Model
        Model with the weights of the best epoch; of the last one if `restore_best` is off.
    training, execution : configurations as used
    history : list of dict
        One per epoch: ``epoch``, ``lr``, the model's `train_loss_name` and `val_loss_name`.
    monitor : str
        Metric that defines the best epoch.
    summary : dict
        Figures of the run: seconds, validation loss and shot-noise floor, probe refinement.
    provenance : dict
        Engine, versions, seed, data hash.
    checkpoint : Path, optional
        Path of the model file, once it is written.
    """

    model: Model
    training: TrainingConfig
    execution: ExecutionConfig
    history: History
    monitor: str
    summary: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    checkpoint: Path | None = None

    def facts(self) -> dict[str, str]:
        """Return label and short text: model, epochs, last losses, duration and model file."""
        model, last = self.model, self.history[-1] if self.history else {}
        texts = {"model": repr(model)[len("<Model: ") : -1], "epochs": f"{len(self.history)} epochs"}
        losses = [name for name in (model.train_loss_name, model.val_loss_name) if name in last]
        texts |= {name: f"{name} {last[name]:.4g}" for name in losses}
        if "training_seconds" in self.summary:
            texts["duration"] = f"{self.summary['training_seconds']:.3g} s"
        if self.checkpoint is not None:
            texts["file"] = f"saved in '{self.checkpoint}'"
        return texts

    def __repr__(self) -> str:
        return f"<Run: {', '.join(self.facts().values())}>"

    def _repr_html_(self) -> str:
        return html_summary("Run", self.facts(), self._picture if self.history else None)

    def _picture(self) -> bytes:
        """Return a small PNG of the losses of every epoch."""
        names = (self.model.train_loss_name, self.model.val_loss_name)
        curves = {
            name: np.array([epoch[name] for epoch in self.history if name in epoch])
            for name in names
            if name in self.history[-1]
        }
        return curves_png(curves, "epoch")

    def save(self, folder: Path | str, overwrite: bool = False) -> Path:
        """
        Write ``wts.h5.zip``, ``config.yaml``, ``metrics.csv`` and ``summary.json`` into a run folder.

        Readers see all files of the earlier run or all files of this one. Other files in the folder stay.

        Raises
        ------
        OutputError
            If the folder is in use or cannot be written, or is not empty and `overwrite` is off.
        """
        target = Path(folder)
        with run_folder(target, Contents(RUN_FILES, ()), overwrite) as unfinished:
            self.write_into(unfinished)
        self.checkpoint = target / FILE_NAME
        return target

    def write_into(self, folder: Path) -> None:
        """Write the files into an existing folder."""
        self.checkpoint = write_bundle(folder / FILE_NAME, self.bundle())
        write_config(folder / CONFIG, self.training, self.execution)
        self.write_record_into(folder)

    def write_record_into(self, folder: Path) -> None:
        """Write the record of the training without the model: ``metrics.csv`` and ``summary.json``."""
        write_history(folder / METRICS, self.history)
        write_json(folder / SUMMARY, {**self.summary, "monitor": self.monitor, **self.provenance})

    def bundle(self) -> Bundle:
        """Return the content of the model file."""
        return bundle_of(self.model, self.history, self.provenance)


def bundle_of(model: Model, history: History, provenance: dict[str, Any]) -> Bundle:
    """Return the content of a model's file; its calibration holds the trained probe."""
    return Bundle(model.training, model.trained_calibration(), model.get_weights(), history, provenance)


def provenance_of(backend: str, versions: dict[str, str], seed: int, data_hash: str) -> dict[str, Any]:
    """Return the origin of a result as plain values."""
    return {"backend": backend, "versions": {**core_versions(), **versions}, "seed": seed, "data_sha256": data_hash}


def core_versions() -> dict[str, str]:
    """Return the versions of the packages that every engine uses."""
    return {"ptychopinn": __version__, "numpy": np.__version__, "python": platform.python_version()}


def write_config(path: Path, training: TrainingConfig, execution: ExecutionConfig) -> None:
    """Write a configuration for 'ptychopinn train --config'."""
    values = {"training": to_dict(training), "execution": to_dict(execution)}
    with atomic_path(path) as temporary:
        save_yaml(values, temporary)


def write_history(path: Path, history: History) -> None:
    """Write one line per epoch, comma-separated, in full precision."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns(history), lineterminator="\n")
        writer.writeheader()
        writer.writerows(to_plain(row) for row in history)


def columns(history: History) -> list[str]:
    """Return the names of all metrics in an order that no engine changes: epoch, rate, the others by name."""
    names = {name for row in history for name in row}
    return sorted(names, key=lambda name: (name != "epoch", name != "lr", name))


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write values as JSON; NaN and infinity become null."""
    text = json.dumps(without_nan(values), indent=2, allow_nan=False, default=str)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def without_nan(value: Any) -> Any:
    """Return a value as plain Python, with None in place of NaN and infinity, which JSON lacks."""
    value = to_plain(value)
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
