"""Residual of every pattern, and variance between patterns, for one image and probe (spec: metrics 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.image import Experiment, Image
from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import ShapeError
from ptycho_backend.events import OnEvent, StageEvent, ignore
from ptycho_backend.physics.calibration import Calibration
from ptycho_backend.physics.losses import expected_half_deviance, half_deviance
from ptycho_backend.solver.scan_geometry import AXES, ScanGeometry, spectrum_of

Real = NDArray[np.float64]
CHUNK_PIXELS = 64**3  # detector pixels predicted at a time


@dataclass(frozen=True, eq=False)
class Residuals:
    """
    Residuals of the measured patterns against those predicted by an image and a probe.

    Parameters
    ----------
    residual : float64, shape (position,)
        Mean half-deviance per good pixel.
    floor : float64, shape (position,)
        Expected residual from photon noise alone.
    photons : float
        Mean photons per pattern, over all good pixels.
    counts : float
        Mean photons per good pixel.
    unexplained_variance : float64, shape (position,)
        Σ (f − g)² / Σ mean(f)² over good pixels, without the share of photon noise. f and g are the measured and the
        predicted pattern, each divided by its own photons.
    variation : Variation
        Variance between patterns.
    """

    residual: Real
    floor: Real
    photons: float
    counts: float
    unexplained_variance: Real
    variation: Variation


@dataclass(frozen=True)
class Variation:
    """
    Relative variances between patterns f divided by their own photons: Σ var(f) / Σ mean(f)² over good pixels.

    Parameters
    ----------
    measured : float
        Variance between the measured patterns, without the share of photon noise.
    error : float
        Standard deviation of `measured` from photon noise.
    predicted : float
        Variance between the predicted patterns.
    """

    measured: float = 0.0
    error: float = 0.0
    predicted: float = 0.0


def residuals(scan: Scan, calibration: Calibration, image: Image, on_event: OnEvent = ignore) -> Residuals:
    """
    Compare every pattern with the prediction of probe and stitched image.

    Parameters
    ----------
    scan : Scan
        Patterns, read in chunks.
    calibration : Calibration
        Scale of the data, and the probe of an image without an experiment.
    image : Image
        Stitched image; pixels without coverage have a transmission of 1, as in the solver. Its experiment holds the
        probe, positions, scales and background.
    on_event : callable
        Receives StageEvents.

    Raises
    ------
    ShapeError
        If the image was made from another number of patterns.

    Notes
    -----
    Spec: metrics 8.1, 8.2 and 8.6.
    """
    experiment = image.experiment or Experiment.given(calibration.probe, scan.positions_px)
    check_patterns_of(experiment, scan)
    geometry = ScanGeometry(scan.changed(positions_px=experiment.windows_px))
    canvas, mask = geometry.canvas(image), scan.mask
    geometry = geometry.moved(experiment.positions_px - experiment.windows_px)
    spectrum, powers = spectrum_of(experiment.probe), experiment.scales[:, None, None] ** 2
    sums, size = _VariationSums(scan.N), max(1, CHUNK_PIXELS // scan.N**2)
    residual, floor, unexplained_variance = (np.zeros(len(scan)) for _ in range(3))
    for start in range(0, len(scan), size):
        rows = slice(start, start + size)
        counts = scan.counts(rows).astype(np.float64) * calibration.photon_scale * mask
        intensity = geometry.intensities(canvas, spectrum, rows) * powers[rows] + experiment.background
        expected = intensity * calibration.counts_per_intensity
        residual[rows] = _mean(half_deviance(expected, counts), mask)
        floor[rows] = _mean(expected_half_deviance(expected), mask)
        unexplained_variance[rows] = sums.add(counts, expected * mask)
        on_event(StageEvent("residual", min(start + size, len(scan)), len(scan)))
    photons = sums.photons / len(scan)
    counts_per_pixel = photons / np.count_nonzero(mask)
    return Residuals(residual, floor, photons, counts_per_pixel, unexplained_variance / sums.scale(), sums.variation())


def check_patterns_of(experiment: Experiment, scan: Scan) -> None:
    """
    Check that an image was made from the patterns of a scan.

    Raises
    ------
    ShapeError
    """
    if len(experiment.positions_px) != len(scan):
        raise ShapeError(
            "An image is assessed by the patterns that it was made from.",
            expected=f"a scan of {len(experiment.positions_px)} patterns",
            received=f"{len(scan)} patterns in '{scan.source}'",
            fix="give the scan of the reconstruction",
        )


class _VariationSums:
    """Accumulated sums over patterns for the variances between them."""

    def __init__(self, N: int) -> None:
        self.photons, self._n = 0.0, 0
        names = ("measured", "measured²", "predicted", "predicted²", "noise")
        self._sums = {name: np.zeros((N, N)) for name in names}

    def add(self, counts: Real, expected: Real) -> Real:
        """Add measured and predicted patterns (position, y, x); return Σ (f − g)² of each, without noise."""
        totals = counts.sum(axis=AXES)
        self.photons += float(totals.sum())
        usable = totals > 1.5  # the variance of a share needs two photons
        self._n += int(usable.sum())
        total = totals[usable, None, None]
        measured = counts[usable] / total
        predicted = expected[usable] / np.maximum(expected[usable].sum(axis=AXES, keepdims=True), 1e-30)
        # Variance of a multinomial share, estimated without bias from the share itself.
        noise = measured * (1.0 - measured) / (total - 1.0)
        for name, values in (("measured", measured), ("predicted", predicted)):
            self._sums[name] += values.sum(axis=0)
            self._sums[f"{name}²"] += (values**2).sum(axis=0)
        self._sums["noise"] += noise.sum(axis=0)
        differences = np.zeros(len(counts))
        differences[usable] = ((measured - predicted) ** 2 - noise).sum(axis=AXES)
        return differences

    def scale(self) -> float:
        """Return Σ mean(f)², the unit of the variances."""
        return max(float(((self._sums["measured"] / max(self._n, 1)) ** 2).sum()), 1e-30)

    def variation(self) -> Variation:
        """Return the variances between all patterns."""
        n, scale = self._n, self.scale()
        if n < 2:
            return Variation()
        mean = {name: values / n for name, values in self._sums.items()}
        between = {
            name: float((mean[f"{name}²"] - mean[name] ** 2).sum()) * n / (n - 1) for name in ("measured", "predicted")
        }
        return Variation(
            measured=(between["measured"] - float(mean["noise"].sum())) / scale,
            error=float(np.sqrt(2.0 / (n - 1) * (mean["noise"] ** 2).sum())) / scale,
            predicted=between["predicted"] / scale,
        )


def _mean(values: Real, mask: NDArray[np.bool_]) -> Any:
    return (values * mask).sum(axis=AXES) / np.count_nonzero(mask)
