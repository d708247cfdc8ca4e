"""Every operator, gradient and optimiser step of an engine against the oracle."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.engines.operators import OPERATORS, ReferenceOperators, reference_slope
from ptycho_backend.engines.optimizer import adam
from ptycho_backend.testing.assertions import relative_error
from ptycho_backend.testing.checks.check import Check, CheckResult, EngineUnderTest
from ptycho_backend.testing.inputs import complex_noise, operator_arguments
from ptycho_backend.testing.tolerances import ADAM32, OPERATOR32, POISSON_EXTREMES32, REPEATED32, SLOPE32, STEP_SLOPE32

DIRECTIONS = 3  # along which a gradient is tried
STEPS = ("initial_estimate", "constrain_amplitude")
# Predicted and measured counts: well predicted, dark predictions, dark pixels, and what underflows.
EXTREMES = (
    (1e5, 1.001e5),
    (1e7, 1e7),
    (0.0, 1e5),
    (1e-3, 1e7),
    (1e7, 1.0),
    (5.0, 0.0),
    (5.0, 1e-30),
    (0.0, 0.0),
)


def compared(subject: EngineUnderTest, rng: np.random.Generator, name: str) -> CheckResult:
    """Compare an operator with its reference; blurred and not, where it blurs."""
    drawn = operator_arguments(rng)
    error = 0.0
    for sigma in (drawn["sigma_px"], 0.0) if "sigma_px" in OPERATORS[name].arguments else (0.0,):
        arguments = [{**drawn, "sigma_px": sigma}[what] for what in OPERATORS[name].arguments]
        expected = ReferenceOperators().evaluate(name, *arguments)
        error = worst(error, relative_error(subject.operators.evaluate(name, *arguments), expected))
    return CheckResult(error, OPERATOR32)


def differentiated(subject: EngineUnderTest, rng: np.random.Generator, name: str, what: str) -> CheckResult:
    """Compare an engine's gradient with differences of the reference along some directions."""
    operator, drawn = OPERATORS[name], operator_arguments(rng)
    arguments = [drawn[argument] for argument in operator.arguments]
    by = operator.arguments.index(what)
    cotangent = None if operator.is_number else _like(rng, ReferenceOperators().evaluate(name, *arguments))
    gradient = subject.operators.gradient(name, *arguments, by=by, cotangent=cotangent)
    error = 0.0
    for _ in range(DIRECTIONS):
        direction = _like(rng, arguments[by])
        slope = reference_slope(name, arguments, direction, by, cotangent)
        found = np.vdot(gradient, direction).real
        # What a random direction sees of a gradient is its length, on average.
        error = worst(error, abs(found - slope) / max(float(np.linalg.norm(gradient)), abs(slope), 1e-30))
    return CheckResult(error, STEP_SLOPE32 if name in STEPS else SLOPE32)


def extreme_counts(subject: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Compare the half-deviance pixel by pixel where float32 could lose its digits, with finite slopes."""
    error = 0.0
    for expected, counts in EXTREMES:
        jitter = rng.uniform(0.9, 1.1) if counts >= 1e-3 else 1.0
        pixels = [np.full((1, 1, 1, 1), value * jitter, np.float32) for value in (expected, counts)]
        arguments = (*pixels, np.ones((1, 1), np.float32))
        truth = float(ReferenceOperators().evaluate("poisson", *arguments))
        slope = subject.operators.gradient("poisson", *arguments)
        found = float(subject.operators.evaluate("poisson", *arguments))
        # A well predicted pixel costs next to nothing: a millionth of a photon more or less does not count.
        error = worst(error, abs(found - truth) / (truth + 1e-3), 0.0 * float(slope.sum()))
    return CheckResult(error, POISSON_EXTREMES32)


def optimised(
    subject: EngineUnderTest, rng: np.random.Generator, clip: float | None, largest: float = 10.0
) -> CheckResult:
    """Compare ten steps of Adam, with gradients of all sizes up to the largest."""
    value = rng.normal(size=(3, 4)).astype(np.float32)
    sizes = largest * 10.0 ** rng.uniform(-10, 0, (3, 4))
    gradients = [(sizes * rng.normal(size=(3, 4))).astype(np.float32) for _ in range(10)]
    expected = adam(value, gradients, 0.01, clip)
    found = subject.operators.optimiser_steps(value, gradients, 0.01, clip)
    return CheckResult(relative_error(found - value.astype(float), expected - value), ADAM32)


def undisturbed(subject: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that no question changes its arguments, and that asking twice gives the same twice."""
    drawn, error = operator_arguments(rng), 0.0
    for name, operator in OPERATORS.items():
        arguments = [drawn[what] for what in operator.arguments]
        before = copy.deepcopy(arguments)
        first = subject.operators.evaluate(name, *arguments)
        cotangent = None if operator.is_number else np.ones_like(first)
        slope = subject.operators.gradient(name, *arguments, cotangent=cotangent)
        again = subject.operators.gradient(name, *arguments, cotangent=cotangent)
        changed = [relative_error(*pair) for pair in zip(arguments, before, strict=True)]
        repeated = relative_error(subject.operators.evaluate(name, *arguments), first), relative_error(again, slope)
        error = worst(error, *changed, *repeated)
    return CheckResult(error, REPEATED32)


def worst(*errors: float) -> float:
    """Return the largest error; NaN is the largest of all."""
    return float(np.max(np.asarray(errors, dtype=float)))


def _like(rng: np.random.Generator, array: Any) -> NDArray[Any]:
    shape = np.shape(array)
    return complex_noise(rng, *shape) if np.iscomplexobj(array) else rng.normal(size=shape)


COMPARED = tuple(
    Check(operator.clause, name.replace("_", " "), functools.partial(compared, name=name))
    for name, operator in OPERATORS.items()
)
DIFFERENTIATED = tuple(
    Check(
        "backend_contract 8.3",
        f"{name} by {what}".replace("_", " "),
        functools.partial(differentiated, name=name, what=what),
    )
    for name, operator in OPERATORS.items()
    for what in operator.differentiable
)
OPTIMISED = (
    Check("config 5.1", "Adam", functools.partial(optimised, clip=None)),
    Check("config 5.4", "Adam, clipped", functools.partial(optimised, clip=1.0)),
    Check("config 5.4", "Adam, clipped where little is left", functools.partial(optimised, clip=1e-7, largest=1e-6)),
)
CHECKS = (
    *COMPARED,
    Check("physics 5.1", "poisson at the extremes", extreme_counts),
    *DIFFERENTIATED,
    *OPTIMISED,
    Check("backend_contract 8.5", "equal questions, equal answers", undisturbed),
)
