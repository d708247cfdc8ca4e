"""Prediction of object patches by a network, one batch after the other."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.config import InferenceConfig
from ptycho_backend.data.batching import Samples
from ptycho_backend.data.grouping import group_positions
from ptycho_backend.data.image import Image
from ptycho_backend.data.scan import Scan
from ptycho_backend.engines.model import Model
from ptycho_backend.events import OnEvent, StageEvent, ignore
from ptycho_backend.network.physics_constants import patch_weight
from ptycho_backend.runtime.memory_map import gathered
from ptycho_backend.solver.initial_estimate import estimated
from ptycho_backend.solver.stitching import assemble, central, lit_half


@dataclass(frozen=True, eq=False)
class Predicted:
    """
    What a model predicts of a scan: of every patch the part that is stitched.

    Parameters
    ----------
    indices : int64, shape (group, channel)
        Positions in the scan.
    patches : complex64, shape (group, channel, y, x)
        The squares around the windows' centres; of a large scan they lie in a file.
    weight : float32, shape (y, x)
        Trust in each pixel of a square.
    """

    indices: NDArray[np.int64]
    patches: NDArray[np.complex64]
    weight: NDArray[np.float32]

    @property
    def single(self) -> bool:
        """Whether every pattern was looked at by itself, so that its patch is the same in any part of the scan."""
        return self.indices.shape[1] == 1

    def subset(self, rows: NDArray[np.intp] | slice) -> Predicted:
        """Return what is predicted of a part of the scan, where patterns were looked at one by one."""
        patches = self.patches[rows] if isinstance(rows, slice) else gathered(self.patches, rows)
        return Predicted(np.arange(len(patches))[:, None], patches, self.weight)

    def stitched(self, scan: Scan, inference: InferenceConfig, on_event: OnEvent = ignore) -> Image:
        """Give all patches one phase reference, and stitch them."""
        return assemble(self.patches, scan, self.indices, self.weight, inference.phase_alignment, on_event)


def predict(
    scan: Scan, model: Model, inference: InferenceConfig, on_event: OnEvent = ignore, stage: str = "reconstruction"
) -> Predicted:
    """Predict all patches of a scan, under the name of a stage."""
    samples = samples_of(scan, model, inference)
    indices = samples.groups.indices
    weight = patch_weight(model.config, model.trained_calibration().probe)
    half = lit_half(weight)
    lit, aligned = central(weight, half), inference.phase_alignment
    estimate = partial(model.predictions, amplitude_constraint=inference.amplitude_constraint)
    for patches in estimated(samples, estimate, inference.batch_size, half):
        done = len(patches)
        so_far = partial(assemble, patches, scan, indices[:done], lit, aligned)
        on_event(StageEvent(stage, done, len(samples), image=so_far))
    return Predicted(indices, patches, lit)


def samples_of(scan: Scan, model: Model, inference: InferenceConfig) -> Samples:
    """Return the groups of a scan that a model predicts, equal for equal seeds."""
    rng = np.random.default_rng([inference.seed, 3])
    groups = group_positions(scan.positions_px, model.config.gridsize, inference.neighbor_count, None, rng)
    return Samples(scan, groups, model.calibration)
