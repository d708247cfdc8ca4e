"""Checkpoints: model files with a trainer state, in a folder of their own (spec: model_file 6)."""

from __future__ import annotations

import dataclasses
import logging
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ptycho_backend.config import ExecutionConfig, TrainingConfig, to_dict
from ptycho_backend.data.run_claim import claimed
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
VALIDATION_HASH = "validation_sha256"  # only with a separate validation scan
MAY_DIFFER = ("nepochs", "backend")  # between a checkpoint and the training that resumes from it


class CheckpointWriter:
    """
    Writer of checkpoints in a folder.

    Parameters
    ----------
    folder : path
        Created if it is missing; its parent must be writable.
    provenance : dict
        Engine, versions, seed and data hash, which every checkpoint holds.
    execution : ExecutionConfig, optional
        Number of best epochs on disk (`save_top_k`). ``config.yaml`` beside the checkpoints records it.
    silent : bool
        Write nothing: only the first process of a process group writes.
    """

    def __init__(
        self,
        folder: Path | str,
        provenance: Mapping[str, Any],
        execution: ExecutionConfig | None = None,
        silent: bool = False,
    ) -> None:
        self._execution = execution or ExecutionConfig()
        self.folder, self.save_top_k, self.silent = Path(folder), self._execution.save_top_k, silent
        self._provenance, self._config_written, self._removed_earlier = dict(provenance), False, False
        if silent:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                "The folder of the checkpoints must be writable.",
                expected="a folder, or a path where one can be created",
                received=f"'{self.folder}': {error.strerror}",
                fix="choose another folder",
            ) from error

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """
        Hold the claim of the folder, so that no other training writes to it.

        Raises
        ------
        OutputError
            If another training writes to it.
        """
        with nullcontext() if self.silent else claimed(self.folder, inside=True):
            yield

    @property
    def last(self) -> Path:
        """Path of the last checkpoint."""
        return self.folder / LAST

    def check_free_space(self, model: Model) -> None:
        """
        Check that the disk has space for the checkpoints of a model.

        Raises
        ------
        OutputError
        """
        if self.silent:
            return
        # Weights, two moments and the best weights in each file; one more file while another is replaced.
        file_bytes = 4 * sum(array.nbytes for array in model.get_weights().values())
        needed, free = file_bytes * (2 + max(1, self.save_top_k)), shutil.disk_usage(self.folder).free
        if free < needed:
            raise OutputError(
                "Checkpoints need space on their disk.",
                expected=f"{needed / 1e6:.0f} MB for files of {file_bytes / 1e6:.0f} MB",
                received=f"{free / 1e6:.0f} MB free at '{self.folder}'",
                fix="free some space, choose another folder, or lower save_top_k",
            )

    def write(self, path: Path, model: Model, history: History, state: TrainerState) -> bool:
        """
        Write one checkpoint; it replaces the file at `path` only when it is complete.

        A failure is a warning, because a full disk may have space again after the next epoch.

        Returns
        -------
        bool
            True if the checkpoint is on the disk.
        """
        if self.silent:
            return False
        state.probe = model.calibration.probe
        bundle = dataclasses.replace(bundle_of(model, history, self._provenance), state=state)
        try:
            if not self._config_written:
                write_config(self.folder / CONFIG, model.training, self._execution)
                self._config_written = True
            write_bundle(path, bundle)
        except OutputError as error:
            logger.warning("checkpoint of epoch %d not written: %s", state.epoch, error.received)
            return False
        return True

    def write_epoch(self, model: Model, history: History, state: TrainerState, best: BestEpoch) -> None:
        """Write the last checkpoint, and before it a best one if the epoch is among the `save_top_k` best."""
        if self.silent:
            return
        value = float(history[-1][best.monitor_name])
        if math.isnan(value):
            value = math.inf if best.mode == "min" else -math.inf
        displaced = displaced_by(value, state.saved, self.save_top_k, best.mode)
        if displaced is not None:
            name = checkpoint_name(int(history[-1]["epoch"]), best.monitor_name, value)
            state.saved = {key: other for key, other in state.saved.items() if key != displaced} | {name: value}
            self.write(self.folder / name, model, history, state)
            if displaced and displaced != name:
                (self.folder / displaced).unlink(missing_ok=True)
        if self.write(self.last, model, history, state) and not self._removed_earlier:
            self._remove_earlier(state)

    def _remove_earlier(self, state: TrainerState) -> None:
        """Remove the best epochs of an earlier training, once the last checkpoint is this training's."""
        for path in self.folder.glob(f"epoch=*{SUFFIX}"):
            if path.name not in state.saved:
                path.unlink(missing_ok=True)
        self._removed_earlier = True


