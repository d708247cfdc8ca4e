"""
Structural types of the results that the pictures show: scan, half datasets, assessment and comparison.

Pictures import none of the modules that compute these results, so an image can draw itself.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]
Pair = tuple[float, float]


class ScanLike(Protocol):
    """Positions (position, 2), pixels, (y, x), and object pixel, metres."""

    @property
    def positions_px(self) -> Real:
        """Scan positions (position, 2), pixels, (y, x)."""

    @property
    def pixel_size_m(self) -> Pair | None:
        """Object pixel (y, x), metres; None if unknown."""


class HalvesLike(Protocol):
    """Comparison of two half datasets, as :class:`ptycho_backend.quality.half_datasets.HalfDatasets`."""

    @property
    def resolution(self) -> float:
        """First crossing of 1/7 by the ring correlation, as a fraction of Nyquist."""

    @property
    def spread_amplitude(self) -> float:
        """Rms of half the amplitude difference, over the mean amplitude."""

    @property
    def spread_phase_rad(self) -> float:
        """Rms of half the phase difference."""

    @property
    def frequency(self) -> Real:
        """Fraction of Nyquist, shape (ring,)."""

    @property
    def correlation(self) -> Real:
        """Ring correlation, shape (ring,)."""

    @property
    def difference(self) -> Real:
        """Modulus of half the difference, over the mean amplitude, shape (y, x)."""

    @property
    def origin_px(self) -> Pair:
        """Scan coordinates (y, x) of pixel (0, 0) of the difference."""


class AssessmentLike(Protocol):
    """Assessment by the patterns alone, as :class:`ptycho_backend.quality.assessment.Assessment`."""

    @property
    def residual(self) -> float:
        """Mean half-deviance per pixel."""

    @property
    def shot_noise_floor(self) -> float:
        """Residual that photon noise alone causes."""

    @property
    def residual_per_pattern(self) -> Real:
        """Residuals, shape (position,)."""

    @property
    def floor_per_pattern(self) -> Real:
        """Shot-noise floors, shape (position,)."""

    @property
    def outliers(self) -> tuple[int, ...]:
        """Numbers of the patterns with a much larger residual."""

    @property
    def halves(self) -> HalvesLike | None:
        """Half datasets; None if they are not compared."""

    @property
    def no_halves(self) -> str:
        """Reason for missing half datasets."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Problems, one sentence each."""


class ComparisonLike(Protocol):
    """Comparison with a known object, as :class:`ptycho_backend.quality.metrics.Comparison`."""

    @property
    def amplitude_psnr_db(self) -> float:
        """Peak signal-to-noise ratio of the amplitude."""

    @property
    def phase_psnr_db(self) -> float:
        """Peak signal-to-noise ratio of the phase."""

    @property
    def amplitude_ssim(self) -> float:
        """Structural similarity of the amplitude."""

    @property
    def phase_ssim(self) -> float:
        """Structural similarity of the phase."""

    @property
    def amplitude_correlation(self) -> float:
        """Pearson correlation of the amplitude."""

    @property
    def phase_correlation(self) -> float:
        """Pearson correlation of exp(i·phase)."""

    @property
    def frc_half(self) -> float:
        """First crossing of 0.5 by the ring correlation, as a fraction of Nyquist."""

    @property
    def frc_frequency(self) -> Real:
        """Fraction of Nyquist, shape (ring,)."""

    @property
    def frc(self) -> Real:
        """Ring correlation, shape (ring,)."""

    @property
    def shift_px(self) -> Pair:
        """Removed shift (y, x)."""

    @property
    def ramp_rad_per_px(self) -> Pair:
        """Removed phase ramp (y, x)."""

    @property
    def amplitude_scale(self) -> float:
        """Factor applied to the amplitude of the image."""

    @property
    def area(self) -> tuple[float, float, int, int]:
        """Scan coordinates (y, x) of the first compared pixel, and the size of the area."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Problems, one sentence each."""

    @property
    def image(self) -> NDArray[Any]:
        """Registered image, complex, shape (y, x)."""

    @property
    def truth(self) -> NDArray[Any]:
        """Known object, complex, shape (y, x)."""

    @property
    def pixel_size_m(self) -> Pair | None:
        """Object pixel (y, x), metres; None if unknown."""
