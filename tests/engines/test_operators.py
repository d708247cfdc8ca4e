"""Table of operators, and gradients of the oracle for functions with known gradients."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from ptycho_backend.engines.operators import (
    OPERATORS,
    SMOOTHING,
    ReferenceOperators,
    as_float32,
    as_float64,
    engine_arguments,
    reference_slope,
)
from ptycho_backend.errors import PtychoError, ShapeError
from ptycho_backend.testing.inputs import complex_noise

ORACLE = ReferenceOperators()


@pytest.mark.parametrize("name", OPERATORS)
def test_the_table_has_the_arguments_of_the_reference(name):
    operator = OPERATORS[name]
    parameters = list(inspect.signature(operator.reference).parameters)
    assert len(operator.arguments) <= len(parameters)
    assert set(operator.differentiable) <= set(operator.arguments)
    # A detached value is the only further argument.
    assert len(parameters) - len(operator.arguments) == (1 if operator.detached else 0)


def test_the_gradient_of_a_linear_operator_is_its_adjoint(rng):
    # Re⟨c, F z⟩ = Re⟨F* c, z⟩, so the gradient by z is F* c whatever z is.
    wave, cotangent = complex_noise(rng, 5, 4), complex_noise(rng, 5, 4)
    gradient = ORACLE.gradient("far_field", wave, cotangent=cotangent)
    np.testing.assert_allclose(gradient, ORACLE.evaluate("near_field", cotangent), atol=1e-8)


def test_the_gradient_of_a_complex_argument_follows_the_convention(rng):
    # L = Σ|F z|² = Σ|z|²: dL = 2 Re Σ z̄ dz, so the gradient is 2z.
    patches, probe = complex_noise(rng, 1, 1, 3, 3), np.ones((1, 3, 3), complex)
    gradient = ORACLE.gradient("intensity", patches, probe, 0.0, cotangent=np.ones((1, 1, 3, 3)))
    np.testing.assert_allclose(gradient, 2 * patches, atol=1e-7)


def test_real_arguments_have_real_gradients(rng):
    expected, counts = rng.uniform(1, 5, (1, 1, 3, 3)), rng.uniform(1, 5, (1, 1, 3, 3))
    gradient = ORACLE.gradient("poisson", expected, counts, np.ones((3, 3)))
    assert gradient.dtype == np.float64
    np.testing.assert_allclose(gradient, (1 - counts / expected) / 9, atol=1e-9)


def test_the_global_phase_factor_is_detached(rng):
    # With a new factor a global phase does not change the loss. With a constant factor the loss has another slope.
    patches, labels = complex_noise(rng, 1, 1, 4, 4), complex_noise(rng, 1, 1, 4, 4)
    arguments = (patches, labels, np.ones((4, 4)))
    step = 1e-5
    rotated = [ORACLE.evaluate("label_mae", patches * np.exp(1j * angle), *arguments[1:]) for angle in (step, -step)]
    assert abs(rotated[0] - rotated[1]) < 1e-10
    direction = complex_noise(rng, 1, 1, 4, 4)
    free = [ORACLE.evaluate("label_mae", patches + sign * step * direction, *arguments[1:]) for sign in (1, -1)]
    assert reference_slope("label_mae", arguments, direction) != pytest.approx((free[0] - free[1]) / 2 / step, rel=1e-3)


def test_a_slope_is_the_gradient_along_a_direction(rng):
    arguments = (complex_noise(rng, 1, 2, 3, 3), complex_noise(rng, 2, 3, 3), 0.7)
    cotangent, direction = rng.normal(size=(1, 2, 3, 3)), complex_noise(rng, 2, 3, 3)
    gradient = ORACLE.gradient("intensity", *arguments, by=1, cotangent=cotangent)
    slope = reference_slope("intensity", arguments, direction, 1, cotangent)
    assert slope == pytest.approx(np.vdot(gradient, direction).real, rel=1e-6)


def test_engine_arguments_are_float32_with_a_blur_matrix(rng):
    patches, probe = complex_noise(rng, 1, 1, 6, 6), complex_noise(rng, 1, 6, 6)
    one, two, blur = engine_arguments("intensity", (patches[..., ::-1], probe, 0.8))
    assert (one.dtype, two.dtype, blur.dtype, blur.shape) == (np.complex64, np.complex64, np.float32, (6, 6))
    assert one.flags.c_contiguous
    assert engine_arguments("intensity", (patches, probe, 0.0))[2] is None
    assert OPERATORS["intensity"].arguments[2] == SMOOTHING
    assert engine_arguments("scatter_patches", (patches, np.zeros(2), 9))[2] == 9
    with pytest.raises(ValueError):
        engine_arguments("intensity", (patches, probe))


def test_conversions_keep_real_and_complex():
    assert as_float64(np.ones(1, np.float32)).dtype == np.float64
    assert as_float64(np.ones(1, np.complex64)).dtype == np.complex128
    assert as_float32(np.ones(1, int)).dtype == np.float32
    assert (as_float64(3), as_float32(0.5)) == (3, 0.5)


def test_wrong_names_and_cotangents_are_errors(rng):
    wave = complex_noise(rng, 3, 3)
    with pytest.raises(PtychoError, match="'far_field'"):
        ORACLE.evaluate("farfield", wave)
    with pytest.raises(ShapeError, match="pass cotangent"):
        ORACLE.gradient("far_field", wave)
    real = np.ones((1, 1, 3, 3))
    with pytest.raises(ShapeError, match="leave cotangent out"):
        ORACLE.gradient("poisson", real, real, real[0, 0], cotangent=real)
