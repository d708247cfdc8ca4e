"""Trainer state: the values from which an engine resumes a training exactly (spec: model_file 6)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.float32]]


@dataclass(eq=False)
class TrainerState:
    """
    State of a training between two optimiser steps.

    Parameters
    ----------
    epoch : int
        Finished epochs.
    batch : int
        Finished batches of the next epoch; 0 between epochs.
    steps : int
        Optimiser steps; Adam's bias correction depends on them.
    loss_sum, groups : float
        Sum of losses over the groups of the unfinished epoch, and their number.
    first, second : dict of str to float32 array
        Adam's moments by canonical weight name, in canonical layout.
    monitor : dict of str to float
        :attr:`ptycho_backend.training.monitoring.BestEpoch.state`.
    schedule : dict of str to float
        State of a schedule that depends on metrics; empty for the other schedules.
    saved : dict of str to float
        File names of the best checkpoints with their monitored values.
    best_weights : dict of str to float32 array
        Weights of the best epoch if `restore_best` is on; else empty.
    probe : complex64, shape (mode, y, x), optional
        Probe of the calibration. A trained probe is among the weights.
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
    saved: dict[str, float] = field(default_factory=dict)
    best_weights: Arrays = field(default_factory=dict)
    probe: NDArray[np.complex64] | None = None


NUMBERS = ("epoch", "batch", "steps", "loss_sum", "groups")
MAPPINGS = ("monitor", "schedule", "saved")
ARRAYS = ("first", "second", "best_weights")
