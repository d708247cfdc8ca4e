"""Where a training stands: what an engine needs to go on as if it had never stopped (spec: model_file 6)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.float32]]


@dataclass(eq=False)
class TrainerState:
    """
    A training between two optimiser steps.

    Parameters
    ----------
    epoch : int
        Finished epochs.
    batch : int
        Batches taken in of the unfinished epoch; 0 between epochs.
    steps : int
        Optimiser steps taken, which Adam's bias correction counts.
    loss_sum, groups : float
        Sum of losses over the groups of the unfinished epoch, and their number.
    first, second : dict of str to float32 array
        Adam's moments by canonical weight name, in canonical layout.
    monitor : dict of str to float
        :meth:`ptycho_backend.training.monitoring.BestEpoch.state`.
    schedule : dict of str to float
        State of a schedule that depends on the metrics; empty for the others.
    kept : dict of str to float
        File names of the best checkpoints with their monitored values.
    best_weights : dict of str to float32 array
        Weights of the best epoch, where they are to be restored; else empty.
    probe : complex64, shape (mode, y, x), optional
        The calibration's probe; a trained one is among the weights.
    """

    epoch: int = 0
    batch: int = 0
    steps: int = 0
    loss_sum: float = 0.0
    groups: float = 0.0
    first: Arrays = field(default_factory=dict)
    second: Arrays = field(default_factory=dict)
    monitor: dict[str, float] = field(default_factory=dict)
    schedule: dict[str, float] = field(default_factory=dict)
    kept: dict[str, float] = field(default_factory=dict)
    best_weights: Arrays = field(default_factory=dict)
    probe: NDArray[np.complex64] | None = None


NUMBERS = ("epoch", "batch", "steps", "loss_sum", "groups")
MAPPINGS = ("monitor", "schedule", "kept")
ARRAYS = ("first", "second", "best_weights")
