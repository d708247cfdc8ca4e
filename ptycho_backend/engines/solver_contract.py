"""
Solver kernels of an engine: sums over the patterns of a scan, on a device (spec: backend_contract 10).

The solver owns the iteration and calls these kernels. Arrays are opaque to it and stay on the device from the first
iteration to the last; float32 and complex64.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.errors import ShapeError
from ptycho_backend.physics.updates import PhaseSlopes
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.scan_geometry import ScanGeometry

Report = Callable[[int], None]
REGULARISATION = 0.02  # of the largest weight: bounds a division where the illumination is weak


@dataclass(frozen=True, eq=False)
class KernelUpdates:
    """
    Sums over all patterns.

    Parameters
    ----------
    obj : array, shape (y, x)
        Σ_j scatter(Σ_m P̄_jm·χ_jm), χ the exit-wave update.
    probe : array, shape (mode, y, x), optional
        Σ_j S_j⁻¹(Ō_j·χ_jm).
    probe_weight : array, shape (y, x), optional
        Σ_j |O_j|².
    squared_error, norm : float
        Σ(√I − x)² and Σx² over good pixels.
    """

    obj: Any
    probe: Any
    probe_weight: Any
    squared_error: float
    norm: float


class SolverKernels(ABC):
    """Kernels of one engine on one device."""

    device: str

    @abstractmethod
    def load(self, problem: Problem) -> None:
        """Copy the data of a scan to the device (clause 10.1)."""

    @abstractmethod
    def from_numpy(self, array: NDArray[Any]) -> Any:
        """Return an array on the device, float32 or complex64 (clause 10.2)."""

    @abstractmethod
    def to_numpy(self, array: Any) -> NDArray[Any]:
        """Return a NumPy copy (clause 10.2)."""

    @abstractmethod
    def illumination(self, probe: Any, report: Report | None = None) -> Any:
        """Return Σ_j Σ_m |P_jm|², shape (y, x); `report` receives the number of patterns done (clause 10.3)."""

    @abstractmethod
    def updates(self, obj: Any, probe: Any, probe_too: bool = False, report: Report | None = None) -> KernelUpdates:
        """Return the sums over all patterns; `report` receives the number of patterns done (clause 10.4)."""

    @abstractmethod
    def phase_slopes(self, obj: Any, probe: Any) -> PhaseSlopes:
        """Return the linearised smooth errors of all patterns, float64 (clause 10.5)."""

    @abstractmethod
    def combine(self, a: float, x: Any, b: float, y: Any) -> Any:
        """Return a·x + b·y (clause 10.6)."""

    @abstractmethod
    def multiply(self, x: Any, y: Any) -> Any:
        """Return x·y, element by element (clause 10.6)."""

    @abstractmethod
    def precondition(self, update: Any, weight: Any) -> Any:
        """Return update / (weight + 0.02·max weight) (clause 10.6)."""

    @abstractmethod
    def norm(self, x: Any, weight: Any) -> float:
        """Return Σ weight·|x|² in float64 accuracy (clause 10.6)."""


def require_shapes(geometry: ScanGeometry, probe: Any, obj: Any = None) -> None:
    """
    Raise an error for a probe or an object of another shape than the loaded problem's.

    Engines read windows from the flat memory of a canvas. A canvas of another width would give wrong pixels.

    Parameters
    ----------
    geometry : ScanGeometry
    probe : array, shape (mode, y, x)
    obj : array, shape (y, x), optional

    Raises
    ------
    ShapeError
    """
    N = geometry.N
    if len(probe.shape) != 3 or tuple(probe.shape[-2:]) != (N, N):
        raise _other_shape("probe", f"(mode, {N}, {N})", probe)
    if obj is not None and tuple(obj.shape) != geometry.canvas_shape:
        raise _other_shape("object", str(geometry.canvas_shape), obj)


def _other_shape(name: str, expected: str, array: Any) -> ShapeError:
    return ShapeError(
        f"The {name} of the kernels has the shape of the loaded problem.",
        expected=f"shape {expected}",
        received=f"shape {tuple(array.shape)}",
        fix="load the problem that the array belongs to",
    )


def summed(parts: list[PhaseSlopes]) -> PhaseSlopes:
    """Return the phase slopes of all patterns from those of chunks, in order."""
    return PhaseSlopes(
        np.concatenate([part.information for part in parts]),
        np.concatenate([part.gradient for part in parts]),
        np.concatenate([part.centres_px for part in parts]),
    )
