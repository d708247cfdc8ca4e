"""Laws of propagation, counts and losses, which an oracle could break too."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.engines.operators import OPERATORS
from ptycho_backend.testing.assertions import adjoint_error, relative_error
from ptycho_backend.testing.checks.check import Check, CheckResult, EngineUnderTest
from ptycho_backend.testing.checks.oracle import worst
from ptycho_backend.testing.inputs import (
    complex_noise,
    detector_mask,
    operator_arguments,
    speckled_probe,
)
from ptycho_backend.testing.tolerances import ADJOINT_FIELD32, FIXED_POINT32, LAW32

Numbers = NDArray[Any]

DARK = frozenset({"patches", "x", "expected", "counts", "labels"})


def parseval(subject: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that propagation keeps the energy, and that the near field undoes the far field; odd sides too."""
    error = 0.0
    for _ in range(3):
        wave = _wave(rng)
        there = array(subject, "far_field", wave)
        back = array(subject, "near_field", there)
        error = worst(error, abs(_energy(there) / _energy(wave) - 1), relative_error(back, wave))
    return CheckResult(error, LAW32)


def flat_wave(subject: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that a flat wave lands on pixel (y // 2, x // 2), all of it."""
    error = 0.0
    for _ in range(3):
        height, width = (int(side) for side in rng.integers(1, 18, 2))
        expected = np.zeros((height, width), complex)
        expected[height // 2, width // 2] = np.sqrt(height * width)
        detector = array(subject, "far_field", np.ones((height, width), np.complex64))
        error = worst(error, relative_error(detector, expected))
    return CheckResult(error, LAW32)


def adjoint_fields(subject: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that the near field is the adjoint of the far field."""
    x = _wave(rng)
    y = complex_noise(rng, *x.shape).astype(np.complex64)
    far, near = (functools.partial(array, subject, name) for name in ("far_field", "near_field"))
    return CheckResult(adjoint_error(far, near, x, y), ADJOINT_FIELD32)


def constant_phase(subject: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that a constant phase of object or probe is not seen, and passes through a data-consistency step."""
    N = int(rng.integers(7, 17))
    patches, probe = complex64(rng, 1, 2, N, N), speckled_probe(rng, N, 2).astype(np.complex64)
    x, mask = rng.uniform(0, 3, (1, 2, N, N)).astype(np.float32), detector_mask(rng, N).astype(np.float32)
    turn, other = np.exp(1j * rng.uniform(0, 2 * np.pi, 2)).astype(np.complex64)
    counts = array(subject, "intensity", patches, probe, 0.7)
    step = array(subject, "constrain_amplitude", patches, x, probe, mask)
    return CheckResult(
        worst(
            relative_error(array(subject, "intensity", turn * patches, other * probe, 0.7), counts),
            relative_error(array(subject, "constrain_amplitude", turn * patches, x, other * probe, mask), turn * step),
        ),
        LAW32,
    )


def true_object(subject: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that noise-free data leave the true object as it is, whatever bad pixels hold, and cost nothing."""
    N = int(rng.integers(7, 17))
    patches, probe = complex64(rng, 1, 2, N, N), speckled_probe(rng, N, 2).astype(np.complex64)
    mask = detector_mask(rng, N).astype(np.float32)
    counts = array(subject, "intensity", patches, probe, 0.0)
    x = np.where(mask > 0, np.sqrt(counts), 99.0).astype(np.float32)
    after = array(subject, "constrain_amplitude", patches, x, probe, mask)
    bad = np.where(mask > 0, counts, 1e3).astype(np.float32)
    loss = float(subject.operators.evaluate("poisson", counts, bad, mask))
    return CheckResult(worst(relative_error(after, patches), abs(loss)), FIXED_POINT32)


def darkness(subject: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
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
    return CheckResult(0.0 if np.isfinite(total) else np.nan, LAW32)


def energy_of_counts(subject: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that the detector counts what leaves the sample: the modes' energies, added."""
    N = int(rng.integers(7, 17))
    patches, probe = complex64(rng, 2, 4, N, N), speckled_probe(rng, N, 3).astype(np.complex64)
    counts = array(subject, "intensity", patches, probe, 0.0)
    behind = (np.abs(patches[:, :, None].astype(complex) * probe) ** 2).sum(axis=(2, 3, 4))
    return CheckResult(relative_error(counts.sum(axis=(2, 3)), behind), LAW32)


def array(subject: EngineUnderTest, name: str, *arguments: Any) -> Numbers:
    """Return an operator's answer as an array."""
    return np.asarray(subject.operators.evaluate(name, *arguments))


def complex64(rng: np.random.Generator, *shape: int) -> NDArray[np.complex64]:
    """Draw complex normal numbers, single precision."""
    return complex_noise(rng, *shape).astype(np.complex64)


def _wave(rng: np.random.Generator) -> NDArray[np.complex64]:
    return complex64(rng, 2, int(rng.integers(1, 18)), int(rng.integers(1, 18)))


def _energy(wave: Numbers) -> float:
    return float((np.abs(wave.astype(complex)) ** 2).sum())


CHECKS = (
    Check("physics 3.1", "Parseval", parseval),
    Check("physics 3.1", "centre of the detector", flat_wave),
    Check("physics 3.1", "far and near field are adjoint", adjoint_fields),
    Check("physics 4.2", "a constant phase is not seen", constant_phase),
    Check("physics 4.2", "energy behind the sample", energy_of_counts),
    Check("physics 6.2", "the true object stays", true_object),
    Check("physics 5.6", "finite in the dark", darkness),
)
