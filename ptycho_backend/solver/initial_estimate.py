"""Initial object without a network: the amplitude constraint on every pattern, then stitching."""

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
from ptycho_backend.solver.stitching import assemble, central, support_half_px

CHUNK = 32  # patterns per batch


def baseline_image(scan: Scan, calibration: Calibration, on_event: OnEvent = ignore, iterations: int = 0) -> Image:
    """
    Estimate each patch from its own pattern, align the phases and stitch.

    Parameters
    ----------
    scan : Scan
    calibration : Calibration
        Scale and probe.
    on_event : callable
        Receives StageEvents.
    iterations : int
        Accelerated amplitude-constraint steps after the first estimate.

    Returns
    -------
    Image

    Notes
    -----
    Spec: physics 6.1, 6.5, 7. An untrained "unet" predicts the same image.
    """
    groups = groups_from_indices(scan.positions_px, np.arange(len(scan))[:, None])
    weight = probe_weight(calibration.probe).astype(np.float32)
    probe, half = calibration.probe.astype(np.complex64), support_half_px(weight)

    def estimate(batch: Batch) -> NDArray[Any]:
        return accelerated(initial_estimate(batch.x, probe), batch.x, probe, batch.mask, iterations)

    def estimate_all(batches: Iterable[Batch]) -> Iterator[NDArray[Any]]:
        return ordered_map(estimate, batches, processors())

    for patches in estimate_patches(Samples(scan, groups, calibration), estimate_all, CHUNK, half):
        on_event(StageEvent("baseline", len(patches), len(scan)))
    return assemble(patches, scan, groups.indices, central(weight, half), on_event=on_event)


def estimate_patches(
    samples: Samples, estimate_all: Callable[[Iterable[Batch]], Iterable[NDArray[Any]]], batch_size: int, half: int
) -> Iterator[NDArray[np.complex64]]:
    """
    Estimate the patches of a scan in batches; yield all patches so far, (group, channel, y, x), after each batch.

    Stores their centres of side 2·half, for a large scan in a file (spec: data 8).
    """
    patches = scratch_array((len(samples), samples.groups.channels, 2 * half, 2 * half), np.complex64)
    done = 0
    for batch in estimate_all(samples.batches(batch_size)):
        patches[done : done + len(batch)] = central(batch, half)
        release(patches)
        done += len(batch)
        yield patches[:done]
