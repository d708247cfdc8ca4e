"""The honest baseline: what the physics gives without any network."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.core.batching import Samples
from ptycho_backend.core.calibration import Calibration, probe_weight
from ptycho_backend.core.grouping import groups_from_indices
from ptycho_backend.core.inference import LIT, assemble
from ptycho_backend.core.stitching import Image
from ptycho_backend.core.unrolled import initial_estimate
from ptycho_backend.data.scan import Scan
from ptycho_backend.events import OnEvent, StageEvent, ignore

CHUNK = 32  # patterns estimated at a time


def baseline_image(scan: Scan, calibration: Calibration, on_event: OnEvent = ignore) -> Image:
    """
    Reconstruct a scan without a network: the first estimate of every pattern, phase-aligned and stitched.

    Parameters
    ----------
    scan : Scan
    calibration : Calibration
        Scale and probe; the network's own, so that both start from the same knowledge.
    on_event : callable
        Receives StageEvents.

    Returns
    -------
    Image

    Notes
    -----
    Spec: physics 6.1, 7. It is what an untrained "unet" predicts.
    """
    groups = groups_from_indices(scan.positions_px, np.arange(len(scan))[:, None])
    weight = probe_weight(calibration.probe).astype(np.float32)
    lit = _lit_window(weight)
    parts = []
    for number, batch in enumerate(Samples(scan, groups, calibration).batches(CHUNK)):
        parts.append(initial_estimate(batch.x, calibration.probe)[..., lit, lit].astype(np.complex64))
        on_event(StageEvent("baseline", min((number + 1) * CHUNK, len(scan)), len(scan)))
    return assemble(np.concatenate(parts), scan, groups.indices, weight[lit, lit])


def _lit_window(weight: NDArray[np.float32]) -> slice:
    """Return the smallest centred window that holds every lit pixel; the rest of a patch weighs next to nothing."""
    middle = weight.shape[-1] // 2
    lit = np.argwhere(weight > LIT * weight.max()) - middle
    half = int(min(middle, max(-lit.min(), lit.max() + 1)))
    return slice(middle - half, middle + half)
