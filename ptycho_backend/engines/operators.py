"""
Physics operators of every engine, by name (spec: backend_contract 8).

:data:`OPERATORS` gives for each name its clause, the NumPy function that defines it, its arguments and the
differentiable ones. Engines implement :class:`Operators`; the oracle is :class:`ReferenceOperators`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.engines.optimizer import adam
from ptycho_backend.errors import PtychoError, ShapeError, nearest_name
from ptycho_backend.physics import amplitude_constraint, forward, losses, propagation, translation

STEP = 1e-6  # step of a central difference, for arguments of the order of 1
SMOOTHING = "sigma_px"  # argument that engines replace by the blur matrix of this width

Result = NDArray[Any] | float


@dataclass(frozen=True)
class Operator:
    """
    Definition of one operator.

    Parameters
    ----------
    clause : str
        Clause of the specification.
    reference : callable
        NumPy function that defines the operator.
    arguments : tuple of str
        Names of the arguments, in order. Engines use the same order; for :data:`SMOOTHING` they take a matrix.
    differentiable : tuple of str
        Arguments that have a gradient.
    is_number : bool
        Whether the result is one number (a loss) or an array.
    detached : callable, optional
        Function of the arguments that returns further arguments of the reference. These carry no gradient and stay
        constant in finite differences.
    """

    clause: str
    reference: Callable[..., Any]
    arguments: tuple[str, ...]
    differentiable: tuple[str, ...]
    is_number: bool = False
    detached: Callable[..., tuple[Any, ...]] | None = None


OPERATORS: dict[str, Operator] = {
    "far_field": Operator("physics 3.1", propagation.far_field, ("exit_wave",), ("exit_wave",)),
    "near_field": Operator("physics 3.1", propagation.near_field, ("detector_wave",), ("detector_wave",)),
    "scatter_patches": Operator(
        "physics 1.1", translation.scatter_patches, ("patch", "offset_px", "S"), ("patch", "offset_px")
    ),
    "extract_patches": Operator(
        "physics 1.1", translation.extract_patches, ("canvas", "offset_px", "N"), ("canvas", "offset_px")
    ),
    "merge": Operator(
        "physics 2.1", forward.merge, ("patches", "offsets_px", "weight", "S"), ("patches", "offsets_px", "weight")
    ),
    "consistent_patches": Operator(
        "physics 2.1",
        forward.consistent_patches,
        ("patches", "offsets_px", "weight", "S"),
        ("patches", "offsets_px", "weight"),
    ),
    "exit_waves": Operator("physics 4.1", forward.exit_waves, ("patches", "probe", SMOOTHING), ("patches", "probe")),
    "intensity": Operator("physics 4.2", forward.intensity, ("patches", "probe", SMOOTHING), ("patches", "probe")),
    "initial_estimate": Operator("physics 6.1", amplitude_constraint.initial_estimate, ("x", "probe"), ("x", "probe")),
    "constrain_amplitude": Operator(
        "physics 6.2",
        amplitude_constraint.constrain_amplitude,
        ("patches", "x", "probe", "mask"),
        ("patches", "x", "probe"),
    ),
    "poisson": Operator("physics 5.1", losses.poisson, ("expected", "counts", "mask"), ("expected",), True),
    "amplitude_mae": Operator(
        "physics 5.2", losses.amplitude_mae, ("expected", "counts", "mask", "r"), ("expected",), True
    ),
    "total_variation": Operator("physics 5.5", losses.total_variation, ("patches", "weight"), ("patches",), True),
    "label_mae": Operator(
        "physics 5.3",
        losses.label_mae,
        ("patches", "labels", "weight"),
        ("patches",),
        True,
        detached=lambda patches, labels, weight: (losses.global_phase_factor(patches, labels, weight),),
    ),
}


class Operators(ABC):
    """
    Physics operators and optimiser of one engine on one device, on NumPy arrays (clause 8).

    Attributes
    ----------
    device : str
        "cpu" or "cuda:<index>".
    """

    device: str

    @abstractmethod
    def evaluate(self, name: str, *arguments: Any) -> Result:
        """
        Return the result of an operator (clause 8.2).

        Parameters
        ----------
        name : str
            One of :data:`OPERATORS`.
        *arguments
            All arguments of the operator's NumPy function, in its order.
        """

    @abstractmethod
    def gradient(self, name: str, *arguments: Any, by: int = 0, cotangent: NDArray[Any] | None = None) -> NDArray[Any]:
        """
        Return the gradient with respect to one argument (clause 8.3).

        L is the result itself if it is a number. For an array y, L = Re Σ c̄·y with a cotangent c of the shape of y.
        The gradient g of a complex argument z is ∂L/∂Re z + i·∂L/∂Im z; L changes by Re Σ ḡ·dz.

        Parameters
        ----------
        name, *arguments
            Same as for :meth:`evaluate`.
        by : int
            Number of the argument, from 0.
        cotangent : array, optional
            c; required if the result is an array, an error if it is a number.
        """

    @abstractmethod
    def optimiser_steps(
        self,
        value: NDArray[Any],
        gradients: Sequence[NDArray[Any]],
        learning_rate: float,
        clip: float | None = None,
    ) -> NDArray[Any]:
        """
        Return the value after one optimiser step for every gradient (clause 8.4).

        Each row of `value` (first axis) is a separate variable; `clip` bounds the norm over all of them.
        """


class ReferenceOperators(Operators):
    """Oracle: the functions of :mod:`ptycho_backend.physics` in float64, with central differences for gradients."""

    device = "cpu"

    def evaluate(self, name: str, *arguments: Any) -> Result:
        """Return the result of the NumPy function."""
        result: Result = find_operator(name).reference(*map(as_float64, arguments))
        return result

    def gradient(self, name: str, *arguments: Any, by: int = 0, cotangent: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return the gradient, one difference per element: for small arrays only."""
        point = as_float64(arguments[by])
        units = (1.0, 1j) if np.iscomplexobj(point) else (1.0,)
        gradient = np.zeros_like(point)
        for index in np.ndindex(point.shape):
            for unit in units:
                direction = np.zeros_like(point)
                direction[index] = unit
                gradient[index] += unit * reference_slope(name, arguments, direction, by, cotangent)
        return np.asarray(gradient)

    def optimiser_steps(
        self,
        value: NDArray[Any],
        gradients: Sequence[NDArray[Any]],
        learning_rate: float,
        clip: float | None = None,
    ) -> NDArray[Any]:
        """Return the value after the steps of Adam."""
        return adam(value, gradients, learning_rate, clip)


