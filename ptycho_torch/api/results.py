"""Writer of the best and the last checkpoint after a training (spec: ptychodus_api_spec 4.12)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ptycho_backend.model_file.bundle import read_bundle
from ptycho_backend.model_file.run import Run
from ptycho_backend.training.checkpoints import LAST as LAST_MODEL
from ptycho_torch.api.checkpoint import write_checkpoint
from ptycho_torch.api.models import PtychoPINN_Lightning
from ptycho_torch.engine.model import TorchModel
from ptycho_torch.lightning_utils import BEST, LAST


def write_checkpoints(module: PtychoPINN_Lightning, run: Run, folder: Path, n_batches: int) -> None:
    """
    Write checkpoints of the best and of the last epoch; the module has the weights of the best one.

    Parameters
    ----------
    module : PtychoPINN_Lightning
    run : Run
    folder : Path
        Folder of checkpoints; its last model file gives the weights of the last epoch.
    n_batches : int
        Batches of an epoch.
    """
    steps = -(-n_batches // run.execution.accumulate_grad_batches)
    losses = np.array([row[run.monitor] for row in run.history])
    best, last = int(np.argmin(np.nan_to_num(losses, nan=np.inf))) + 1, len(losses)
    write_checkpoint(folder / BEST, module, best - 1, best * steps)
    if (folder / LAST_MODEL).exists():
        with _weights_of(module.trained, folder / LAST_MODEL):
            write_checkpoint(folder / LAST, module, last - 1, last * steps)


@contextmanager
def _weights_of(model: TorchModel, path: Path) -> Iterator[None]:
    """Set a model's weights to those of a file, and restore them at the end."""
    original = model.get_weights()
    model.set_weights(read_bundle(path).weights)
    try:
        yield
    finally:
        model.set_weights(original)
