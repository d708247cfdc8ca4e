"""Solver kernels of a process group: each process sums its share of the patterns (spec: backend_contract 10.8)."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.engines.solver_contract import KernelUpdates, Report, SolverKernels
from ptycho_backend.errors import ConfigError
from ptycho_backend.physics.updates import PhaseSlopes
from ptycho_backend.solver.problem import Problem
from ptycho_backend.training.parallel import ProcessGroup

Part = TypeVar("Part", KernelUpdates, PhaseSlopes)
SLOPES = ("information", "gradient", "centres_px")  # fields of PhaseSlopes, all with one row for each pattern


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
        self._n, self._rows = n, slice(int(share[0]), int(share[-1]) + 1)
        self._kernels.load(problem.part(self._rows))

    def from_numpy(self, array: NDArray[Any]) -> Any:
        """Return the array of process 0 on the device."""
        return self._exchanged(self._kernels.from_numpy(array), self._group.from_first)

    def to_numpy(self, array: Any) -> NDArray[Any]:
        """Return a NumPy copy; without an exchange, so one process alone may call it."""
        return self._kernels.to_numpy(array)

    def illumination(self, probe: Any, report: Report | None = None) -> Any:
        """Return Σ_j Σ_m |P_jm|², shape (y, x)."""
        return self._sum(self._kernels.illumination(probe, self._of_all(report)))

    def updates(self, obj: Any, probe: Any, probe_too: bool = False, report: Report | None = None) -> KernelUpdates:
        """Return the sums over all patterns."""
        return self._combined(self._kernels.updates(obj, probe, probe_too, self._of_all(report)))

    def phase_slopes(self, obj: Any, probe: Any) -> PhaseSlopes:
        """Return the linearised smooth errors of all patterns, in the order of the scan."""
        return self._combined(self._kernels.phase_slopes(obj, probe), per_pattern=SLOPES)

    def combine(self, a: float, x: Any, b: float, y: Any) -> Any:
        """Return a·x + b·y."""
        return self._kernels.combine(a, x, b, y)

    def multiply(self, x: Any, y: Any) -> Any:
        """Return x·y."""
        return self._kernels.multiply(x, y)

    def precondition(self, update: Any, weight: Any) -> Any:
        """Return update / (weight + 0.02·max weight)."""
        return self._kernels.precondition(update, weight)

    def norm(self, x: Any, weight: Any) -> float:
        """Return Σ weight·|x|² of process 0: rounding must not stop one process before the others."""
        return float(self._group.from_first(np.array(self._kernels.norm(x, weight))))

    def _combined(self, part: Part, per_pattern: tuple[str, ...] = ()) -> Part:
        """Return the result of all patterns: sums, and in the fields `per_pattern` one row for each pattern."""
        values = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
        whole: dict[str, Any] = {
            name: self._gathered(value) if name in per_pattern else self._sum(value)
            for name, value in values.items()
            if value is not None
        }
        return dataclasses.replace(part, **whole)

    def _gathered(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return the rows of all processes; every process adds its own to zeros."""
        whole = np.zeros((self._n, *rows.shape[1:]), dtype=rows.dtype)
        whole[self._rows] = rows
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

    def _of_all(self, report: Report | None) -> Report | None:
        """Return a listener that scales the patterns of this process to those of all."""
        if report is None:
            return None
        n, local = self._n, self._rows.stop - self._rows.start
        return lambda done: report(done * n // local)
