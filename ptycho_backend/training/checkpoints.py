"""Checkpoints of a training: model files with a trainer state, in a folder of their own (spec: model_file 6)."""

from __future__ import annotations

import dataclasses
import logging
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptycho_backend.config import ExecutionConfig, TrainingConfig, to_dict
from ptycho_backend.engines.model import History, Model
from ptycho_backend.errors import ConfigError, DataError, ModelFileError, OutputError
from ptycho_backend.model_file.bundle import Bundle, read_bundle, write_bundle
from ptycho_backend.model_file.run import CONFIG, bundle_of, write_config
from ptycho_backend.model_file.trainer_state import TrainerState
from ptycho_backend.training.monitoring import BestEpoch

logger = logging.getLogger(__name__)

FOLDER = "checkpoints"  # inside a run folder
SUFFIX = ".h5.zip"
LAST = f"last{SUFFIX}"
DATA_HASH = "data_sha256"
VALIDATION_HASH = "validation_sha256"  # where a scan of its own is held out
MAY_DIFFER = ("nepochs", "backend")  # between a checkpoint and the training that resumes it


class Checkpoints:
    """
    Writes checkpoints into a folder.

    Parameters
    ----------
    folder : path
        Made if it is missing; its parent must be writable.
    provenance : dict
        Engine, versions, seed, data hash: stored in every checkpoint.
    execution : ExecutionConfig, optional
        Its `save_top_k` best epochs are kept. It is written beside the checkpoints, with the rest of the configuration.
    """

    def __init__(
        self, folder: Path | str, provenance: Mapping[str, Any], execution: ExecutionConfig | None = None
    ) -> None:
        self._execution = execution or ExecutionConfig()
        self.folder, self.save_top_k = Path(folder), self._execution.save_top_k
        self._provenance, self._described = dict(provenance), False
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                "Checkpoints need a folder that can be written to.",
                expected="a folder, or a place to make one",
                received=f"'{self.folder}': {error.strerror}",
                fix="choose another folder",
            ) from error

    @property
    def last(self) -> Path:
        """The checkpoint of the last step that was kept."""
        return self.folder / LAST

    def check_room(self, model: Model) -> None:
        """
        Refuse a disk that is already too full for the checkpoints of a model.

        Raises
        ------
        OutputError
        """
        # Weights, two moments and the best weights in each file; one more file while one is being replaced.
        each = 4 * sum(array.nbytes for array in model.get_weights().values())
        needed, free = each * (2 + max(1, self.save_top_k)), shutil.disk_usage(self.folder).free
        if free < needed:
            raise OutputError(
                "Checkpoints need room on their disk.",
                expected=f"{needed / 1e6:.0f} MB for files of {each / 1e6:.0f} MB",
                received=f"{free / 1e6:.0f} MB free at '{self.folder}'",
                fix="free some space, choose another folder, or lower save_top_k",
            )

    def write(self, path: Path, model: Model, history: History, state: TrainerState) -> None:
        """
        Write one checkpoint, whole or not at all.

        A disk that is full now may have room later: failing is a warning, and the file before it stays.
        """
        state.probe = model.calibration.probe
        bundle = dataclasses.replace(bundle_of(model, history, self._provenance), state=state)
        try:
            if not self._described:
                write_config(self.folder / CONFIG, model.training, self._execution)
                self._described = True
            write_bundle(path, bundle)
        except OutputError as error:
            logger.warning("checkpoint of epoch %d not written: %s", state.epoch, error.received)

    def keep_epoch(self, model: Model, history: History, state: TrainerState, best: BestEpoch) -> None:
        """Write an epoch's checkpoints: the best ones where it is one of these, and the last one."""
        value = float(history[-1][best.monitor_name])
        worst_value = math.inf if best.mode == "min" else -math.inf
        value = worst_value if math.isnan(value) else value
        displaced = displaced_by(value, state.kept, self.save_top_k, best.mode)
        if displaced is not None:
            name = checkpoint_name(int(history[-1]["epoch"]), best.monitor_name, value)
            state.kept = {key: kept for key, kept in state.kept.items() if key != displaced} | {name: value}
            self.write(self.folder / name, model, history, state)
            if displaced and displaced != name:
                (self.folder / displaced).unlink(missing_ok=True)
        self.write(self.last, model, history, state)


def checkpoint_name(epoch: int, monitor_name: str, value: float) -> str:
    """Return the file name of a best epoch's checkpoint (epochs count from 1)."""
    return f"epoch={epoch:03d}-{monitor_name}={value:.6g}{SUFFIX}"


def displaced_by(value: float, kept: Mapping[str, float], save_top_k: int, mode: str) -> str | None:
    """Return the file that a new value displaces, "" where there is room, None where it is not among the best."""
    if save_top_k == 0:
        return None
    if save_top_k < 0 or len(kept) < save_top_k:
        return ""
    worst = max(kept, key=kept.__getitem__) if mode == "min" else min(kept, key=kept.__getitem__)
    better = value < kept[worst] if mode == "min" else value > kept[worst]
    return worst if better else None


def read_checkpoint(folder: Path | str) -> Bundle:
    """
    Read the last checkpoint of a folder; its calibration holds the probe as it was before training.

    Raises
    ------
    ModelFileError
        If there is none, it is damaged, or it holds no trainer state.
    """
    path = Path(folder) / LAST
    if not path.exists():
        raise ModelFileError(
            "Training resumes from a checkpoint.",
            expected=f"a file '{LAST}' that a stopped training has left",
            received=f"none in '{folder}'",
            fix="train without resuming, or name the folder of the run that was stopped",
        )
    bundle = read_bundle(path)
    if bundle.state is None:
        raise ModelFileError(
            "Training resumes from a checkpoint.",
            expected="a model file with a trainer state",
            received=f"'{path}', which holds a finished model",
            fix="resume from the folder 'checkpoints' of a run",
        )
    if bundle.state.probe is not None:
        bundle.calibration = dataclasses.replace(bundle.calibration, probe=bundle.state.probe)
    return bundle


def check_resumable(bundle: Bundle, training: TrainingConfig, provenance: Mapping[str, Any]) -> None:
    """
    Refuse to go on with another training, or on other data, than the checkpoint's.

    Parameters
    ----------
    bundle : Bundle
        The checkpoint.
    training : TrainingConfig
    provenance : mapping
        Of the training that is to go on; its hashes of the data count.

    Raises
    ------
    ConfigError, DataError
    """
    before, now = to_dict(bundle.training), to_dict(training)
    differing = [name for name in now if name not in MAY_DIFFER and now[name] != before.get(name)]
    if differing:
        raise ConfigError(
            "A resumed training keeps its configuration; only the number of epochs and the engine may change.",
            expected=", ".join(f"{name}={before.get(name)!r}" for name in differing),
            received=", ".join(f"{name}={now[name]!r}" for name in differing),
            fix="leave these options out, or start a new run",
        )
    for name, what in ((DATA_HASH, "scan"), (VALIDATION_HASH, "validation scan")):
        expected, received = bundle.provenance.get(name), provenance.get(name)
        if expected != received:
            raise DataError(
                "A resumed training continues on the data it began with.",
                expected=f"a {what} with SHA-256 {str(expected)[:16]}…" if expected else f"no {what}",
                received=f"SHA-256 {str(received)[:16]}…" if received else f"no {what}",
                fix="give the same files and the same --resize, or start a new run",
            )
