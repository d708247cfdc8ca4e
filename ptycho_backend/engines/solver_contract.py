"""
Solver kernels of an engine: sums over the patterns of a scan, on a device (spec: backend_contract 10).

The solver owns the iteration and calls these kernels. Arrays are opaque to it and stay on the device from the first
iteration to the last; float32 and complex64.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.errors import ShapeError
from ptycho_backend.physics.updates import NormalEquations, PhaseSlopes
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.scan_geometry import ScanGeometry

Report = Callable[[int], None]
COLUMNS = 9  # of `PatternUpdates.of`
REGULARISATION = 0.02  # default, of the largest weight: bounds a division where the illumination is weak


@dataclass(frozen=True, eq=False)
class Wanted:
    """
    Updates that an iteration needs beside that of the object, and the patterns that it uses.

    Parameters
    ----------
    probe : bool
        Probe update, with the illumination of the current probe.
    patterns : bool
        Updates of positions, scales and background.
    rows : int, shape (pattern,), optional
        Patterns of a mini-batch, numbered as in the problem; None: all.
    """

    probe: bool = False
    patterns: bool = False
    rows: NDArray[np.intp] | None = None


OBJECT_ONLY = Wanted()


@dataclass(frozen=True, eq=False)
class PatternParameters:
    """
    Properties of the experiment that the solver fits to each pattern, on the host.

    Parameters
    ----------
    shifts_px : float64, shape (position, 2), (y, x)
        Shift of the probe from the window's centre.
    scales : float64, shape (position,)
        Amplitude scale of each pattern.
    background : float
        Intensity that every pixel of every pattern contains, in normalised units.
    """

    shifts_px: NDArray[np.float64]
    scales: NDArray[np.float64]
    background: float = 0.0

    def part(self, rows: NDArray[np.intp]) -> PatternParameters:
        """Return the parameters of some patterns."""
        return PatternParameters(self.shifts_px[rows], self.scales[rows], self.background)

    @staticmethod
    def of(geometry: ScanGeometry) -> PatternParameters:
        """Return the parameters of a scan as given: its positions, scales of 1, no background."""
        return PatternParameters(geometry.shifts_px, np.ones(len(geometry.shifts_px)))


@dataclass(frozen=True, eq=False)
class PatternUpdates:
    """
    Updates of single patterns and their weights, on the host (definitions: physics 9.1).

    Parameters
    ----------
    positions_px, positions_weight : float64, shape (position, 2), (y, x)
        One row for each pattern of the mini-batch, in its order, or for each of the scan.
    scales, scales_weight : float64, shape (position,)
    squared_errors : float64, shape (position,)
        Σ(√I − x)² of each pattern over good pixels.
    background, background_weight : float
        Sums over these patterns.
    """

    positions_px: NDArray[np.float64]
    positions_weight: NDArray[np.float64]
    scales: NDArray[np.float64]
    scales_weight: NDArray[np.float64]
    squared_errors: NDArray[np.float64]
    background: float
    background_weight: float

    @staticmethod
    def of(columns: NDArray[np.float64]) -> PatternUpdates:
        """Return the updates from columns (position, 9): all fields in order; the background is not yet summed."""
        background, weight = columns[:, 7:].sum(axis=0).tolist()
        scales, scales_weight, squared_errors = columns[:, 4:7].T
        return PatternUpdates(
            columns[:, :2], columns[:, 2:4], scales, scales_weight, squared_errors, background, weight
        )


@dataclass(frozen=True, eq=False)
class KernelUpdates:
    """
    Sums over all patterns, or over those of a mini-batch.

    Parameters
    ----------
    obj : array, shape (y, x)
        Σ_j scatter(Σ_m P̄_jm·χ_jm), χ the exit-wave update.
    squared_error, norm : float
        Σ(√I − x)² and Σx² over good pixels.
    illumination : array, shape (y, x), optional
        Σ_j Σ_m |P_jm|².
    probe : array, shape (mode, y, x), optional
        Σ_j S_j⁻¹(c_j·Ō_j·χ_jm).
    probe_weight : array, shape (y, x), optional
        Σ_j c_j²·|O_j|².
    patterns : PatternUpdates, optional
    """

    obj: Any
    squared_error: float
    norm: float
    illumination: Any = None
    probe: Any = None
    probe_weight: Any = None
    patterns: PatternUpdates | None = None


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
    def set_parameters(self, parameters: PatternParameters) -> None:
        """Set positions, scales and background of the patterns; `load` sets those of the scan (clause 10.9)."""

    @abstractmethod
    def updates(
        self, obj: Any, probe: Any, wanted: Wanted = OBJECT_ONLY, report: Report | None = None
    ) -> KernelUpdates:
        """Return the sums over patterns; `report` receives the number of patterns done (clauses 10.4, 10.11)."""

    @abstractmethod
    def normal_equations(
        self, obj: Any, probe: Any, objects: Sequence[Any], probes: Sequence[Any], rows: NDArray[np.intp]
    ) -> NormalEquations:
        """Return the least squares of patterns `rows` over directions of object and probe, float64 (clause 10.10)."""

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
    def precondition(self, update: Any, weight: Any, regularisation: float = REGULARISATION) -> Any:
        """Return update / (weight + regularisation·max weight) (clause 10.6)."""

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
