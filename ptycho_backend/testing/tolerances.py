"""
Tolerances of tests and checks, each with its reason.

A tolerance is relative to the largest expected magnitude. Fields hold bright and dark pixels, and the rounding of an
FFT or a convolution is a share of the bright ones.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """
    Largest allowed difference of two results.

    Parameters
    ----------
    relative : float
        Largest difference over the largest expected magnitude.
    reason : str
        Source of the difference.
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
    "convolutions, 1e-5 with the fast algorithms of a GPU",
)
COUNTS = Tolerance(2e-5, "twice the relative error of a wave, averaged by the FFT")
LOSS = Tolerance(1e-4, "a mean over pixels averages rounding, except for the logarithm of dark predictions")
GRADIENT = Tolerance(
    2e-3,
    "float32 back-propagation (1e-6) against central differences in float64: at a kink of a ReLU or maximum, float32 "
    "rounding selects the other side (2e-4)",
)
SAME_ENGINE = Tolerance(1e-5, "float32 sums in another order: batch size and accumulation change only the order")
ENGINES_IN_TRAINING = Tolerance(
    1e-4, "a dozen steps: 1e-6 from the first one, and rounding grows; 1e-5 from convolutions of a GPU"
)
SEVERAL_PROCESSES = Tolerance(
    1e-4, "a handful of steps: a sum over processes rounds differently from a sum over the batch"
)

OPERATOR32 = Tolerance(2e-6, "one function in float32: an FFT, a short sum and a division give 1e-7 to 4e-7")
SLOPE32 = Tolerance(5e-6, "the gradient of one function in float32 (1e-7 to 1e-6) against differences (1e-8)")
STEP_SLOPE32 = Tolerance(
    2e-5,
    "the gradient of an amplitude constraint divides by the amplitude of every detector pixel, down to a tenth of "
    "the mean: 3e-6",
)
POISSON_EXTREMES32 = Tolerance(
    5e-4,
    "u − ln(1 + u) at u = 1e-3 is the difference of two numbers a thousand times as large: float32 keeps four digits",
)
ADAM32 = Tolerance(3e-5, "ten steps of 0.01 on float32 numbers near 1: each rounds by 6e-8, the distance is 0.1")
REPEATED32 = Tolerance(1e-12, "the same computation on one device: equal to the last bit")
LAW32 = Tolerance(2e-6, "laws of one or two functions in float32: up to 3e-7")
ADJOINT_FIELD32 = Tolerance(5e-7, "an inner product over a few hundred pixels averages float32 rounding to 5e-8")
ADJOINT_PATCHES32 = Tolerance(5e-8, "an inner product over a few thousand pixels, without an FFT: 3e-9")
MERGED32 = Tolerance(1.5e-5, "the merge's floor of 1e-6 under weights above 0.3 lowers a covered pixel by 3e-6")
FIXED_POINT32 = Tolerance(5e-7, "a step adds a rounding error times a small correction to the true object: 4e-8")
ENERGY32 = Tolerance(2e-6, "float32 probe, FFT and counts, summed in float64: 1e-7 to 4e-7")

MODEL_LOSS = Tolerance(1e-5, "a mean over pixels of a whole model in float32: 2e-7, a hundred times that on a GPU")
STITCHED = Tolerance(5e-6, "float32 sums over tens of overlapping patches, compared where coverage is above 1 %: 4e-7")
FIRST_LOSS = Tolerance(1e-5, "equal weights and equal batches: float32 rounding of one forward pass, 4e-7 on a CPU")
ONE_STEP = Tolerance(1e-4, "float32 weights near 1 round by 6e-8, a step is up to 0.01")
SAME_WEIGHTS = Tolerance(1e-12, "the same float32 numbers, without any computation")
SAME_EPOCH = Tolerance(1e-12, "whole numbers of epochs: one epoch more is an error of 1")
FIFTY_STEPS = Tolerance(1e-3, "fifty steps of Adam: rounding, 1e-7 a step, grows where a gradient is near 0")
MODEL_FILE = Tolerance(1e-4, "one forward pass on either engine, weights equal to the last bit")

KERNEL32 = Tolerance(1e-5, "float32 FFTs and sums over tens of overlapping patterns: 2e-7 to 1e-6")
COARSE32 = Tolerance(
    1e-4, "slopes are differences of large sums, and a least-squares solve multiplies their rounding: 1e-6"
)
RECONSTRUCTED = Tolerance(1e-3, "nine iterations from equal data; rounding grows where the illumination is weak: 5e-6")
