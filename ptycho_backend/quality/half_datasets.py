"""Fourier ring correlation of two images from half of the patterns each (spec: metrics 8.4, 8.5)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.image import Image
from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import DataError
from ptycho_backend.events import Event, OnEvent, StageEvent, ignore
from ptycho_backend.network.prediction import Predicted
from ptycho_backend.network.training_domain import probe_diameter_px
from ptycho_backend.quality.metrics import compare, first_crossing
from ptycho_backend.reconstruction import Reconstruction
from ptycho_backend.runtime.quantities import RESOLVED_BY_HALVES

Rows = NDArray[np.intp] | slice
LINK_OVER_DIAMETER = 0.7  # longest link of two patterns over the probe diameter: 30 % linear overlap
MIN_LINKED = 0.98  # share of the patterns of a half that such links must connect
MIN_PATTERNS = 8  # per half
NEIGHBOURS = 8  # considered for the assignment of a pattern
COPIED_BYTES = 2**30  # largest half to copy; halves of larger scans are views of every second pattern


@dataclass(frozen=True, eq=False)
class HalfDatasets:
    """
    Comparison of the images of two half datasets.

    Parameters
    ----------
    resolution : float
        Frequency of the first crossing of 1/7 by the Fourier ring correlation, as a fraction of Nyquist; 1 without a
        crossing.
    spread_amplitude : float
        Rms of half the amplitude difference, over the mean amplitude.
    spread_phase_rad : float
        Rms of half the phase difference.
    frequency, correlation : float64, shape (ring,)
        Fourier ring correlation over frequency, as a fraction of Nyquist.
    difference : float64, shape (y, x)
        |half the difference| over the mean amplitude.
    origin_px : (float, float), (y, x)
        Scan coordinates of pixel (0, 0) of `difference`.
    """

    resolution: float
    spread_amplitude: float
    spread_phase_rad: float
    frequency: NDArray[np.float64] = field(repr=False)
    correlation: NDArray[np.float64] = field(repr=False)
    difference: NDArray[np.float64] = field(repr=False)
    origin_px: tuple[float, float] = (0.0, 0.0)


def half_datasets(
    reconstruction: Reconstruction, predicted: Predicted | None = None, on_event: OnEvent = ignore
) -> HalfDatasets | str:
    """
    Reconstruct two half datasets in the same way and compare the images.

    Parameters
    ----------
    reconstruction : Reconstruction
        Reconstruction of the whole scan; its calibration holds for the halves too.
    predicted : Predicted, optional
        Patches of the whole scan. Groups of neighbours span both halves, so their patches are predicted again.
    on_event : callable

    Returns
    -------
    HalfDatasets, or str
        Reason in words if the halves cannot represent the whole scan.

    Notes
    -----
    Spec: metrics 8.4 and 8.5.
    """
    scan = reconstruction.scan
    halves = split_evenly(scan)
    diameter_px = probe_diameter_px(reconstruction.calibration.probe)
    for rows in halves:
        if reason := _reason_against(scan.positions_px[rows], diameter_px):
            return reason
    one, other = (
        _half_image(reconstruction, predicted, rows, _with_half_number(on_event, number))
        for number, rows in enumerate(halves, 1)
    )
    try:
        found = compare(one.obj, one.origin_px, other.obj, other.origin_px, scan.positions_px)
    except DataError:
        return "the area that both halves cover is too small"
    return _statistics(found.image, found.truth, found.frc_frequency, found.frc, found.area[:2])


def _half_image(reconstruction: Reconstruction, predicted: Predicted | None, rows: Rows, on_event: OnEvent) -> Image:
    half = reconstruction.part(rows, on_event)
    return half.image(on_event, predicted.subset(rows) if predicted is not None and predicted.single else None)


def split_evenly(scan: Scan) -> tuple[Rows, Rows]:
    """
    Split a scan by greedy assignment: in the order of measurement, each pattern joins the more distant half.

    A raster becomes a chessboard, and both halves contain the same drifts.
    """
    if scan.patterns.nbytes > 2 * COPIED_BYTES:
        return slice(0, None, 2), slice(1, None, 2)
    from scipy.spatial import cKDTree

    k = min(NEIGHBOURS + 1, len(scan))
    distance, near = cKDTree(scan.positions_px).query(scan.positions_px, k=k)
    half = np.full(len(scan), -1)
    for i, (distances, others) in enumerate(zip(np.reshape(distance, (-1, k)), np.reshape(near, (-1, k)), strict=True)):
        room = [float(distances[half[others] == h].min(initial=np.inf)) for h in (0, 1)]
        # At equal distances the smaller half gets the pattern.
        half[i] = (room[1] > room[0]) if room[0] != room[1] else (half == 1).sum() < (half == 0).sum()
    return np.flatnonzero(half == 0), np.flatnonzero(half == 1)


def _reason_against(positions_px: NDArray[np.float64], diameter_px: float) -> str:
    """Return the reason why a half is too sparse for a reconstruction; an empty text for a usable half."""
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    n, tree = len(positions_px), cKDTree(positions_px)
    if n < MIN_PATTERNS:
        return f"a half would have {n} patterns, fewer than {MIN_PATTERNS}"
    links = tree.sparse_distance_matrix(tree, LINK_OVER_DIAMETER * diameter_px, output_type="coo_matrix")
    label = connected_components(links, directed=False)[1]
    if np.bincount(label).max() < MIN_LINKED * n:
        share = f"{LINK_OVER_DIAMETER:.0%}"
        return f"patterns of a half no longer overlap: their distance exceeds {share} of the probe's diameter"
    return ""


def _with_half_number(on_event: OnEvent, number: int) -> OnEvent:
    """Return a callback that adds the number of the half to stage names, and removes images."""

    def renamed(event: Event) -> None:
        if isinstance(event, StageEvent):
            event = replace(event, stage=f"half {number}: {event.stage}", image=None)
        on_event(event)

    return renamed


def _statistics(one: Any, other: Any, frequency: Any, correlation: Any, origin_px: tuple[float, float]) -> HalfDatasets:
    amplitude = np.abs(one + other).mean() / 2
    phase = np.angle(one * np.conj(other)) / 2
    return HalfDatasets(
        resolution=first_crossing(frequency, correlation, RESOLVED_BY_HALVES),
        spread_amplitude=float(np.sqrt(((np.abs(one) - np.abs(other)) ** 2).mean()) / 2 / amplitude),
        spread_phase_rad=float(np.sqrt((phase**2).mean())),
        frequency=frequency,
        correlation=correlation,
        difference=np.abs(one - other) / 2 / amplitude,
        origin_px=origin_px,
    )