def checkpoint_name(epoch: int, monitor_name: str, value: float) -> str:
    """Return the file name of a best epoch's checkpoint (epochs count from 1)."""
    return f"epoch={epoch:03d}-{monitor_name}={value:.6g}{SUFFIX}"


def displaced_by(value: float, saved: Mapping[str, float], save_top_k: int, mode: str) -> str | None:
    """Return the file that a new value displaces: "" if there is room, None if the value is not among the best."""
    if save_top_k == 0:
        return None
    if save_top_k < 0 or len(saved) < save_top_k:
        return ""
    sign = 1.0 if mode == "min" else -1.0
    worst = max(saved, key=lambda name: sign * saved[name])
    return worst if sign * value < sign * saved[worst] else None


def read_checkpoint(folder: Path | str) -> Bundle:
    """
    Read the last checkpoint of a folder; its calibration holds the probe from before the training.

    Raises
    ------
    ModelFileError
        If it is missing, damaged, or without a trainer state.
    """
    path = Path(folder) / LAST
    if not path.exists():
        raise _not_resumable(
            f"a file '{LAST}' from a stopped training",
            f"none in '{folder}'",
            "train without resuming, or name the folder of the stopped run",
        )
    bundle = read_bundle(path)
    if bundle.state is None:
        raise _not_resumable(
            "a model file with a trainer state",
            f"'{path}', which holds a finished model",
            "resume from the folder 'checkpoints' of a run",
        )
    if bundle.state.probe is not None:
        bundle.calibration = dataclasses.replace(bundle.calibration, probe=bundle.state.probe)
    return bundle


def check_resumable(bundle: Bundle, training: TrainingConfig, provenance: Mapping[str, Any]) -> None:
    """
    Check that configuration and data are those of a checkpoint.

    Parameters
    ----------
    bundle : Bundle
        The checkpoint.
    training : TrainingConfig
        Configuration of the training that resumes.
    provenance : mapping
        Its provenance; only the hashes of the data are compared.

    Raises
    ------
    ConfigError, DataError
    """
    earlier, now = to_dict(bundle.training), to_dict(training)
    differing = [name for name in now if name not in MAY_DIFFER and now[name] != earlier.get(name)]
    if differing:
        raise ConfigError(
            "A resumed training keeps its configuration; only the number of epochs and the engine may change.",
            expected=", ".join(f"{name}={earlier.get(name)!r}" for name in differing),
            received=", ".join(f"{name}={now[name]!r}" for name in differing),
            fix="leave these options out, or start a new run",
        )
    for name, scan in ((DATA_HASH, "scan"), (VALIDATION_HASH, "validation scan")):
        expected, received = bundle.provenance.get(name), provenance.get(name)
        if expected != received:
            raise DataError(
                "A resumed training uses the data of its checkpoint.",
                expected=f"a {scan} with SHA-256 {str(expected)[:16]}…" if expected else f"no {scan}",
                received=f"SHA-256 {str(received)[:16]}…" if received else f"no {scan}",
                fix="give the same files and the same --resize, or start a new run",
            )


def _not_resumable(expected: str, received: str, fix: str) -> ModelFileError:
    return ModelFileError("Training resumes from a checkpoint.", expected, received, fix)
