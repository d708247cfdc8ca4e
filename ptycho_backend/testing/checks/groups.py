"""Laws of translation and merging that an error in the oracle could break too."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.physics.translation import canvas_size, scatter_patches
from ptycho_backend.testing.assertions import adjoint_error, relative_error
from ptycho_backend.testing.checks.check import Check, CheckResult, EngineUnderTest, largest_error
from ptycho_backend.testing.checks.laws import complex64, evaluate
from ptycho_backend.testing.inputs import fractional_offsets
from ptycho_backend.testing.tolerances import ADJOINT_PATCHES32, LAW32, MERGED32


def adjoint_translation(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that extracting patches is the adjoint of scattering them, at fractional offsets."""
    N, offsets = int(rng.integers(5, 17)), _offsets(rng, 2, 4)
    S = canvas_size(N, offsets)
    x, y = complex64(rng, 2, 4, N, N), complex64(rng, 2, 4, S, S)
    error = adjoint_error(
        lambda patches: evaluate(engine, "scatter_patches", patches, offsets, S),
        lambda canvases: evaluate(engine, "extract_patches", canvases, offsets, N),
        x,
        y,
    )
    return CheckResult(error, ADJOINT_PATCHES32)


def bright_pixel(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """
    Check the position of one bright pixel in a group of four: scattered, extracted, merged.

    Window pixel (i, j) of a member at whole offset (dy, dx) is pixel (i + p + dy, j + p + dx) of the canvas, with the
    canvas's margin p.
    """
    N, offsets = int(rng.integers(5, 13)), rng.integers(-3, 4, (1, 4, 2)).astype(np.float32)
    S = canvas_size(N, offsets)
    pixel, margin = rng.integers(0, N, 2), (S - N) // 2
    patches = np.zeros((1, 4, N, N), np.complex64)
    canvases = np.zeros((1, 4, S, S), np.complex64)
    total, weight = np.zeros((S, S)), np.zeros((S, S))
    patches[..., pixel[0], pixel[1]] = 1.0
    for member, (dy, dx) in enumerate(offsets[0].astype(int)):
        y, x = pixel + margin + (dy, dx)
        canvases[0, member, y, x] = 1.0
        total[y, x] += 1.0
        weight[margin + dy : margin + dy + N, margin + dx : margin + dx + N] += 1.0
    merged = np.divide(total, weight, out=np.zeros((S, S)), where=weight > 0)
    ones = np.ones((N, N), np.float32)
    return CheckResult(
        largest_error(
            relative_error(evaluate(engine, "scatter_patches", patches, offsets, S), canvases),
            relative_error(evaluate(engine, "extract_patches", canvases, offsets, N), patches),
            relative_error(evaluate(engine, "merge", patches, offsets, ones, S)[0], merged.astype(complex)),
        ),
        MERGED32,
    )


def fractional_pixel(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that a fractional offset shares a bright pixel linearly among neighbours, in y and x separately."""
    N, fraction = 7, rng.uniform(0.1, 0.9, 2).astype(np.float32)
    patch, expected = np.zeros((N, N), np.complex64), np.zeros((9, 9), complex)
    patch[3, 2] = 1.0
    fy, fx = fraction.astype(float)
    expected[4:6, 3:5] = np.outer([1 - fy, fy], [1 - fx, fx])
    return CheckResult(relative_error(evaluate(engine, "scatter_patches", patch, fraction, 9), expected), LAW32)


def merged_object(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that patches of one object merge to that object where they cover it, at whole offsets."""
    N, offsets = 9, rng.integers(-4, 5, (2, 4, 2)).astype(np.float32)
    S = canvas_size(N, offsets)
    obj, weight = complex64(rng, 2, 1, S, S), rng.uniform(0.3, 1.0, (N, N)).astype(np.float32)
    patches = evaluate(engine, "extract_patches", np.broadcast_to(obj, (2, 4, S, S)), offsets, N)
    merged = evaluate(engine, "merge", patches, offsets, weight, S)
    covered = scatter_patches(np.ones((2, 4, N, N)), offsets, S).sum(axis=1) > 0.5
    consistent = evaluate(engine, "consistent_patches", patches, offsets, weight, S)
    errors = relative_error(merged * covered, obj[:, 0] * covered), relative_error(consistent, patches)
    return CheckResult(largest_error(*errors), MERGED32)


def weighted_mean(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that a merge keeps a constant object, never exceeds the largest patch, and is 0 without a patch."""
    N, offsets = 9, _offsets(rng, 2, 4)
    S = canvas_size(N, offsets)
    weight = np.zeros((N, N), np.float32)
    weight[2:-2, 2:-2] = rng.uniform(0.3, 1.0, (N - 4, N - 4))
    constant = np.full((2, 4, N, N), np.exp(1j * rng.uniform(0, 2 * np.pi)), np.complex64)
    coverage = scatter_patches(np.broadcast_to(weight, (2, 4, N, N)), offsets, S).sum(axis=1)
    flat = evaluate(engine, "merge", constant, offsets, weight, S)
    patches = complex64(rng, 2, 4, N, N)
    merged = np.abs(evaluate(engine, "merge", patches, offsets, weight, S))
    return CheckResult(
        largest_error(
            np.abs(flat - constant[0, 0, 0, 0])[coverage > 0.3].max(),
            np.abs(flat[coverage == 0]).max(initial=0.0),
            float(np.maximum(0.0, merged.max() / np.abs(patches).max() - 1)),
        ),
        MERGED32,
    )


def group_independence(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that a group's patches depend neither on other groups nor on the order of its members."""
    N, offsets = 8, _offsets(rng, 3, 4)
    S, weight = canvas_size(N, offsets), rng.uniform(0.3, 1.0, (N, N)).astype(np.float32)
    patches = complex64(rng, 3, 4, N, N)
    consistent = functools.partial(evaluate, engine, "consistent_patches")
    together = consistent(patches, offsets, weight, S)
    alone = [consistent(patches[i : i + 1], offsets[i : i + 1], weight, S) for i in range(3)]
    order = rng.permutation(4)
    permuted = consistent(patches[:, order], offsets[:, order], weight, S)
    errors = relative_error(np.concatenate(alone), together), relative_error(permuted, together[:, order])
    return CheckResult(largest_error(*errors), LAW32)


def _offsets(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return fractional_offsets(rng, *shape).astype(np.float32)


CHECKS = (
    Check("physics 1.3", "scatter and extract are adjoint", adjoint_translation),
    Check("physics 1.2", "position of a bright pixel", bright_pixel),
    Check("physics 1.2", "bilinear interpolation", fractional_pixel),
    Check("physics 2.2", "merge of an object's patches", merged_object),
    Check("physics 2.2", "merge is a weighted mean", weighted_mean),
    Check("backend_contract 4.1", "independence of groups", group_independence),
)
