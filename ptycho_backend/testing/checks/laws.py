"""Laws of the physics, which an oracle could break too: nothing here is compared with the reference."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.core.translation import canvas_size, place
from ptycho_backend.operators import OPERATORS
from ptycho_backend.testing.assertions import adjoint_error, relative_error
from ptycho_backend.testing.checks.check import Check, Finding, Subject
from ptycho_backend.testing.checks.oracle import worst
from ptycho_backend.testing.inputs import (
    complex_noise,
    detector_mask,
    fractional_offsets,
    operator_arguments,
    speckled_probe,
)
from ptycho_backend.testing.tolerances import ADJOINT_FIELD32, ADJOINT_PLACE32, FIXED_POINT32, LAW32, MERGED32

Numbers = NDArray[Any]

DARK = frozenset({"patches", "x", "expected", "counts", "labels"})


def parseval(subject: Subject, rng: np.random.Generator) -> Finding:
    """Check that propagation keeps the energy, and that the near field undoes the far field; odd sides too."""
    error = 0.0
    for _ in range(3):
        wave = _wave(rng)
        there = _array(subject, "far_field", wave)
        back = _array(subject, "near_field", there)
        error = worst(error, abs(_energy(there) / _energy(wave) - 1), relative_error(back, wave))
    return Finding(error, LAW32)


def flat_wave(subject: Subject, rng: np.random.Generator) -> Finding:
    """Check that a flat wave lands on pixel (y // 2, x // 2), all of it."""
    error = 0.0
    for _ in range(3):
        height, width = (int(side) for side in rng.integers(1, 18, 2))
        expected = np.zeros((height, width), complex)
        expected[height // 2, width // 2] = np.sqrt(height * width)
        detector = _array(subject, "far_field", np.ones((height, width), np.complex64))
        error = worst(error, relative_error(detector, expected))
    return Finding(error, LAW32)


def adjoint_fields(subject: Subject, rng: np.random.Generator) -> Finding:
    """Check that the near field is the adjoint of the far field."""
    x = _wave(rng)
    y = complex_noise(rng, *x.shape).astype(np.complex64)
    far, near = (functools.partial(_array, subject, name) for name in ("far_field", "near_field"))
    return Finding(adjoint_error(far, near, x, y), ADJOINT_FIELD32)


def adjoint_translation(subject: Subject, rng: np.random.Generator) -> Finding:
    """Check that cutting patches out is the adjoint of placing them, at any offsets."""
    N, offsets = int(rng.integers(5, 17)), _offsets(rng, 2, 4)
    S = canvas_size(N, offsets)
    x, y = _complex(rng, 2, 4, N, N), _complex(rng, 2, 4, S, S)

    def there(patch: Numbers) -> Numbers:
        return _array(subject, "place", patch, offsets, S)

    def back(canvas: Numbers) -> Numbers:
        return _array(subject, "extract", canvas, offsets, N)

    return Finding(adjoint_error(there, back, x, y), ADJOINT_PLACE32)


def bright_pixel(subject: Subject, rng: np.random.Generator) -> Finding:
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
    return Finding(
        worst(
            relative_error(_array(subject, "place", patches, offsets, S), expected),
            relative_error(_array(subject, "extract", canvases, offsets, N), patches),
            relative_error(_array(subject, "merge", patches, offsets, ones, S)[0], merged.astype(complex)),
        ),
        MERGED32,
    )


def half_a_pixel(subject: Subject, rng: np.random.Generator) -> Finding:
    """Check that between pixels a bright pixel is shared linearly, y and x by themselves."""
    N, fraction = 7, rng.uniform(0.1, 0.9, 2).astype(np.float32)
    patch, expected = np.zeros((N, N), np.complex64), np.zeros((9, 9), complex)
    patch[3, 2] = 1.0
    fy, fx = fraction.astype(float)
    expected[4:6, 3:5] = np.outer([1 - fy, fy], [1 - fx, fx])
    return Finding(relative_error(_array(subject, "place", patch, fraction, 9), expected), LAW32)


def merged_object(subject: Subject, rng: np.random.Generator) -> Finding:
    """Check that patches of one object merge to it where they cover it: any object at whole offsets."""
    N, offsets = 9, rng.integers(-4, 5, (2, 4, 2)).astype(np.float32)
    S = canvas_size(N, offsets)
    obj, weight = _complex(rng, 2, 1, S, S), rng.uniform(0.3, 1.0, (N, N)).astype(np.float32)
    patches = _array(subject, "extract", np.broadcast_to(obj, (2, 4, S, S)), offsets, N)
    merged = _array(subject, "merge", patches, offsets, weight, S)
    covered = place(np.ones((2, 4, N, N)), offsets, S).sum(axis=1) > 0.5
    again = _array(subject, "consistent_patches", patches, offsets, weight, S)
    return Finding(
        worst(relative_error(merged * covered, obj[:, 0] * covered), relative_error(again, patches)), MERGED32
    )


def weighted_mean(subject: Subject, rng: np.random.Generator) -> Finding:
    """Check that a merge, at any offsets, keeps a constant object, never amplifies, and is 0 where nobody predicts."""
    N, offsets = 9, _offsets(rng, 2, 4)
    S = canvas_size(N, offsets)
    weight = np.zeros((N, N), np.float32)
    weight[2:-2, 2:-2] = rng.uniform(0.3, 1.0, (N - 4, N - 4))
    constant = np.full((2, 4, N, N), np.exp(1j * rng.uniform(0, 2 * np.pi)), np.complex64)
    share = place(np.broadcast_to(weight, (2, 4, N, N)), offsets, S).sum(axis=1)  # which pixels are looked at
    flat = _array(subject, "merge", constant, offsets, weight, S)
    patches = _complex(rng, 2, 4, N, N)
    merged = np.abs(_array(subject, "merge", patches, offsets, weight, S))
    return Finding(
        worst(
            np.abs(flat - constant[0, 0, 0, 0])[share > 0.3].max(),
            np.abs(flat[share == 0]).max(initial=0.0),
            float(np.maximum(0.0, merged.max() / np.abs(patches).max() - 1)),
        ),
        MERGED32,
    )


def constant_phase(subject: Subject, rng: np.random.Generator) -> Finding:
    """Check that a constant phase of object or probe is not seen, and passes through a data-consistency step."""
    N = int(rng.integers(7, 17))
    patches, probe = _complex(rng, 1, 2, N, N), speckled_probe(rng, N, 2).astype(np.complex64)
    x, mask = rng.uniform(0, 3, (1, 2, N, N)).astype(np.float32), detector_mask(rng, N).astype(np.float32)
    turn, other = np.exp(1j * rng.uniform(0, 2 * np.pi, 2)).astype(np.complex64)
    counts = _array(subject, "intensity", patches, probe, 0.7)
    step = _array(subject, "data_consistency", patches, x, probe, mask)
    return Finding(
        worst(
            relative_error(_array(subject, "intensity", turn * patches, other * probe, 0.7), counts),
            relative_error(_array(subject, "data_consistency", turn * patches, x, other * probe, mask), turn * step),
        ),
        LAW32,
    )


def true_object(subject: Subject, rng: np.random.Generator) -> Finding:
    """Check that noise-free data leave the true object as it is, whatever bad pixels hold, and cost nothing."""
    N = int(rng.integers(7, 17))
    patches, probe = _complex(rng, 1, 2, N, N), speckled_probe(rng, N, 2).astype(np.complex64)
    mask = detector_mask(rng, N).astype(np.float32)
    counts = _array(subject, "intensity", patches, probe, 0.0)
    x = np.where(mask > 0, np.sqrt(counts), 99.0).astype(np.float32)
    after = _array(subject, "data_consistency", patches, x, probe, mask)
    bad = np.where(mask > 0, counts, 1e3).astype(np.float32)
    loss = float(subject.operators.evaluate("poisson", counts, bad, mask))
    return Finding(worst(relative_error(after, patches), abs(loss)), FIXED_POINT32)


def darkness(subject: Subject, rng: np.random.Generator) -> Finding:
    """Check that every answer and every gradient stays finite where nothing is lit, nothing counted, nothing there."""
    drawn = operator_arguments(rng)
    nothing = {name: np.zeros_like(drawn[name]) for name in DARK}
    total = 0.0
    for name, operator in OPERATORS.items():
        arguments = [{**drawn, **nothing}[what] for what in operator.arguments]
        answer = subject.operators.evaluate(name, *arguments)
        cotangent = None if operator.is_number else np.ones_like(answer)
        total += float(np.abs(answer).sum())
        for what in DARK & set(operator.differentiable):
            by = operator.arguments.index(what)
            total += float(np.abs(subject.operators.gradient(name, *arguments, by=by, cotangent=cotangent)).sum())
    return Finding(0.0 if np.isfinite(total) else np.nan, LAW32)


def energy_of_counts(subject: Subject, rng: np.random.Generator) -> Finding:
    """Check that the detector counts what leaves the sample: the modes' energies, added."""
    N = int(rng.integers(7, 17))
    patches, probe = _complex(rng, 2, 4, N, N), speckled_probe(rng, N, 3).astype(np.complex64)
    counts = _array(subject, "intensity", patches, probe, 0.0)
    behind = (np.abs(patches[:, :, None].astype(complex) * probe) ** 2).sum(axis=(2, 3, 4))
    return Finding(relative_error(counts.sum(axis=(2, 3)), behind), LAW32)


def order_and_company(subject: Subject, rng: np.random.Generator) -> Finding:
    """Check that groups do not see each other, and that the order of a group's members does not matter."""
    N, offsets = 8, _offsets(rng, 3, 4)
    S, weight = canvas_size(N, offsets), rng.uniform(0.3, 1.0, (N, N)).astype(np.float32)
    patches = _complex(rng, 3, 4, N, N)
    together = _array(subject, "consistent_patches", patches, offsets, weight, S)
    alone = [_array(subject, "consistent_patches", patches[i : i + 1], offsets[i : i + 1], weight, S) for i in range(3)]
    order = rng.permutation(4)
    shuffled = _array(subject, "consistent_patches", patches[:, order], offsets[:, order], weight, S)
    return Finding(
        worst(relative_error(np.concatenate(alone), together), relative_error(shuffled, together[:, order])), LAW32
    )


def _array(subject: Subject, name: str, *arguments: Any) -> Numbers:
    return np.asarray(subject.operators.evaluate(name, *arguments))


def _complex(rng: np.random.Generator, *shape: int) -> NDArray[np.complex64]:
    return complex_noise(rng, *shape).astype(np.complex64)


def _wave(rng: np.random.Generator) -> NDArray[np.complex64]:
    return _complex(rng, 2, int(rng.integers(1, 18)), int(rng.integers(1, 18)))


def _offsets(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return fractional_offsets(rng, *shape).astype(np.float32)


def _energy(wave: Numbers) -> float:
    return float((np.abs(wave.astype(complex)) ** 2).sum())


CHECKS = (
    Check("physics 3.1", "Parseval", parseval),
    Check("physics 3.1", "centre of the detector", flat_wave),
    Check("physics 3.1", "far and near field are adjoint", adjoint_fields),
    Check("physics 1.3", "place and extract are adjoint", adjoint_translation),
    Check("physics 1.2", "a bright pixel lands where its offset says", bright_pixel),
    Check("physics 1.2", "between pixels", half_a_pixel),
    Check("physics 2.2", "patches of an object merge to it", merged_object),
    Check("physics 2.2", "the merge is a weighted mean", weighted_mean),
    Check("physics 4.2", "a constant phase is not seen", constant_phase),
    Check("physics 4.2", "energy behind the sample", energy_of_counts),
    Check("physics 6.2", "the true object stays", true_object),
    Check("physics 5.6", "finite in the dark", darkness),
    Check("backend_contract 4.1", "groups are independent", order_and_company),
)
