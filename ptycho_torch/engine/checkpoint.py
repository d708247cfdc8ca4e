"""
State of torch's Adam as canonical arrays, and checkpoints as model files of this package.

Only this engine has checkpoint callbacks: Lightning selects the best epochs itself, for Keras the core does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import CheckpointIO, TorchCheckpointIO
from torch import Tensor

from ptycho_backend.model_file.trainer_state import TrainerState
from ptycho_backend.network.weights import check_weights
from ptycho_backend.training.checkpoints import LAST, SUFFIX, CheckpointWriter
from ptycho_torch.engine.model import from_canonical_weight, weights_of


class PortableCheckpointIO(CheckpointIO):
    """
    Checkpoint writer for Lightning in the model file format of both engines.

    Lightning writes all other files, such as those that pass weights between processes, in its own format.

    Parameters
    ----------
    write : callable
        Function of the path that writes a checkpoint atomically.
    """

    def __init__(self, write: Callable[[Path], None]) -> None:
        self._write, self._default = write, TorchCheckpointIO()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a model file; for it, Lightning's `checkpoint` is unused."""
        if _is_model_file(path):
            self._write(Path(path))
        else:
            self._default.save_checkpoint(checkpoint, path, storage_options)

    def load_checkpoint(self, path: str | Path, map_location: Any = None) -> dict[str, Any]:
        """Load Lightning's own files; a model file resumes by `ptycho_backend.train(..., resume=True)` instead."""
        if _is_model_file(path):
            raise NotImplementedError("resume with ptycho_backend.train(..., resume=True)")
        return self._default.load_checkpoint(path, map_location)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint file."""
        Path(path).unlink(missing_ok=True)


def checkpoint_callbacks(
    writer: CheckpointWriter, monitor: str, mode: str, saved: Mapping[str, float]
) -> list[ModelCheckpoint]:
    """Return the callbacks for the checkpoints of the best epochs and of the last epoch."""
    shared = {"dirpath": writer.folder, "save_on_train_epoch_end": True, "enable_version_counter": False}
    best = ModelCheckpoint(
        monitor=monitor,
        mode=mode,
        save_top_k=writer.save_top_k,
        filename=f"{{epoch:03d}}-{{{monitor}:.6g}}",
        **shared,
    )
    _restore_best(best, writer.folder, saved)
    last = ModelCheckpoint(filename=LAST.removesuffix(SUFFIX), save_top_k=1, **shared)
    for callback in (best, last):
        callback.FILE_EXTENSION = SUFFIX
    return [best, last]


def saved_by(callback: ModelCheckpoint) -> dict[str, float]:
    """Return the file names of the best checkpoints with their monitored values."""
    return {Path(path).name: float(value) for path, value in callback.best_k_models.items()}


def moments_of(optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return Adam's steps and moments as fields of a :class:`TrainerState`."""
    states = {name: optimizer.state[value] for name, value in parameters.items() if value in optimizer.state}
    return {
        "steps": max((int(state["step"]) for state in states.values()), default=0),
        "first": weights_of({name: state["exp_avg"] for name, state in states.items()}),
        "second": weights_of({name: state["exp_avg_sq"] for name, state in states.items()}),
    }


@torch.no_grad()
def restore_moments(optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor], state: TrainerState) -> None:
    """Set the steps and moments of Adam."""
    if state.steps == 0:
        return
    shapes = {name: value.shape for name, value in weights_of(parameters).items()}
    for moments in (state.first, state.second):
        check_weights(moments, shapes)
    for name, value in parameters.items():
        optimizer.state[value] = {
            "step": torch.tensor(float(state.steps), device=value.device),
            "exp_avg": _like(value, name, state.first[name]),
            "exp_avg_sq": _like(value, name, state.second[name]),
        }


def _like(parameter: Tensor, name: str, moment: np.ndarray) -> Tensor:
    # The fused kernel needs the memory layout of the parameter.
    return torch.empty_like(parameter).copy_(from_canonical_weight(name, torch.as_tensor(moment)))


def _is_model_file(path: str | Path) -> bool:
    return str(path).endswith(SUFFIX)


def _restore_best(callback: ModelCheckpoint, folder: Path, saved: Mapping[str, float]) -> None:
    """Set the best checkpoints of a callback to those of an earlier training."""
    callback.best_k_models = {str(folder / name): torch.tensor(value) for name, value in saved.items()}
    if not saved:
        return
    best, worst = (min, max) if callback.mode == "min" else (max, min)
    callback.kth_best_model_path = worst(callback.best_k_models, key=callback.best_k_models.__getitem__)
    callback.kth_value = callback.best_k_models[callback.kth_best_model_path]
    callback.best_model_path = best(callback.best_k_models, key=callback.best_k_models.__getitem__)
    callback.best_model_score = callback.best_k_models[callback.best_model_path]
