"""What a training of a client leaves beside the ordinary run (spec: ptychodus_api_spec 4.12)."""

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
    Write the best epoch, which the model holds, and the last one.

    Parameters
    ----------
    module : PtychoPINN_Lightning
    run : Run
    folder : Path
        With the last model file in it, which the last checkpoint is made from.
    n_batches : int
        Of an epoch.
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
    """Lend a model the weights of a file."""
    own = model.get_weights()
    model.set_weights(read_bundle(path).weights)
    try:
        yield
    finally:
        model.set_weights(own)
