"""
Every tolerance of the tests, with its reason.

A tolerance is relative to the largest magnitude of what is expected: arrays of a field hold bright and dark
pixels, and rounding of an FFT or a convolution follows the bright ones.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """
    How far two results may differ.

    Parameters
    ----------
    relative : float
        Largest difference over the largest expected magnitude.
    reason : str
        Why it is not smaller.
    """

    relative: float
    reason: str


EXACT64 = Tolerance(1e-12, "float64 with a few thousand additions")
EXACT32 = Tolerance(2e-6, "float32 inputs or results, rounded once or a few times")
STITCH32 = Tolerance(1e-5, "float32 sums over tens of overlapping patches, then a division by small coverage")
FINITE_DIFFERENCE64 = Tolerance(1e-5, "central differences in float64: truncation h², cancellation 1e-16/h")

PATCHES = Tolerance(
    2e-5,
    "float32 against float64 through two U-Nets and two divisions by the predicted amplitude: 1e-6 with direct "
    "convolutions, ten times that with the fast algorithms of a GPU",
)
COUNTS = Tolerance(2e-5, "twice the relative error of a wave, averaged by the FFT")
LOSS = Tolerance(1e-4, "a mean over pixels: rounding averages out, but for the logarithm of dark predictions")
GRADIENT = Tolerance(
    5e-3,
    "float32 back-propagation (1e-5) against central differences in float64: ReLU and maximum have kinks that even "
    "a small step crosses",
)
SAME_ENGINE = Tolerance(1e-5, "float32 sums in another order: batch sizes and accumulation change only that")
ENGINES_IN_TRAINING = Tolerance(
    1e-4, "a dozen steps: 1e-6 after each other's rounding, and it grows; ten times that for a GPU's convolutions"
)
