"""The honest baseline: what the physics gives without any network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.batching import Batch, Samples
from ptycho_backend.data.grouping import groups_from_indices
from ptycho_backend.data.image import Image
from ptycho_backend.data.scan import Scan
from ptycho_backend.events import OnEvent, StageEvent, ignore
from ptycho_backend.physics.amplitude_constraint import accelerated, initial_estimate
from ptycho_backend.physics.calibration import Calibration, probe_weight
from ptycho_backend.runtime.devices import processors
from ptycho_backend.runtime.memory_map import release, scratch_array
from ptycho_backend.runtime.thread_map import ordered_map
from ptycho_backend.solver.stitching import assemble, central, lit_half

CHUNK = 32  # patterns estimated at a time


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
        return ordered_map(estimate, batches, processors())

    for patches in estimated(Samples(scan, groups, calibration), estimates, CHUNK, half):
        on_event(StageEvent("baseline", len(patches), len(scan)))
    return assemble(patches, scan, groups.indices, central(weight, half), on_event=on_event)


def estimated(
    samples: Samples, estimates: Callable[[Iterable[Batch]], Iterable[NDArray[Any]]], batch_size: int, half: int
) -> Iterator[NDArray[np.complex64]]:
    """
    Estimate all patches of a scan, batch after batch; yield all there are so far, (group, channel, y, x), after each.

    Only the centre of side 2·half is kept, and not in memory where the scan is large (spec: data 8).
    """
    patches = scratch_array((len(samples), samples.groups.channels, 2 * half, 2 * half), np.complex64)
    done = 0
    for part in estimates(samples.batches(batch_size)):
        patches[done : done + len(part)] = central(part, half)
        release(patches)
        done += len(part)
        yield patches[:done]
