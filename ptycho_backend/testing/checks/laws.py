"""Laws of propagation, counts and losses that an error in the oracle could break too."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.engines.operators import OPERATORS
from ptycho_backend.testing.assertions import adjoint_error, relative_error
from ptycho_backend.testing.checks.check import Check, CheckResult, EngineUnderTest, largest_error
from ptycho_backend.testing.inputs import complex_noise, detector_mask, operator_arguments, speckled_probe
from ptycho_backend.testing.tolerances import ADJOINT_FIELD32, FIXED_POINT32, LAW32

Array = NDArray[Any]

ZEROED = frozenset({"patches", "x", "expected", "counts", "labels"})


def parseval(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that the far field conserves energy and that the near field inverts it; odd sides too."""
    error = 0.0
    for _ in range(3):
        wave = _wave(rng)
        far = evaluate(engine, "far_field", wave)
        near = evaluate(engine, "near_field", far)
        error = largest_error(error, abs(_energy(far) / _energy(wave) - 1), relative_error(near, wave))
    return CheckResult(error, LAW32)


def flat_wave(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that the far field of a constant wave is one pixel, (y // 2, x // 2)."""
    error = 0.0
    for _ in range(3):
        height, width = (int(side) for side in rng.integers(1, 18, 2))
        expected = np.zeros((height, width), complex)
        expected[height // 2, width // 2] = np.sqrt(height * width)
        detector = evaluate(engine, "far_field", np.ones((height, width), np.complex64))
        error = largest_error(error, relative_error(detector, expected))
    return CheckResult(error, LAW32)


def adjoint_fields(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that the near field is the adjoint of the far field."""
    x = _wave(rng)
    y = complex_noise(rng, *x.shape).astype(np.complex64)
    far, near = (functools.partial(evaluate, engine, name) for name in ("far_field", "near_field"))
    return CheckResult(adjoint_error(far, near, x, y), ADJOINT_FIELD32)


def constant_phase(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that a constant phase of object or probe leaves counts unchanged and is kept by the constraint."""
    N = int(rng.integers(7, 17))
    patches, probe = complex64(rng, 1, 2, N, N), speckled_probe(rng, N, 2).astype(np.complex64)
    x, mask = rng.uniform(0, 3, (1, 2, N, N)).astype(np.float32), detector_mask(rng, N).astype(np.float32)
    phase, other = np.exp(1j * rng.uniform(0, 2 * np.pi, 2)).astype(np.complex64)
    intensity = functools.partial(evaluate, engine, "intensity")
    constrain = functools.partial(evaluate, engine, "constrain_amplitude")
    counts, constrained = intensity(patches, probe, 0.7), constrain(patches, x, probe, mask)
    return CheckResult(
        largest_error(
            relative_error(intensity(phase * patches, other * probe, 0.7), counts),
            relative_error(constrain(phase * patches, x, other * probe, mask), phase * constrained),
        ),
        LAW32,
    )


def true_object(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that noise-free data leave the true object unchanged with zero loss, whatever bad pixels hold."""
    N = int(rng.integers(7, 17))
    patches, probe = complex64(rng, 1, 2, N, N), speckled_probe(rng, N, 2).astype(np.complex64)
    mask = detector_mask(rng, N).astype(np.float32)
    counts = evaluate(engine, "intensity", patches, probe, 0.0)
    x = np.where(mask > 0, np.sqrt(counts), 99.0).astype(np.float32)
    constrained = evaluate(engine, "constrain_amplitude", patches, x, probe, mask)
    measured = np.where(mask > 0, counts, 1e3).astype(np.float32)
    loss = float(engine.operators.evaluate("poisson", counts, measured, mask))
    return CheckResult(largest_error(relative_error(constrained, patches), abs(loss)), FIXED_POINT32)


def finite_in_darkness(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that values and gradients are finite where patches, amplitudes, counts and labels are 0."""
    arguments = operator_arguments(rng)
    arguments |= {name: np.zeros_like(arguments[name]) for name in ZEROED}
    total = 0.0
    for name, operator in OPERATORS.items():
        values = [arguments[argument] for argument in operator.arguments]
        result = engine.operators.evaluate(name, *values)
        cotangent = None if operator.is_number else np.ones_like(result)
        total += float(np.abs(result).sum())
        for argument in ZEROED & set(operator.differentiable):
            by = operator.arguments.index(argument)
            total += float(np.abs(engine.operators.gradient(name, *values, by=by, cotangent=cotangent)).sum())
    return CheckResult(0.0 if np.isfinite(total) else np.nan, LAW32)


def energy_of_counts(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that the counts of a pattern sum to the energy of all exit waves."""
    N = int(rng.integers(7, 17))
    patches, probe = complex64(rng, 2, 4, N, N), speckled_probe(rng, N, 3).astype(np.complex64)
    counts = evaluate(engine, "intensity", patches, probe, 0.0)
    energy = (np.abs(patches[:, :, None].astype(complex) * probe) ** 2).sum(axis=(2, 3, 4))
    return CheckResult(relative_error(counts.sum(axis=(2, 3)), energy), LAW32)


def evaluate(engine: EngineUnderTest, name: str, *arguments: Any) -> Array:
    """Return an operator's value as an array."""
    return np.asarray(engine.operators.evaluate(name, *arguments))


def complex64(rng: np.random.Generator, *shape: int) -> NDArray[np.complex64]:
    """Draw complex normal numbers, single precision."""
    return complex_noise(rng, *shape).astype(np.complex64)


def _wave(rng: np.random.Generator) -> NDArray[np.complex64]:
    return complex64(rng, 2, int(rng.integers(1, 18)), int(rng.integers(1, 18)))


def _energy(wave: Array) -> float:
    return float((np.abs(wave.astype(complex)) ** 2).sum())


CHECKS = (
    Check("physics 3.1", "Parseval's theorem", parseval),
    Check("physics 3.1", "zero frequency at the centre", flat_wave),
    Check("physics 3.1", "far and near field are adjoint", adjoint_fields),
    Check("physics 4.2", "invariance to a constant phase", constant_phase),
    Check("physics 4.2", "energy of the exit waves", energy_of_counts),
    Check("physics 6.2", "true object is a fixed point", true_object),
    Check("physics 5.6", "finite values in darkness", finite_in_darkness),
)
