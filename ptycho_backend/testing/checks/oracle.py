"""Comparison of every operator, gradient and optimiser step of an engine with the oracle."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.engines.operators import OPERATORS, ReferenceOperators, reference_slope
from ptycho_backend.engines.optimizer import adam
from ptycho_backend.testing.assertions import relative_error
from ptycho_backend.testing.checks.check import Check, CheckResult, EngineUnderTest, largest_error
from ptycho_backend.testing.inputs import complex_noise, operator_arguments
from ptycho_backend.testing.tolerances import ADAM32, OPERATOR32, POISSON_EXTREMES32, REPEATED32, SLOPE32, STEP_SLOPE32

DIRECTIONS = 3  # random directions for each gradient
STEPS = ("initial_estimate", "constrain_amplitude")
# Expected and measured counts: good predictions, dark predictions, dark pixels, underflow.
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


def operator_value(engine: EngineUnderTest, rng: np.random.Generator, name: str) -> CheckResult:
    """Compare an operator's value with the oracle's; with and without blur where the operator has one."""
    arguments = operator_arguments(rng)
    error = 0.0
    for sigma in (arguments["sigma_px"], 0.0) if "sigma_px" in OPERATORS[name].arguments else (0.0,):
        values = [{**arguments, "sigma_px": sigma}[argument] for argument in OPERATORS[name].arguments]
        expected = ReferenceOperators().evaluate(name, *values)
        error = largest_error(error, relative_error(engine.operators.evaluate(name, *values), expected))
    return CheckResult(error, OPERATOR32)


def operator_gradient(engine: EngineUnderTest, rng: np.random.Generator, name: str, argument: str) -> CheckResult:
    """Compare an engine's gradient with finite differences of the oracle along random directions."""
    operator, arguments = OPERATORS[name], operator_arguments(rng)
    values = [arguments[each] for each in operator.arguments]
    by = operator.arguments.index(argument)
    cotangent = None if operator.is_number else _random_like(rng, ReferenceOperators().evaluate(name, *values))
    gradient = engine.operators.gradient(name, *values, by=by, cotangent=cotangent)
    error = 0.0
    for _ in range(DIRECTIONS):
        direction = _random_like(rng, values[by])
        expected = reference_slope(name, values, direction, by, cotangent)
        found = np.vdot(gradient, direction).real
        # The root mean square derivative along a random direction is the gradient's norm.
        scale = max(float(np.linalg.norm(gradient)), abs(expected), 1e-30)
        error = largest_error(error, abs(found - expected) / scale)
    return CheckResult(error, STEP_SLOPE32 if name in STEPS else SLOPE32)


def poisson_extremes(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Compare the half-deviance of single pixels where float32 loses digits; gradients must be finite."""
    error = 0.0
    for expected, counts in EXTREMES:
        jitter = rng.uniform(0.9, 1.1) if counts >= 1e-3 else 1.0
        pixels = [np.full((1, 1, 1, 1), value * jitter, np.float32) for value in (expected, counts)]
        arguments = (*pixels, np.ones((1, 1), np.float32))
        truth = float(ReferenceOperators().evaluate("poisson", *arguments))
        gradient = engine.operators.gradient("poisson", *arguments)
        found = float(engine.operators.evaluate("poisson", *arguments))
        # The loss of a well predicted pixel is near 0, so its error is relative to a thousandth.
        error = largest_error(error, abs(found - truth) / (truth + 1e-3), 0.0 * float(gradient.sum()))
    return CheckResult(error, POISSON_EXTREMES32)


def adam_steps(
    engine: EngineUnderTest, rng: np.random.Generator, clip: float | None, largest: float = 10.0
) -> CheckResult:
    """Compare ten steps of Adam, for gradients over ten orders of magnitude up to `largest`."""
    value = rng.normal(size=(3, 4)).astype(np.float32)
    sizes = largest * 10.0 ** rng.uniform(-10, 0, (3, 4))
    gradients = [(sizes * rng.normal(size=(3, 4))).astype(np.float32) for _ in range(10)]
    expected = adam(value, gradients, 0.01, clip)
    found = engine.operators.optimiser_steps(value, gradients, 0.01, clip)
    return CheckResult(relative_error(found - value.astype(float), expected - value), ADAM32)


def repeatability(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Check that operators leave their arguments unchanged and that a second call returns the same values."""
    arguments, error = operator_arguments(rng), 0.0
    for name, operator in OPERATORS.items():
        values = [arguments[argument] for argument in operator.arguments]
        copies = copy.deepcopy(values)
        first = engine.operators.evaluate(name, *values)
        cotangent = None if operator.is_number else np.ones_like(first)
        gradient = engine.operators.gradient(name, *values, cotangent=cotangent)
        second_gradient = engine.operators.gradient(name, *values, cotangent=cotangent)
        second = engine.operators.evaluate(name, *values)
        changed = [relative_error(*pair) for pair in zip(values, copies, strict=True)]
        error = largest_error(error, *changed, relative_error(second, first), relative_error(second_gradient, gradient))
    return CheckResult(error, REPEATED32)


def _random_like(rng: np.random.Generator, array: Any) -> NDArray[Any]:
    shape = np.shape(array)
    return complex_noise(rng, *shape) if np.iscomplexobj(array) else rng.normal(size=shape)


VALUE_CHECKS = tuple(
    Check(operator.clause, name.replace("_", " "), functools.partial(operator_value, name=name))
    for name, operator in OPERATORS.items()
)
GRADIENT_CHECKS = tuple(
    Check(
        "backend_contract 8.3",
        f"{name} by {argument}".replace("_", " "),
        functools.partial(operator_gradient, name=name, argument=argument),
    )
    for name, operator in OPERATORS.items()
    for argument in operator.differentiable
)
OPTIMISER_CHECKS = (
    Check("config 5.1", "Adam", functools.partial(adam_steps, clip=None)),
    Check("config 5.4", "Adam, clipped", functools.partial(adam_steps, clip=1.0)),
    Check("config 5.4", "Adam, clipped to a tiny norm", functools.partial(adam_steps, clip=1e-7, largest=1e-6)),
)
CHECKS = (
    *VALUE_CHECKS,
    Check("physics 5.1", "poisson at extreme counts", poisson_extremes),
    *GRADIENT_CHECKS,
    *OPTIMISER_CHECKS,
    Check("backend_contract 8.5", "repeatability", repeatability),
)
