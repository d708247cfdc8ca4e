"""How well one image explains every pattern, and how much patterns differ from each other (spec: metrics 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from ptycho_backend.data.image import Image
from ptycho_backend.data.scan import Scan
from ptycho_backend.events import OnEvent, StageEvent, ignore
from ptycho_backend.physics.calibration import Calibration
from ptycho_backend.physics.losses import expected_half_deviance, half_deviance
from ptycho_backend.solver.scan_geometry import AXES, ScanGeometry, abs2, spectrum_of, sum_modes

Real = NDArray[np.float64]
CHUNK_PIXELS = 64**3  # patterns that are predicted at a time, in pixels


@dataclass(frozen=True, eq=False)
class Residuals:
    """
    What an image and a probe leave unexplained_variance.

    Parameters
    ----------
    residual : float64, shape (position,)
        Mean half-deviance per good pixel.
    floor : float64, shape (position,)
        What photon noise alone would leave.
    photons : float
        Mean of all patterns, on all good pixels together.
    counts : float
        The same per good pixel.
    unexplained_variance : float64, shape (position,)
        Σ (f − g)² / Σ mean(f)² over good pixels, f and g the measured and the predicted pattern, each divided by its
        own photons, without the share of photon noise.
    variation : Variation
        How much patterns differ from each other.
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
    Relative variances of patterns, each divided by its own photons: Σ var(f) / Σ mean(f)² over good pixels.

    Parameters
    ----------
    measured : float
        Between the measured patterns, without the share of photon noise.
    error : float
        Standard deviation that photon noise gives `measured`.
    predicted : float
        Between the patterns that probe and image predict.
    """

    measured: float = 0.0
    error: float = 0.0
    predicted: float = 0.0


def residuals(scan: Scan, calibration: Calibration, image: Image, on_event: OnEvent = ignore) -> Residuals:
    """
    Compare every pattern with what probe and stitched image predict.

    Parameters
    ----------
    scan : Scan
        Read in chunks.
    calibration : Calibration
        Scale of the data, and the probe.
    image : Image
        Where no patch has reached, the transmission is taken as 1, as in the passes over all patterns.
    on_event : callable
        Receives StageEvents.

    Notes
    -----
    Spec: metrics 8.1, 8.2 and 8.6.
    """
    geometry, spectrum = ScanGeometry(scan), spectrum_of(calibration.probe)
    canvas, good = geometry.canvas(image), scan.mask
    to_counts = calibration.photon_scale / calibration.rms_input_scale**2
    sums, size = _Sums(scan.N), max(1, CHUNK_PIXELS // scan.N**2)
    residual, floor, unexplained_variance = (np.zeros(len(scan)) for _ in range(3))
    for start in range(0, len(scan), size):
        rows = slice(start, start + size)
        counts = scan.counts(rows).astype(np.float64) * calibration.photon_scale * good
        waves = geometry.shifted_probes(spectrum, rows) * geometry.extract_patches(canvas, rows)
        intensity = sum_modes(abs2(scipy.fft.fft2(waves, axes=AXES, norm="ortho", overwrite_x=True)))
        expected = np.fft.fftshift(intensity, axes=AXES).astype(np.float64) * to_counts
        residual[rows] = _mean(half_deviance(expected, counts), good)
        floor[rows] = _mean(expected_half_deviance(expected), good)
        unexplained_variance[rows] = sums.add(counts, expected * good)
        on_event(StageEvent("residual", min(start + size, len(scan)), len(scan)))
    photons = sums.photons / len(scan)
    counts_per_pixel = photons / np.count_nonzero(good)
    return Residuals(residual, floor, photons, counts_per_pixel, unexplained_variance / sums.scale(), sums.variation())


class _Sums:
    """Sums over patterns from which their variation follows."""

    def __init__(self, N: int) -> None:
        self.photons, self._n = 0.0, 0
        names = ("measured", "measured²", "predicted", "predicted²", "noise")
        self._sums = {name: np.zeros((N, N)) for name in names}

    def add(self, counts: Real, expected: Real) -> Real:
        """Add measured and predicted patterns (position, y, x); return Σ difference² without noise."""
        totals = counts.sum(axis=AXES)
        self.photons += float(totals.sum())
        lit = totals > 1.5  # one photon alone has no shape
        self._n += int(lit.sum())
        total = totals[lit, None, None]
        measured = counts[lit] / total
        predicted = expected[lit] / np.maximum(expected[lit].sum(axis=AXES, keepdims=True), 1e-30)
        # Variance of a multinomial share, estimated without bias from the share itself.
        noise = measured * (1.0 - measured) / (total - 1.0)
        for name, values in (("measured", measured), ("predicted", predicted)):
            self._sums[name] += values.sum(axis=0)
            self._sums[f"{name}²"] += (values**2).sum(axis=0)
        self._sums["noise"] += noise.sum(axis=0)
        differences = np.zeros(len(counts))
        differences[lit] = ((measured - predicted) ** 2 - noise).sum(axis=AXES)
        return differences

    def scale(self) -> float:
        """Return Σ mean(f)², which makes variances relative."""
        return max(float(((self._sums["measured"] / max(self._n, 1)) ** 2).sum()), 1e-30)

    def variation(self) -> Variation:
        """Return the variances."""
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


def _mean(values: Real, good: NDArray[np.bool_]) -> Any:
    return (values * good).sum(axis=AXES) / np.count_nonzero(good)
