"""What a check is: a clause, a question to an engine on a device, and a finding (spec: backend_contract 9)."""

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

SEEDS = 2**31


@dataclass(frozen=True)
class CheckResult:
    """The largest error that a check has met, beside what it allows."""

    error: float
    tolerance: Tolerance

    @property
    def passed(self) -> bool:
        """Whether the error is allowed; NaN never is."""
        return bool(self.error <= self.tolerance.relative)


@dataclass(frozen=True, eq=False)
class EngineUnderTest:
    """
    An engine on a device, with a scan to be asked about.

    Parameters
    ----------
    backend : Backend
    operators : Operators
    execution : ExecutionConfig
        That device, float32 convolutions.
    scan : Scan
    kept : dict
        Models and trainings that several checks ask about.
    """

    backend: Backend
    operators: Operators
    execution: ExecutionConfig
    scan: Scan
    kept: dict[Any, Any] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(backend: Backend, device: str = "auto", scan: Scan | None = None) -> EngineUnderTest:
        """Return an engine on a device, by default with the built-in simulated scan."""
        operators = backend.operators(device)
        execution = ExecutionConfig(device=operators.device, precision="32-true")
        return EngineUnderTest(backend, operators, execution, builtin_scan() if scan is None else scan)

    @property
    def device(self) -> str:
        """Where the engine computes."""
        return self.operators.device

    def model(self, case: ModelCase) -> Model:
        """Return the engine's model of a case with the case's weights; built once for each description."""
        key = ("model", repr(case.training), id(case.samples.calibration))
        if key not in self.kept:
            built = self.backend.create_model(case.training, case.samples.calibration, self.execution)
            self.kept[key] = built, case.samples.calibration  # the calibration lives as long as its id is a key
        model: Model = self.kept[key][0]
        model.set_weights(case.weights)
        return model


Run = Callable[[EngineUnderTest, np.random.Generator], CheckResult]
CrossRun = Callable[[EngineUnderTest, EngineUnderTest, np.random.Generator], CheckResult]


@dataclass(frozen=True)
class Check:
    """
    One question to an engine on a device.

    Parameters
    ----------
    clause : str
        Of the specification, e.g. "physics 3.1".
    name : str
        What is checked, in a few words.
    run : callable
        Takes a subject and a generator, from which all inputs are drawn.
    slow : bool
        Whether a model is built or trained.
    """

    clause: str
    name: str
    run: Run
    slow: bool = False


@dataclass(frozen=True)
class CrossCheck:
    """One question to two subjects at a time."""

    clause: str
    name: str
    run: CrossRun
    slow: bool = True


@functools.cache
def builtin_scan() -> Scan:
    """Return the simulated scan that models are asked about: two modes, bad pixels, a known object."""
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


def drawn_seed(rng: np.random.Generator) -> int:
    """Draw a seed; checks that draw it first, from equal generators, share what is made from it."""
    return int(rng.integers(SEEDS))