def reference_slope(
    name: str, arguments: Sequence[Any], direction: NDArray[Any], by: int = 0, cotangent: NDArray[Any] | None = None
) -> float:
    """Return the oracle's derivative of L (:meth:`Operators.gradient`) along a direction of one argument."""
    operator = find_operator(name)
    check_cotangent(name, cotangent)
    values = [as_float64(value) for value in arguments]
    detached = operator.detached(*values) if operator.detached else ()

    def loss(step: float) -> float:
        shifted = [value + step * direction if number == by else value for number, value in enumerate(values)]
        result = operator.reference(*shifted, *detached)
        return float(result if cotangent is None else np.vdot(cotangent, result).real)

    return (loss(STEP) - loss(-STEP)) / (2 * STEP)


def engine_arguments(name: str, arguments: Sequence[Any]) -> tuple[Any, ...]:
    """Return the arguments of an engine: float32 and complex64 arrays, and a blur matrix (or None) for a width."""
    named = zip(find_operator(name).arguments, arguments, strict=True)
    N = np.shape(arguments[0])[-1]
    return tuple(_blur(value, N) if argument == SMOOTHING else as_float32(value) for argument, value in named)


def find_operator(name: str) -> Operator:
    """Return an operator by name; the error for an unknown name suggests the nearest one."""
    if name not in OPERATORS:
        nearest = nearest_name(name, OPERATORS)
        raise PtychoError(
            f"No operator is called '{name}'.",
            expected=f"one of {', '.join(OPERATORS)}",
            received=f"{name!r}",
            fix=f"did you mean '{nearest}'?" if nearest else "see ptycho_backend.engines.operators.OPERATORS",
        )
    return OPERATORS[name]


def check_cotangent(name: str, cotangent: NDArray[Any] | None) -> None:
    """Raise an error for an array result without cotangent, and for a number with one."""
    is_number = find_operator(name).is_number
    if is_number != (cotangent is None):
        raise ShapeError(
            "A gradient is taken of one number.",
            expected="no cotangent" if is_number else "a cotangent of the shape of the result",
            received=f"{'none' if cotangent is None else np.shape(cotangent)} for '{name}'",
            fix="leave cotangent out" if is_number else "pass cotangent=",
        )


def as_float64(value: Any) -> Any:
    """Return an array as float64 or complex128, and anything else as it is."""
    if not isinstance(value, np.ndarray):
        return value
    return value.astype(np.complex128 if np.iscomplexobj(value) else np.float64)


def as_float32(value: Any) -> Any:
    """Return an array as contiguous float32 or complex64, and anything else as it is."""
    if not isinstance(value, np.ndarray):
        return value
    return np.array(value, dtype=np.complex64 if np.iscomplexobj(value) else np.float32, order="C")


def _blur(sigma_px: float, N: int) -> NDArray[np.float32] | None:
    return forward.smoothing_matrix(N, sigma_px).astype(np.float32) if sigma_px > 0 else None
