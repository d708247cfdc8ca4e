"""Two images of half the patterns each: what they agree on was in the data twice (spec: metrics 8.4, 8.5)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.config import InferenceConfig
from ptycho_backend.data.image import Image
from ptycho_backend.data.scan import Scan
from ptycho_backend.engines.model import Model
from ptycho_backend.errors import DataError
from ptycho_backend.events import Event, OnEvent, StageEvent, ignore
from ptycho_backend.network.prediction import Predicted
from ptycho_backend.network.training_domain import probe_diameter_px
from ptycho_backend.quality.metrics import compare, first_crossing
from ptycho_backend.reconstruction import image_of, reconstruct_scan

Rows = NDArray[np.intp] | slice
LEVEL = 1 / 7  # at which the image of all patterns would correlate with the truth at 0.5
FARTHEST = 0.7  # step over probe diameter that still links two patterns: 30 % of linear overlap
LINKED = 0.98  # share of the patterns of a half that such steps must link
FEWEST = 8  # patterns of a half
NEIGHBOURS = 8  # looked at when positions are dealt out
COPIED_BYTES = 2**30  # of a half that is copied out of the scan; of larger scans every second pattern is looked at


@dataclass(frozen=True, eq=False)
class HalfDatasets:
    """
    What two half scans agree on.

    Parameters
    ----------
    resolution : float
        Where the Fourier ring correlation of the halves first falls to 1/7, as a fraction of Nyquist; 1 if it never
        does.
    spread_amplitude : float
        Rms of half their difference in amplitude, over the mean amplitude.
    spread_phase_rad : float
        Rms of half their difference in phase.
    frequency, correlation : float64, shape (ring,)
        Fourier ring correlation over frequency, as a fraction of Nyquist.
    difference : float64, shape (y, x)
        |half the difference| over the mean amplitude.
    origin_px : (float, float), (y, x)
        Scan coordinates of the difference's pixel (0, 0).
    """

    resolution: float
    spread_amplitude: float
    spread_phase_rad: float
    frequency: NDArray[np.float64] = field(repr=False)
    correlation: NDArray[np.float64] = field(repr=False)
    difference: NDArray[np.float64] = field(repr=False)
    origin_px: tuple[float, float] = (0.0, 0.0)


def half_datasets(
    scan: Scan, model: Model, predicted: Predicted, inference: InferenceConfig, on_event: OnEvent = ignore
) -> HalfDatasets | str:
    """
    Reconstruct two halves of a scan with one model and compare them.

    Parameters
    ----------
    scan : Scan
    model : Model
        With the calibration of this scan.
    predicted : Predicted
        What it predicts of the whole scan. Groups of neighbours reach across halves and are predicted anew.
    inference : InferenceConfig
        As for the whole scan; its calibration is the model's.
    on_event : callable

    Returns
    -------
    HalfDatasets, or str
        The reason in words, where halves say nothing about the whole.

    Notes
    -----
    Spec: metrics 8.4 and 8.5.
    """
    halves = split_evenly(scan)
    diameter_px = probe_diameter_px(model.calibration.probe)
    for rows in halves:
        if reason := _unlinked(scan.positions_px[rows], diameter_px):
            return reason
    one, other = (
        _half_image(scan.subset(rows), model, predicted, rows, inference, _of_half(on_event, number))
        for number, rows in enumerate(halves, 1)
    )
    try:
        found = compare(one.obj, one.origin_px, other.obj, other.origin_px, scan.positions_px)
    except DataError:
        return "the area that both halves cover is too small"
    return _judged(found.image, found.truth, found.frc_frequency, found.frc, found.area[:2])


def _half_image(
    half: Scan, model: Model, predicted: Predicted, rows: Rows, inference: InferenceConfig, on_event: OnEvent
) -> Image:
    if not predicted.single:
        return reconstruct_scan(half, model, inference, on_event)
    return image_of(half, model, predicted.subset(rows), inference, on_event)


def split_evenly(scan: Scan) -> tuple[Rows, Rows]:
    """
    Deal the patterns out to two halves, in the order of measurement, each to the half that is farther away.

    A raster falls apart like a chessboard, and both halves see the same drifts.
    """
    if scan.patterns.nbytes > 2 * COPIED_BYTES:
        return slice(0, None, 2), slice(1, None, 2)
    from scipy.spatial import cKDTree

    k = min(NEIGHBOURS + 1, len(scan))
    distance, near = cKDTree(scan.positions_px).query(scan.positions_px, k=k)
    half = np.full(len(scan), -1)
    for i, (distances, others) in enumerate(zip(np.reshape(distance, (-1, k)), np.reshape(near, (-1, k)), strict=True)):
        room = [float(distances[half[others] == h].min(initial=np.inf)) for h in (0, 1)]
        # Of two that are equally far, the smaller half.
        half[i] = (room[1] > room[0]) if room[0] != room[1] else (half == 1).sum() < (half == 0).sum()
    return np.flatnonzero(half == 0), np.flatnonzero(half == 1)


def _unlinked(positions_px: NDArray[np.float64], diameter_px: float) -> str:
    """Return why half a scan could not hold together as the whole one does; nothing where it does."""
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    n = len(positions_px)
    if n < FEWEST:
        return f"a half would have {n} patterns, fewer than {FEWEST}"
    near = cKDTree(positions_px).sparse_distance_matrix(
        cKDTree(positions_px), FARTHEST * diameter_px, output_type="coo_matrix"
    )
    label = connected_components(near, directed=False)[1]
    if np.bincount(label).max() < LINKED * n:
        return f"patterns of a half no longer overlap: they lie more than {FARTHEST:.0%} of the probe's diameter apart"
    return ""


def _of_half(on_event: OnEvent, number: int) -> OnEvent:
    """Tell stages of a half apart from those of the whole."""

    def tell(event: Event) -> None:
        on_event(
            replace(event, stage=f"half {number}: {event.stage}", image=None)
            if isinstance(event, StageEvent)
            else event
        )

    return tell


def _judged(one: Any, other: Any, frequency: Any, correlation: Any, origin_px: tuple[float, float]) -> HalfDatasets:
    amplitude = np.abs(one + other).mean() / 2
    phase = np.angle(one * np.conj(other)) / 2
    return HalfDatasets(
        resolution=first_crossing(frequency, correlation, LEVEL),
        spread_amplitude=float(np.sqrt(((np.abs(one) - np.abs(other)) ** 2).mean()) / 2 / amplitude),
        spread_phase_rad=float(np.sqrt((phase**2).mean())),
        frequency=frequency,
        correlation=correlation,
        difference=np.abs(one - other) / 2 / amplitude,
        origin_px=origin_px,
    )
