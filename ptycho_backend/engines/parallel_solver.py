"""Solver kernels of a process group: each process sums its share of the patterns (spec: backend_contract 10.8)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.engines.solver_contract import (
    OBJECT_ONLY,
    REGULARISATION,
    KernelUpdates,
    PatternParameters,
    PatternUpdates,
    Report,
    SolverKernels,
    Wanted,
)
from ptycho_backend.errors import ConfigError
from ptycho_backend.physics.updates import NormalEquations, PhaseSlopes
from ptycho_backend.solver.problem import Problem
from ptycho_backend.training.parallel import ProcessGroup

Part = TypeVar("Part", KernelUpdates, PatternUpdates, PhaseSlopes)
Mask = NDArray[np.bool_]
# Fields with one row for each pattern.
SLOPES = ("information", "gradient", "centres_px")
PATTERNS = ("positions_px", "positions_weight", "scales", "scales_weight", "squared_errors")


class ParallelKernels(SolverKernels):
    """
    Kernels of any engine over several processes.

    Each process loads neighbouring rows of the scan, on the canvas of the whole scan. Sums over patterns are added
    over the processes. Arrays and decisions are those of process 0, so all processes take the same iterations.

    Parameters
    ----------
    kernels : SolverKernels
        Kernels of this process, on its own device.
    group : ProcessGroup
    """

    def __init__(self, kernels: SolverKernels, group: ProcessGroup) -> None:
        self._kernels, self._group = kernels, group
        self.device = kernels.device

    def load(self, problem: Problem) -> None:
        """Copy this process's share of the patterns to the device."""
        process, n = self._group.process, len(problem)
        if n < process.world:
            raise ConfigError(
                "Each process computes at least one pattern.",
                expected=f"at most {n} processes for this scan",
                received=f"{process.world} processes",
                fix="start fewer processes",
            )
        share = process.share(np.arange(n))
        self._rows = slice(int(share[0]), int(share[-1]) + 1)
        self._held = self._local(np.arange(n))[0]
        self._kernels.load(problem.part(self._rows))

    def set_parameters(self, parameters: PatternParameters) -> None:
        """Set positions, scales and background of this process's share of the patterns."""
        shifts_px, scales = parameters.shifts_px[self._rows], parameters.scales[self._rows]
        self._kernels.set_parameters(PatternParameters(shifts_px, scales, parameters.background))

    def from_numpy(self, array: NDArray[Any]) -> Any:
        """Return the array of process 0 on the device."""
        return self._exchanged(self._kernels.from_numpy(array), self._group.from_first)

    def to_numpy(self, array: Any) -> NDArray[Any]:
        """Return a NumPy copy; without an exchange, so one process alone may call it."""
        return self._kernels.to_numpy(array)

    def illumination(self, probe: Any, report: Report | None = None) -> Any:
        """Return Σ_j Σ_m |P_jm|², shape (y, x)."""
        return self._sum(self._kernels.illumination(probe, self._of_all(report, self._held)))

    def updates(
        self, obj: Any, probe: Any, wanted: Wanted = OBJECT_ONLY, report: Report | None = None
    ) -> KernelUpdates:
        """Return the sums over patterns, and the updates of single patterns in the order of the scan or mini-batch."""
        held = self._held
        if wanted.rows is not None:
            held, local = self._local(wanted.rows)
            wanted = dataclasses.replace(wanted, rows=local)
        part = self._kernels.updates(obj, probe, wanted, self._of_all(report, held))
        whole = self._combined(dataclasses.replace(part, patterns=None), held)
        if part.patterns is None:
            return whole
        return dataclasses.replace(whole, patterns=self._combined(part.patterns, held, per_pattern=PATTERNS))

    def normal_equations(
        self, obj: Any, probe: Any, objects: Sequence[Any], probes: Sequence[Any], rows: NDArray[np.intp]
    ) -> NormalEquations:
        """Return the least squares of patterns `rows`, numbered as in the scan; each process adds those it holds."""
        part = self._kernels.normal_equations(obj, probe, objects, probes, self._local(rows)[1])
        # NumPy arrays: arrays of an engine would round to float32.
        return NormalEquations(*(np.asarray(self._group.sum(each)) for each in (part.information, part.gradient)))

    def phase_slopes(self, obj: Any, probe: Any) -> PhaseSlopes:
        """Return the linearised smooth errors of all patterns, in the order of the scan."""
        return self._combined(self._kernels.phase_slopes(obj, probe), self._held, per_pattern=SLOPES)

    def combine(self, a: float, x: Any, b: float, y: Any) -> Any:
        """Return a·x + b·y."""
        return self._kernels.combine(a, x, b, y)

    def multiply(self, x: Any, y: Any) -> Any:
        """Return x·y."""
        return self._kernels.multiply(x, y)

    def precondition(self, update: Any, weight: Any, regularisation: float = REGULARISATION) -> Any:
        """Return update / (weight + regularisation·max weight)."""
        return self._kernels.precondition(update, weight, regularisation)

    def norm(self, x: Any, weight: Any) -> float:
        """Return Σ weight·|x|² of process 0: rounding must not stop one process before the others."""
        return float(self._group.from_first(np.array(self._kernels.norm(x, weight))))

    def _local(self, rows: NDArray[np.intp]) -> tuple[Mask, NDArray[np.intp]]:
        """Return which of the patterns `rows` this process holds, and their numbers in its share."""
        held = (rows >= self._rows.start) & (rows < self._rows.stop)
        return held, rows[held] - self._rows.start

    def _combined(self, part: Part, held: Mask, per_pattern: tuple[str, ...] = ()) -> Part:
        """Return the result of all processes: sums, and in the fields `per_pattern` one row for each pattern."""
        values = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
        whole: dict[str, Any] = {
            name: self._gathered(value, held) if name in per_pattern else self._sum(value)
            for name, value in values.items()
            if value is not None
        }
        return dataclasses.replace(part, **whole)

    def _gathered(self, values: NDArray[Any], held: Mask) -> NDArray[Any]:
        """Return the values of all patterns; every process adds its own to zeros."""
        whole = np.zeros((len(held), *values.shape[1:]), dtype=values.dtype)
        whole[held] = values
        return np.asarray(self._group.sum(whole))

    def _sum(self, value: Any) -> Any:
        if isinstance(value, float):
            return float(self._group.sum(np.array(value)))
        return self._exchanged(value, self._group.sum)

    def _exchanged(self, array: Any, exchange: Any) -> Any:
        """Return the result of an exchange; through NumPy if the group does not take arrays of this engine."""
        if self._group.holds(array):
            return exchange(array)
        return self._kernels.from_numpy(exchange(self._kernels.to_numpy(array)))

    def _of_all(self, report: Report | None, held: Mask) -> Report | None:
        """Return a listener that scales the patterns of this process to those of all."""
        if report is None:
            return None
        n, local = len(held), int(held.sum())
        return lambda done: report(done * n // local)
