"""Proof that engines compute what the reference computes, on this machine (spec: backend_contract 9)."""

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
from ptycho_backend.model_file.run import own_versions, write_json
from ptycho_backend.runtime.devices import choose_device
from ptycho_backend.testing.checks import CHECKS, CROSS_CHECKS, Check, CheckResult, CrossCheck, EngineUnderTest

SIDES = range(32, 513, 16)  # that every architecture takes
FEWEST, MOST = 12, 32  # positions of a scan that models are asked about


@dataclass(frozen=True)
class Row:
    """
    What one check has found.

    Parameters
    ----------
    clause, check : str
        What was checked.
    engine, device : str
        Where; two of each, where engines are compared.
    error, tolerance : float
        The largest error that was met, and what is allowed; NaN where there is none.
    passed : bool
    seconds : float
    message : str
        Where the check could not be carried out: the first line of its error.
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
    All rows, and what they were made with.

    Parameters
    ----------
    rows : tuple of Row
    seed : int
    scan : str
        Where the scan comes from that models were asked about.
    versions : dict of str to str
    machine : dict
    """

    rows: tuple[Row, ...]
    seed: int
    scan: str
    versions: dict[str, str]
    machine: dict[str, Any]

    @property
    def missed(self) -> tuple[Row, ...]:
        """Rows of checks that have not passed."""
        return tuple(row for row in self.rows if not row.passed)

    @property
    def passed(self) -> bool:
        """Whether something was checked, and all of it has passed."""
        return bool(self.rows) and not self.missed

    def write(self, path: Path | str) -> None:
        """Write the report as JSON; numbers that are none become null."""
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
        Engines by name; None takes all that are installed.
    device : str
        "all", or one device as in ExecutionConfig, which every engine must have.
    scan : Scan, optional
        Asked about instead of the built-in simulated scan; its first 32 positions are used.
    seed : int
        All inputs are drawn from it.
    quick : bool
        Leave out whatever builds a model or trains.
    on_event : callable
        Receives StageEvents.

    Raises
    ------
    UnknownBackendError, BackendNotInstalledError, DeviceError
        If an engine or a device that was named is not there.
    DataError
        If the scan is too small, or of a side that no model takes.
    """
    part = None if scan is None else part_of(scan)
    subjects = engines_under_test(backends, device, part)
    rows: list[Row] = []
    for subject in subjects:
        checks = [check for check in CHECKS if not (quick and check.slow)]
        stage = f"{subject.backend.name} on {subject.device}"
        for done, check in enumerate(checks, start=1):
            rows.append(_row(check, seed, subject))
            on_event(StageEvent(stage, done, len(checks), check.name))
        subject.kept.clear()
    rows += _compared(subjects, seed, quick, on_event)
    versions = {name: text for subject in subjects for name, text in subject.backend.versions().items()}
    source = subjects[0].scan.source if subjects else ""
    return Report(tuple(rows), seed, source, {**own_versions(), **versions}, _machine())


def engines_under_test(backends: Sequence[str] | None, device: str, scan: Scan | None = None) -> list[EngineUnderTest]:
    """Return every engine on every device that is asked for."""
    engines = [get_backend(name) for name in (available_backends() if backends is None else dict.fromkeys(backends))]
    return [
        EngineUnderTest.of(engine, place, scan)
        for engine in engines
        for place in (engine.devices() if device == "all" else (choose_device(device, engine.devices(), engine.name),))
    ]


def part_of(scan: Scan) -> Scan:
    """Return the first positions of a scan; refuse one that models cannot be asked about."""
    if scan.N not in SIDES:
        raise ShapeError(
            "Models take patterns of certain sides only.",
            expected="a multiple of 16 from 32 to 512",
            received=f"patterns of {scan.N}×{scan.N} in '{scan.source}'",
            fix="load the scan with N=64 (--resize 64) to crop or pad it",
        )
    if len(scan) < FEWEST:
        raise DataError(
            "The checks train on some positions and hold others out.",
            expected=f"at least {FEWEST} positions",
            received=f"{len(scan)} in '{scan.source}'",
            fix="leave the scan out to use the built-in one",
        )
    return scan.subset(slice(0, MOST))


def _compared(subjects: list[EngineUnderTest], seed: int, quick: bool, on_event: OnEvent) -> list[Row]:
    """Compare the first subject with every other one."""
    rows: list[Row] = []
    checks = [check for check in CROSS_CHECKS if not (quick and check.slow)]
    total = len(checks) * (len(subjects) - 1)
    for other in subjects[1:]:
        for check in checks:
            rows.append(_row(check, seed, subjects[0], other))
            on_event(StageEvent("engines compared", len(rows), total, check.name))
    return rows


def _row(check: Check | CrossCheck, seed: int, *subjects: EngineUnderTest) -> Row:
    """Carry out a check; one that raises has not passed."""
    started, message = time.perf_counter(), ""
    run: Callable[..., CheckResult] = check.run
    error = tolerance = math.nan
    passed = False
    try:
        finding = run(*subjects, np.random.default_rng(seed))
        error, tolerance, passed = finding.error, finding.tolerance.relative, finding.passed
    except Exception as problem:  # whatever an engine raises, the other checks go on
        message = f"{type(problem).__name__}: {first_line(problem)}"
    return Row(
        clause=check.clause,
        check=check.name,
        engine=", ".join(dict.fromkeys(subject.backend.name for subject in subjects)),
        device=", ".join(dict.fromkeys(subject.device for subject in subjects)),
        error=error,
        tolerance=tolerance,
        passed=passed,
        seconds=time.perf_counter() - started,
        message=message,
    )


def _machine() -> dict[str, Any]:
    return {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()}
