"""
The physics one function at a time: what every engine must be able to answer (spec: backend_contract 8).

:data:`OPERATORS` says for each name what it must compute (a clause and a NumPy function), what its arguments are,
and by which of them it can be differentiated. Engines implement :class:`Operators`; the oracle is
:class:`ReferenceOperators`.
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

STEP = 1e-6  # of a central difference, for arguments of the order of 1
SMOOTHING = "sigma_px"  # engines take the blur matrix of this width instead

Answer = NDArray[Any] | float


@dataclass(frozen=True)
class Operator:
    """
    What one name means.

    Parameters
    ----------
    clause : str
        Of the specification.
    reference : callable
        The function in NumPy that defines it.
    arguments : tuple of str
        Names of its arguments, in order. Engines take them in this order too, but for :data:`SMOOTHING`.
    differentiable : tuple of str
        Arguments that have a gradient.
    is_number : bool
        Whether the result is one number (a loss) or an array.
    held : callable, optional
        Takes the arguments and returns what the reference needs besides to take differences: it carries no gradient.
    """

    clause: str
    reference: Callable[..., Any]
    arguments: tuple[str, ...]
    differentiable: tuple[str, ...]
    is_number: bool = False
    held: Callable[..., tuple[Any, ...]] | None = None


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
        held=lambda patches, labels, weight: (losses.best_turn(patches, labels, weight),),
    ),
}


class Operators(ABC):
    """
    The physics and the optimiser of one engine on one device: NumPy in, NumPy out (clause 8).

    Attributes
    ----------
    device : str
        Where it computes, "cpu" or "cuda:<index>".
    """

    device: str

    @abstractmethod
    def evaluate(self, name: str, *arguments: Any) -> Answer:
        """
        Return what an operator gives for its arguments (clause 8.2).

        Parameters
        ----------
        name : str
            One of :data:`OPERATORS`.
        *arguments
            All of the operator's arguments, as its reference takes them.
        """

    @abstractmethod
    def gradient(self, name: str, *arguments: Any, by: int = 0, cotangent: NDArray[Any] | None = None) -> NDArray[Any]:
        """
        Return the gradient by one argument (clause 8.3).

        Of an operator whose result is a number L; of one with an array y as result, of L = Re Σ c̄·y with a given
        cotangent c of the shape of y. By a complex argument z the gradient is ∂L/∂Re z + i·∂L/∂Im z, so that L changes
        by Re Σ ḡ·dz.

        Parameters
        ----------
        name, *arguments
            As in :meth:`evaluate`.
        by : int
            Number of the argument, from 0.
        cotangent : array, optional
            c; needed where the result is an array, refused where it is a number.
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
        Return where the engine's optimiser leads, one step for every gradient (clause 8.4).

        Each row of `value` (first axis) is a variable of its own; `clip` bounds the norm over all of them.
        """


class ReferenceOperators(Operators):
    """The oracle: the functions of :mod:`ptycho_backend.physics` in float64, slopes by central differences."""

    device = "cpu"

    def evaluate(self, name: str, *arguments: Any) -> Answer:
        """Return what the reference gives."""
        answer: Answer = operator_called(name).reference(*map(as_float64, arguments))
        return answer

    def gradient(self, name: str, *arguments: Any, by: int = 0, cotangent: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return the gradient, element by element: for small arrays only."""
        point = as_float64(arguments[by])
        units = (1.0, 1j) if np.iscomplexobj(point) else (1.0,)
        gradient = np.zeros_like(point)
        for place in np.ndindex(point.shape):
            for unit in units:
                direction = np.zeros_like(point)
                direction[place] = unit
                gradient[place] += unit * reference_slope(name, arguments, direction, by, cotangent)
        return np.asarray(gradient)

    def optimiser_steps(
        self,
        value: NDArray[Any],
        gradients: Sequence[NDArray[Any]],
        learning_rate: float,
        clip: float | None = None,
    ) -> NDArray[Any]:
        """Return where Adam leads."""
        return adam(value, gradients, learning_rate, clip)


def reference_slope(
    name: str, arguments: Sequence[Any], direction: NDArray[Any], by: int = 0, cotangent: NDArray[Any] | None = None
) -> float:
    """Return the oracle's derivative along a direction of one argument: the L of :meth:`Operators.gradient`."""
    operator = operator_called(name)
    check_cotangent(name, cotangent)
    values = [as_float64(value) for value in arguments]
    held = operator.held(*values) if operator.held else ()

    def loss(step: float) -> float:
        moved = [value + step * direction if number == by else value for number, value in enumerate(values)]
        result = operator.reference(*moved, *held)
        return float(result if cotangent is None else np.vdot(cotangent, result).real)

    return (loss(STEP) - loss(-STEP)) / (2 * STEP)


def engine_arguments(name: str, arguments: Sequence[Any]) -> tuple[Any, ...]:
    """Return arguments as engines take them: float32 and complex64 arrays, a blur matrix (or None) for a width."""
    named = zip(operator_called(name).arguments, arguments, strict=True)
    N = np.shape(arguments[0])[-1]
    return tuple(_blur(value, N) if what == SMOOTHING else as_float32(value) for what, value in named)


def operator_called(name: str) -> Operator:
    """Return an operator by name; an unknown name is an error that names the nearest."""
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
    """Refuse a missing cotangent where the result is an array, and one where it is a number."""
    is_number = operator_called(name).is_number
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
