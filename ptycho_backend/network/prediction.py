"""Prediction of object patches by a network, batch by batch."""

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
from ptycho_backend.runtime.memory_map import gather_rows
from ptycho_backend.solver.initial_estimate import estimate_patches
from ptycho_backend.solver.stitching import assemble, central, support_half_px


@dataclass(frozen=True, eq=False)
class Predicted:
    """
    Predicted patches of a scan, cropped to the part that is stitched.

    Parameters
    ----------
    indices : int64, shape (group, channel)
        Positions in the scan.
    patches : complex64, shape (group, channel, y, x)
        Central squares of the windows; memory-mapped for a large scan.
    weight : float32, shape (y, x)
        Weight of each pixel of a square.
    """

    indices: NDArray[np.int64]
    patches: NDArray[np.complex64]
    weight: NDArray[np.float32]

    @property
    def single(self) -> bool:
        """Whether each group is one pattern; its patch is then the same in any subset of the scan."""
        return self.indices.shape[1] == 1

    def subset(self, rows: NDArray[np.intp] | slice) -> Predicted:
        """Return the prediction for a subset of the patterns; requires `single`."""
        patches = self.patches[rows] if isinstance(rows, slice) else gather_rows(self.patches, rows)
        return Predicted(np.arange(len(patches))[:, None], patches, self.weight)

    def stitched(self, scan: Scan, inference: InferenceConfig, on_event: OnEvent = ignore) -> Image:
        """Align the phases of all patches and stitch them."""
        return assemble(self.patches, scan, self.indices, self.weight, inference.phase_alignment, on_event)


def predict(
    scan: Scan, model: Model, inference: InferenceConfig, on_event: OnEvent = ignore, stage: str = "reconstruction"
) -> Predicted:
    """Predict all patches of a scan; `stage` is the name in progress events."""
    samples = samples_of(scan, model, inference)
    indices = samples.groups.indices
    weight = patch_weight(model.config, model.trained_calibration().probe)
    half = support_half_px(weight)
    weight, aligned = central(weight, half), inference.phase_alignment
    estimate = partial(model.predictions, amplitude_constraint=inference.amplitude_constraint)
    for patches in estimate_patches(samples, estimate, inference.batch_size, half):
        done = len(patches)
        image = partial(assemble, patches, scan, indices[:done], weight, aligned)
        on_event(StageEvent(stage, done, len(samples), image=image))
    return Predicted(indices, patches, weight)


def samples_of(scan: Scan, model: Model, inference: InferenceConfig) -> Samples:
    """Return the samples of a scan in groups for prediction; equal seeds give equal groups."""
    rng = np.random.default_rng([inference.seed, 3])
    groups = group_positions(scan.positions_px, model.config.gridsize, inference.neighbor_count, None, rng)
    return Samples(scan, groups, model.calibration)
