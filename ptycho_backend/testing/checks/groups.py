"""Laws of translation and merging, which an oracle could break too: where pixels land, and what groups become."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.physics.translation import canvas_size, scatter_patches
from ptycho_backend.testing.assertions import adjoint_error, relative_error
from ptycho_backend.testing.checks.check import Check, CheckResult, EngineUnderTest
from ptycho_backend.testing.checks.laws import Numbers, array, complex64
from ptycho_backend.testing.checks.oracle import worst
from ptycho_backend.testing.inputs import fractional_offsets
from ptycho_backend.testing.tolerances import ADJOINT_PLACE32, LAW32, MERGED32


def adjoint_translation(subject: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that cutting patches out is the adjoint of placing them, at any offsets."""
    N, offsets = int(rng.integers(5, 17)), _offsets(rng, 2, 4)
    S = canvas_size(N, offsets)
    x, y = complex64(rng, 2, 4, N, N), complex64(rng, 2, 4, S, S)

    def there(patch: Numbers) -> Numbers:
        return array(subject, "scatter_patches", patch, offsets, S)

    def back(canvas: Numbers) -> Numbers:
        return array(subject, "extract_patches", canvas, offsets, N)

    return CheckResult(adjoint_error(there, back, x, y), ADJOINT_PLACE32)


def bright_pixel(subject: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """
    Check where a single bright pixel lands in a group of four: placed, cut out, merged.

    Window pixel (i, j) of a member at whole offset (dy, dx) is pixel (i + p + dy, j + p + dx) of the canvas, p the
    canvas's margin.
    """
    N, offsets = int(rng.integers(5, 13)), rng.integers(-3, 4, (1, 4, 2)).astype(np.float32)
    S = canvas_size(N, offsets)
    pixel, margin = rng.integers(0, N, 2), (S - N) // 2
    patches = np.zeros((1, 4, N, N), np.complex64)
    canvases = np.zeros((1, 4, S, S), np.complex64)
    expected, light, weight = np.zeros_like(canvases), np.zeros((S, S)), np.zeros((S, S))
    patches[..., pixel[0], pixel[1]] = 1.0
    for member, (dy, dx) in enumerate(offsets[0].astype(int)):
        y, x = pixel + margin + (dy, dx)
        expected[0, member, y, x] = 1.0
        light[y, x] += 1.0
        weight[margin + dy : margin + dy + N, margin + dx : margin + dx + N] += 1.0
        canvases[0, member, y, x] = 1.0
    merged = np.divide(light, weight, out=np.zeros((S, S)), where=weight > 0)
    ones = np.ones((N, N), np.float32)
    return CheckResult(
        worst(
            relative_error(array(subject, "scatter_patches", patches, offsets, S), expected),
            relative_error(array(subject, "extract_patches", canvases, offsets, N), patches),
            relative_error(array(subject, "merge", patches, offsets, ones, S)[0], merged.astype(complex)),
        ),
        MERGED32,
    )


def half_a_pixel(subject: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that between pixels a bright pixel is shared linearly, y and x by themselves."""
    N, fraction = 7, rng.uniform(0.1, 0.9, 2).astype(np.float32)
    patch, expected = np.zeros((N, N), np.complex64), np.zeros((9, 9), complex)
    patch[3, 2] = 1.0
    fy, fx = fraction.astype(float)
    expected[4:6, 3:5] = np.outer([1 - fy, fy], [1 - fx, fx])
    return CheckResult(relative_error(array(subject, "scatter_patches", patch, fraction, 9), expected), LAW32)


def merged_object(subject: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that patches of one object merge to it where they cover it: any object at whole offsets."""
    N, offsets = 9, rng.integers(-4, 5, (2, 4, 2)).astype(np.float32)
    S = canvas_size(N, offsets)
    obj, weight = complex64(rng, 2, 1, S, S), rng.uniform(0.3, 1.0, (N, N)).astype(np.float32)
    patches = array(subject, "extract_patches", np.broadcast_to(obj, (2, 4, S, S)), offsets, N)
    merged = array(subject, "merge", patches, offsets, weight, S)
    covered = scatter_patches(np.ones((2, 4, N, N)), offsets, S).sum(axis=1) > 0.5
    again = array(subject, "consistent_patches", patches, offsets, weight, S)
    return CheckResult(
        worst(relative_error(merged * covered, obj[:, 0] * covered), relative_error(again, patches)), MERGED32
    )


def weighted_mean(subject: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that a merge, at any offsets, keeps a constant object, never amplifies, and is 0 where nobody predicts."""
    N, offsets = 9, _offsets(rng, 2, 4)
    S = canvas_size(N, offsets)
    weight = np.zeros((N, N), np.float32)
    weight[2:-2, 2:-2] = rng.uniform(0.3, 1.0, (N - 4, N - 4))
    constant = np.full((2, 4, N, N), np.exp(1j * rng.uniform(0, 2 * np.pi)), np.complex64)
    share = scatter_patches(np.broadcast_to(weight, (2, 4, N, N)), offsets, S).sum(axis=1)  # which pixels are looked at
    flat = array(subject, "merge", constant, offsets, weight, S)
    patches = complex64(rng, 2, 4, N, N)
    merged = np.abs(array(subject, "merge", patches, offsets, weight, S))
    return CheckResult(
        worst(
            np.abs(flat - constant[0, 0, 0, 0])[share > 0.3].max(),
            np.abs(flat[share == 0]).max(initial=0.0),
            float(np.maximum(0.0, merged.max() / np.abs(patches).max() - 1)),
        ),
        MERGED32,
    )


def order_and_company(subject: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that groups do not see each other, and that the order of a group's members does not matter."""
    N, offsets = 8, _offsets(rng, 3, 4)
    S, weight = canvas_size(N, offsets), rng.uniform(0.3, 1.0, (N, N)).astype(np.float32)
    patches = complex64(rng, 3, 4, N, N)
    together = array(subject, "consistent_patches", patches, offsets, weight, S)
    alone = [array(subject, "consistent_patches", patches[i : i + 1], offsets[i : i + 1], weight, S) for i in range(3)]
    order = rng.permutation(4)
    shuffled = array(subject, "consistent_patches", patches[:, order], offsets[:, order], weight, S)
    return CheckResult(
        worst(relative_error(np.concatenate(alone), together), relative_error(shuffled, together[:, order])), LAW32
    )


def _offsets(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return fractional_offsets(rng, *shape).astype(np.float32)


CHECKS = (
    Check("physics 1.3", "place and extract are adjoint", adjoint_translation),
    Check("physics 1.2", "a bright pixel lands where its offset says", bright_pixel),
    Check("physics 1.2", "between pixels", half_a_pixel),
    Check("physics 2.2", "patches of an object merge to it", merged_object),
    Check("physics 2.2", "the merge is a weighted mean", weighted_mean),
    Check("backend_contract 4.1", "groups are independent", order_and_company),
)
