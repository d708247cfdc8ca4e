"""The honest baseline: what the physics gives without any network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.config import InferenceConfig, ModelConfig
from ptycho_backend.core.batching import Batch, Samples
from ptycho_backend.core.calibration import Calibration, probe_weight
from ptycho_backend.core.devices import processors
from ptycho_backend.core.grouping import groups_from_indices
from ptycho_backend.core.inference import assemble, central, estimated, improved, lit_half
from ptycho_backend.core.side_by_side import side_by_side
from ptycho_backend.core.stitching import Image
from ptycho_backend.core.unrolled import accelerated, initial_estimate
from ptycho_backend.data.scan import Scan
from ptycho_backend.events import OnEvent, StageEvent, ignore, without_images

CHUNK = 32  # patterns estimated at a time


def without_network(
    scan: Scan,
    calibration: Calibration,
    config: ModelConfig,
    inference: InferenceConfig,
    on_event: OnEvent = ignore,
) -> Image:
    """
    Reconstruct a scan as a model would that has no network: the same physics before it and after it.

    Parameters
    ----------
    scan : Scan
    calibration : Calibration
        The model's own, so that both start from the same knowledge.
    config : ModelConfig
        Of the model that this is compared with.
    inference : InferenceConfig
        Passes over all patterns that follow.
    on_event : callable
        Receives StageEvents.
    """
    iterations = config.initial_iterations if config.architecture == "unet" else 0
    told = without_images(on_event)
    return improved(scan, calibration, baseline_image(scan, calibration, told, iterations), inference, told)


def baseline_image(scan: Scan, calibration: Calibration, on_event: OnEvent = ignore, iterations: int = 0) -> Image:
    """
    Estimate every pattern by itself, align the phases and stitch.

    Parameters
    ----------
    scan : Scan
    calibration : Calibration
        Scale and probe.
    on_event : callable
        Receives StageEvents.
    iterations : int
        Accelerated data-consistency steps after the first estimate.

    Returns
    -------
    Image

    Notes
    -----
    Spec: physics 6.1, 6.5, 7. It is what an untrained "unet" predicts.
    """
    groups = groups_from_indices(scan.positions_px, np.arange(len(scan))[:, None])
    weight = probe_weight(calibration.probe).astype(np.float32)
    probe, half = calibration.probe.astype(np.complex64), lit_half(weight)

    def estimate(batch: Batch) -> NDArray[Any]:
        return accelerated(initial_estimate(batch.x, probe), batch.x, probe, batch.mask, iterations)

    def estimates(batches: Iterable[Batch]) -> Iterator[NDArray[Any]]:
        return side_by_side(estimate, batches, processors())

    for patches in estimated(Samples(scan, groups, calibration), estimates, CHUNK, half):
        on_event(StageEvent("baseline", len(patches), len(scan)))
    return assemble(patches, scan, groups.indices, central(weight, half), on_event=on_event)
