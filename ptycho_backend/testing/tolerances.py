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
    2e-3,
    "float32 back-propagation (1e-6) against central differences in float64: where a ReLU or a maximum is within "
    "float32 rounding of its kink, the two take different sides (2e-4)",
)
SAME_ENGINE = Tolerance(1e-5, "float32 sums in another order: batch sizes and accumulation change only that")
ENGINES_IN_TRAINING = Tolerance(
    1e-4, "a dozen steps: 1e-6 after each other's rounding, and it grows; ten times that for a GPU's convolutions"
)
SEVERAL_PROCESSES = Tolerance(1e-4, "a handful of steps: sums over processes round otherwise than one over the batch")

OPERATOR32 = Tolerance(2e-6, "one function in float32: an FFT, a short sum and a division leave 1e-7 to 4e-7")
SLOPE32 = Tolerance(
    5e-6, "the gradient of one function in float32, 1e-7 to 1e-6; the differences it is compared with are good to 1e-8"
)
STEP_SLOPE32 = Tolerance(
    2e-5,
    "the gradient of a data-consistency step divides by the amplitude of every detector pixel, down to a tenth of "
    "the mean: 3e-6",
)
POISSON_EXTREMES32 = Tolerance(
    5e-4,
    "u − ln(1 + u) of a prediction that is right to u = 1e-3 is the difference of two numbers a thousand times as "
    "large: float32 keeps four digits",
)
ADAM32 = Tolerance(3e-5, "ten steps of 0.01 on float32 numbers near 1: each rounds by 6e-8, against 0.1 on the way")
REPEATED32 = Tolerance(1e-12, "the same computation on one device: not one bit differs")
LAW32 = Tolerance(2e-6, "laws of one or two functions in float32: up to 3e-7")
ADJOINT_FIELD32 = Tolerance(5e-7, "an inner product over a few hundred pixels averages float32 rounding to 5e-8")
ADJOINT_PLACE32 = Tolerance(5e-8, "as above, with ten times as many terms and without an FFT: 3e-9")
MERGED32 = Tolerance(1.5e-5, "the merge's floor of 1e-6 under weights of 0.3 and more takes 3e-6 off a covered pixel")
FIXED_POINT32 = Tolerance(5e-7, "a step adds a rounding error times a small correction to the true object: 4e-8")
ENERGY32 = Tolerance(2e-6, "float32 probe, FFT and counts, summed in float64: 1e-7 to 4e-7")

MODEL_LOSS = Tolerance(1e-5, "a mean over pixels of a whole model in float32: 2e-7, a hundred times that on a GPU")
STITCHED = Tolerance(5e-6, "float32 sums over tens of overlapping patches, seen where coverage is above 1 %: 4e-7")
FIRST_LOSS = Tolerance(1e-5, "equal weights and equal batches: float32 rounding of one forward pass, 4e-7 on a CPU")
ONE_STEP = Tolerance(1e-4, "float32 weights near 1 round by 6e-8, against a step of up to 0.01")
SAME_WEIGHTS = Tolerance(1e-12, "the same float32 numbers: nothing is computed")
SAME_EPOCH = Tolerance(1e-12, "whole numbers of epochs: one too many is an error of 1")
FIFTY_STEPS = Tolerance(1e-3, "fifty steps of Adam: rounding, 1e-7 a step, grows where a gradient is near 0")
MODEL_FILE = Tolerance(1e-4, "one forward pass on either engine, weights equal to the last bit")
