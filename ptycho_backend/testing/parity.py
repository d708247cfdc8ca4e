"""Report of all checks of the engines on this machine (spec: backend_contract 9)."""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_backend.data.scan import Scan
from ptycho_backend.engines.registry import available_backends, get_backend
from ptycho_backend.errors import DataError, ShapeError, first_line
from ptycho_backend.events import OnEvent, StageEvent, ignore
from ptycho_backend.model_file.run import core_versions, write_json
from ptycho_backend.runtime.devices import choose_device
from ptycho_backend.testing.checks import CHECKS, CROSS_CHECKS, Check, CheckResult, CrossCheck, EngineUnderTest

SIDES = range(32, 513, 16)  # pattern sides of every architecture
MIN_POSITIONS, MAX_POSITIONS = 12, 32


@dataclass(frozen=True)
class Row:
    """
    Result of one check.

    Parameters
    ----------
    clause, check : str
        Clause of the specification and name of the check.
    engine, device : str
        Names; comma-separated where two engines or devices are compared.
    error, tolerance : float
        Largest error and its limit; NaN if the check raised an error.
    passed : bool
    seconds : float
    message : str
        First line of an error that the check raised.
    """

    clause: str
    check: str
    engine: str
    device: str
    error: float
    tolerance: float
    passed: bool
    seconds: float
    message: str = ""


@dataclass(frozen=True)
class Report:
    """
    Results of all checks, with seed, scan, versions and machine.

    Parameters
    ----------
    rows : tuple of Row
    seed : int
    scan : str
        Source of the scan for models.
    versions : dict of str to str
    machine : dict
    """

    rows: tuple[Row, ...]
    seed: int
    scan: str
    versions: dict[str, str]
    machine: dict[str, Any]

    @property
    def failed(self) -> tuple[Row, ...]:
        """Rows of checks that did not pass."""
        return tuple(row for row in self.rows if not row.passed)

    @property
    def passed(self) -> bool:
        """Whether there are rows and all of them passed."""
        return bool(self.rows) and not self.failed

    def write(self, path: Path | str) -> None:
        """Write the report as JSON; NaN becomes null."""
        write_json(Path(path), {"passed": self.passed, **dataclasses.asdict(self)})


def run_parity(
    backends: Sequence[str] | None = None,
    device: str = "all",
    scan: Scan | None = None,
    seed: int = 0,
    quick: bool = False,
    on_event: OnEvent = ignore,
) -> Report:
    """
    Run all checks on some engines and devices.

    Parameters
    ----------
    backends : sequence of str, optional
        Names of engines; None selects all installed ones.
    device : str
        "all", or one device as in ExecutionConfig, which every engine must have.
    scan : Scan, optional
        Replaces the built-in simulated scan; its first 32 positions are used.
    seed : int
        Seed of all random inputs.
    quick : bool
        Skip checks that build or train a model.
    on_event : callable
        Receives StageEvents.

    Raises
    ------
    UnknownBackendError, BackendNotInstalledError, DeviceError
        If a named engine or device is missing.
    DataError
        If the scan is too small, or its patterns fit no model.
    """
    part = None if scan is None else first_positions(scan)
    engines = engines_under_test(backends, device, part)
    rows: list[Row] = []
    checks = [check for check in CHECKS if not (quick and check.slow)]
    for engine in engines:
        stage = f"{engine.backend.name} on {engine.device}"
        for number, check in enumerate(checks, start=1):
            rows.append(_row(check, seed, engine))
            on_event(StageEvent(stage, number, len(checks), check.name))
        engine.cache.clear()
    rows += _comparisons(engines, seed, quick, on_event)
    versions = {name: text for engine in engines for name, text in engine.backend.versions().items()}
    source = engines[0].scan.source if engines else ""
    return Report(tuple(rows), seed, source, {**core_versions(), **versions}, _machine())


def engines_under_test(backends: Sequence[str] | None, device: str, scan: Scan | None = None) -> list[EngineUnderTest]:
    """Return every named engine on every selected device."""
    loaded = [get_backend(name) for name in (available_backends() if backends is None else dict.fromkeys(backends))]
    return [
        EngineUnderTest.of(backend, name, scan)
        for backend in loaded
        for name in (
            backend.devices() if device == "all" else (choose_device(device, backend.devices(), backend.name),)
        )
    ]


def first_positions(scan: Scan) -> Scan:
    """Return the first positions of a scan; raise an error for a scan that the checks cannot use."""
    if scan.N not in SIDES:
        raise ShapeError.of_patterns(
            "The pattern side must fit the models.",
            "a multiple of 16 from 32 to 512",
            scan.N,
            scan.source,
            "load the scan with N=64 (--resize 64) to crop or pad it",
        )
    if len(scan) < MIN_POSITIONS:
        raise DataError(
            "The checks need positions for training and for validation.",
            expected=f"at least {MIN_POSITIONS} positions",
            received=f"{len(scan)} in '{scan.source}'",
            fix="leave the scan out to use the built-in one",
        )
    return scan.subset(slice(0, MAX_POSITIONS))


def _comparisons(engines: list[EngineUnderTest], seed: int, quick: bool, on_event: OnEvent) -> list[Row]:
    """Compare the first engine with every other one."""
    rows: list[Row] = []
    checks = [check for check in CROSS_CHECKS if not (quick and check.slow)]
    total = len(checks) * (len(engines) - 1)
    for other in engines[1:]:
        for check in checks:
            rows.append(_row(check, seed, engines[0], other))
            on_event(StageEvent("engines compared", len(rows), total, check.name))
    return rows


def _row(check: Check | CrossCheck, seed: int, *engines: EngineUnderTest) -> Row:
    """Run a check; a check that raises an error does not pass."""
    started, message = time.perf_counter(), ""
    run: Callable[..., CheckResult] = check.run
    error = tolerance = math.nan
    passed = False
    try:
        result = run(*engines, np.random.default_rng(seed))
        error, tolerance, passed = result.error, result.tolerance.relative, result.passed
    except Exception as problem:  # an error of one check must not end the others
        message = f"{type(problem).__name__}: {first_line(problem)}"
    return Row(
        clause=check.clause,
        check=check.name,
        engine=", ".join(dict.fromkeys(engine.backend.name for engine in engines)),
        device=", ".join(dict.fromkeys(engine.device for engine in engines)),
        error=error,
        tolerance=tolerance,
        passed=passed,
        seconds=time.perf_counter() - started,
        message=message,
    )


def _machine() -> dict[str, Any]:
    return {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()}
