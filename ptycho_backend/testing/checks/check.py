"""Checks of engines: clause, name, function and result (spec: backend_contract 9)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ptycho_backend.config import ExecutionConfig
from ptycho_backend.data.scan import Scan
from ptycho_backend.engines.contract import Backend
from ptycho_backend.engines.model import Model
from ptycho_backend.engines.operators import Operators
from ptycho_backend.simulation.simulate import simulate_scan
from ptycho_backend.testing.cases import ModelCase
from ptycho_backend.testing.tolerances import Tolerance

MAX_SEED = 2**31


@dataclass(frozen=True)
class CheckResult:
    """Largest error that a check found, and its tolerance."""

    error: float
    tolerance: Tolerance

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance; False for NaN."""
        return bool(self.error <= self.tolerance.relative)


@dataclass(frozen=True, eq=False)
class EngineUnderTest:
    """
    An engine on a device, with the scan for its models.

    Parameters
    ----------
    backend : Backend
    operators : Operators
    execution : ExecutionConfig
        Device of `operators`, float32 convolutions.
    scan : Scan
    cache : dict
        Models and trainings that several checks share.
    """

    backend: Backend
    operators: Operators
    execution: ExecutionConfig
    scan: Scan
    cache: dict[Any, Any] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(backend: Backend, device: str = "auto", scan: Scan | None = None) -> EngineUnderTest:
        """Return an engine on a device, by default with the built-in simulated scan."""
        operators = backend.operators(device)
        execution = ExecutionConfig(device=operators.device, precision="32-true")
        return EngineUnderTest(backend, operators, execution, builtin_scan() if scan is None else scan)

    @property
    def device(self) -> str:
        """Device of the engine's operators."""
        return self.operators.device

    def model(self, case: ModelCase) -> Model:
        """Return the engine's model of a case with the case's weights; built once for each configuration."""
        key = ("model", repr(case.training), id(case.samples.calibration))
        if key not in self.cache:
            built = self.backend.create_model(case.training, case.samples.calibration, self.execution)
            self.cache[key] = built, case.samples.calibration  # the reference keeps the calibration's id unique
        model: Model = self.cache[key][0]
        model.set_weights(case.weights)
        return model


Run = Callable[[EngineUnderTest, np.random.Generator], CheckResult]
CrossRun = Callable[[EngineUnderTest, EngineUnderTest, np.random.Generator], CheckResult]


@dataclass(frozen=True)
class Check:
    """
    Comparison of an engine on a device with the oracle or with a law.

    Parameters
    ----------
    clause : str
        Clause of the specification, e.g. "physics 3.1".
    name : str
        Name in reports, unique.
    run : callable
        Takes an engine and the random generator of all inputs.
    slow : bool
        Whether the check builds or trains a model.
    """

    clause: str
    name: str
    run: Run
    slow: bool = False


@dataclass(frozen=True)
class CrossCheck:
    """Comparison of two engines, or of one on two devices; fields as in :class:`Check`."""

    clause: str
    name: str
    run: CrossRun
    slow: bool = True


@functools.cache
def builtin_scan() -> Scan:
    """Return the simulated scan for models: two modes, bad pixels, a known object."""
    return simulate_scan(
        N=32,
        n_positions=24,
        object_name="lines",
        photons_per_pattern=2e4,
        step_px=3.3,
        modes=2,
        bad_pixels=0.03,
        seed=1,
    )


def draw_seed(rng: np.random.Generator) -> int:
    """Draw a seed; checks that draw it first from equal generators share cached models and trainings."""
    return int(rng.integers(MAX_SEED))


def largest_error(*errors: float) -> float:
    """Return the largest error; NaN if any error is NaN."""
    return float(np.max(np.asarray(errors, dtype=float)))
