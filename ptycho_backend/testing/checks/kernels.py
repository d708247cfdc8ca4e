"""Comparison of an engine's solver kernels with the oracle, and of whole reconstructions (backend_contract 10)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.config import ModelConfig
from ptycho_backend.engines.numpy.solver import NumpyKernels
from ptycho_backend.engines.parallel_solver import PATTERNS
from ptycho_backend.engines.solver_contract import (
    KernelUpdates,
    PatternParameters,
    PatternUpdates,
    SolverKernels,
    Wanted,
)
from ptycho_backend.physics import updates as oracle
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.solver.coarse_correction import coarse_correction
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.solver import SolverOptions, solve
from ptycho_backend.testing.assertions import relative_error
from ptycho_backend.testing.checks.check import Check, CheckResult, EngineUnderTest, largest_error
from ptycho_backend.testing.inputs import complex_noise
from ptycho_backend.testing.tolerances import COARSE32, KERNEL32, RECONSTRUCTED

ITERATIONS = 9  # with three coarse corrections
BACKGROUND = 0.01  # mean intensity of a normalised pattern is about 0.1 to 1
DIRECTIONS = 3
MINI_BATCHES = 3


@dataclass(frozen=True, eq=False)
class KernelCase:
    """Kernels with a loaded problem, a random object and probe near the true ones, and the oracle's patterns."""

    problem: Problem
    kernels: SolverKernels
    obj: NDArray[np.complex64]
    probe: NDArray[np.complex64]
    patterns: oracle.Patterns

    def on_device(self) -> tuple[Any, Any]:
        """Return object and probe on the kernels' device."""
        return self.kernels.from_numpy(self.obj), self.kernels.from_numpy(self.probe)

    def updates(self, *, patterns: bool = False) -> tuple[Any, oracle.Updates]:
        """Return the updates of the kernels, with those of the probe, and the oracle's."""
        found = self.kernels.updates(*self.on_device(), Wanted(probe=True, patterns=patterns))
        return found, oracle.updates(self.obj, self.probe, self.patterns)


Case = Callable[[EngineUnderTest, np.random.Generator], KernelCase]


def kernel_case(engine: EngineUnderTest, rng: np.random.Generator) -> KernelCase:
    """Load the engine's scan into its kernels, and draw an object and a probe."""
    scan = engine.scan
    problem = Problem.of(scan, calibrate(scan, ModelConfig(N=scan.N)))
    geometry, N = problem.geometry, scan.N
    kernels = engine.backend.solver_kernels(engine.device)
    kernels.load(problem)
    noise = [0.2 * complex_noise(rng, *shape) for shape in (geometry.canvas_shape, problem.calibration.probe.shape)]
    obj, probe = np.exp(noise[0]), problem.calibration.probe * (1 + noise[1])
    amplitudes = np.fft.fftshift(problem.amplitudes(slice(None)).astype(np.float64), axes=(1, 2))
    patterns = oracle.Patterns(amplitudes, scan.mask.astype(float), geometry.corners_px, geometry.shifts_px)
    return KernelCase(
        problem, kernels, obj.astype(np.complex64), probe.astype(np.complex64).reshape(-1, N, N), patterns
    )


def fitted_case(engine: EngineUnderTest, rng: np.random.Generator) -> KernelCase:
    """Return a case whose kernels have moved positions, scales other than 1, and a background."""
    case = kernel_case(engine, rng)
    n = len(case.problem)
    shifts = case.patterns.shifts_px + rng.uniform(-0.8, 0.8, (n, 2))
    parameters = PatternParameters(shifts, rng.uniform(0.8, 1.2, n), BACKGROUND)
    case.kernels.set_parameters(parameters)
    patterns = replace(case.patterns, shifts_px=shifts, scales=parameters.scales, background=parameters.background)
    return replace(case, patterns=patterns)


def part(patterns: oracle.Patterns, rows: NDArray[np.intp]) -> oracle.Patterns:
    """Return some of the patterns."""
    names = ("amplitudes", "corners_px", "shifts_px", "scales")
    return replace(patterns, **{name: getattr(patterns, name)[rows] for name in names})


def illumination(engine: EngineUnderTest, rng: np.random.Generator, draw: Case = kernel_case) -> CheckResult:
    """Compare the illumination with the oracle's, alone and with the updates."""
    case = draw(engine, rng)
    expected = oracle.illumination(case.probe, case.patterns, case.obj.shape)
    found = case.kernels.illumination(case.on_device()[1]), case.updates()[0].illumination
    return CheckResult(
        largest_error(*(relative_error(case.kernels.to_numpy(each), expected) for each in found)), KERNEL32
    )


def update(engine: EngineUnderTest, rng: np.random.Generator, name: str, draw: Case = kernel_case) -> CheckResult:
    """Compare the update of object or probe with the oracle's."""
    case = draw(engine, rng)
    found, expected = case.updates()
    return CheckResult(relative_error(case.kernels.to_numpy(getattr(found, name)), getattr(expected, name)), KERNEL32)


def squared_error(engine: EngineUnderTest, rng: np.random.Generator, draw: Case = kernel_case) -> CheckResult:
    """Compare squared error and norm with the oracle's, and the weight of the probe update with its definition."""
    case = draw(engine, rng)
    found, expected = case.updates()
    errors = (
        abs(found.squared_error / expected.squared_error - 1),
        abs(found.norm / expected.norm - 1),
        relative_error(case.kernels.to_numpy(found.probe_weight), probe_weight(case.obj, case.patterns)),
    )
    return CheckResult(largest_error(*errors), KERNEL32)


def probe_weight(obj: NDArray[Any], patterns: oracle.Patterns) -> NDArray[np.float64]:
    """Return the weight Σ_j c_j²·|O_j|² of the probe update, shape (y, x)."""
    patches = oracle.extract_patches(obj, patterns.corners_px, patterns.amplitudes.shape[-1])
    return np.asarray((patterns.scale_factors[:, 0] ** 2 * np.abs(patches) ** 2).sum(axis=0))


def pattern_updates(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Compare the updates of positions, scales and background, and their weights, with the oracle's."""
    case = fitted_case(engine, rng)
    found, expected = case.updates(patterns=True)
    names = [field.name for field in fields(PatternUpdates)]
    errors = [
        relative_error(np.asarray(getattr(found.patterns, name)), np.asarray(getattr(expected, name))) for name in names
    ]
    return CheckResult(largest_error(*errors), KERNEL32)


def normal_equations(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Compare the least squares of some patterns over random directions with the oracle's; no pattern: zeros."""
    case = fitted_case(engine, rng)
    objects, probes = (
        [complex_noise(rng, *array.shape).astype(np.complex64) * np.abs(array).mean() for _ in range(DIRECTIONS)]
        for array in (case.obj, case.probe)
    )
    rows = np.sort(rng.choice(len(case.problem), len(case.problem) // 2, replace=False))
    kernels = case.kernels
    on_device = [[kernels.from_numpy(each) for each in arrays] for arrays in (objects, probes)]
    found, nothing = (
        kernels.normal_equations(*case.on_device(), on_device[0], on_device[1], chosen) for chosen in (rows, rows[:0])
    )
    expected = oracle.normal_equations(case.obj, case.probe, objects, probes, part(case.patterns, rows))
    names = [field.name for field in fields(expected)]
    errors = [relative_error(getattr(found, name), getattr(expected, name)) for name in names]
    zeros = [float(np.abs(getattr(nothing, name)).max()) for name in names]
    return CheckResult(largest_error(*errors, *zeros), KERNEL32)


def dense(kernels: SolverKernels, found: KernelUpdates) -> dict[str, NDArray[Any]]:
    """Return the fields of all updates, those of single patterns included, as NumPy arrays."""
    values = vars(found) | vars(found.patterns)
    sums = ("obj", "illumination", "probe", "probe_weight")
    return {
        name: kernels.to_numpy(value) if name in sums else np.asarray(value)
        for name, value in values.items()
        if name != "patterns"
    }


def mini_batch(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Compare the updates of half of the patterns, in random order, with the oracle's for the same patterns."""
    case = fitted_case(engine, rng)
    rows = rng.permutation(len(case.problem))[: len(case.problem) // 2]
    found = dense(case.kernels, case.kernels.updates(*case.on_device(), Wanted(probe=True, patterns=True, rows=rows)))
    patterns = part(case.patterns, rows)
    expected = {
        **vars(oracle.updates(case.obj, case.probe, patterns)),
        "illumination": oracle.illumination(case.probe, patterns, case.obj.shape),
        "probe_weight": probe_weight(case.obj, patterns),
    }
    return CheckResult(largest_error(*(relative_error(found[name], expected[name]) for name in found)), KERNEL32)


def partition(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Compare sums over mini-batches that contain each pattern once with the updates of all; one batch is empty."""
    case = fitted_case(engine, rng)
    order, arrays = rng.permutation(len(case.problem)), case.on_device()
    batches = [*np.array_split(order, MINI_BATCHES), order[:0]]
    wanted = [Wanted(probe=True, patterns=True, rows=rows) for rows in (None, *batches)]
    whole, *parts = (dense(case.kernels, case.kernels.updates(*arrays, each)) for each in wanted)
    errors = []
    for name, expected in whole.items():
        values = [each[name] for each in parts]
        if name in PATTERNS:
            errors.append(relative_error(np.concatenate(values), expected[order]))
        else:
            errors.append(relative_error(np.sum(values, axis=0), expected))
    return CheckResult(largest_error(*errors), KERNEL32)


def phase_slopes(engine: EngineUnderTest, rng: np.random.Generator, draw: Case = kernel_case) -> CheckResult:
    """Compare the linearised smooth errors with the oracle's, and the coarse correction that follows from both."""
    case = draw(engine, rng)
    found = case.kernels.phase_slopes(*case.on_device())
    expected = oracle.phase_slopes(case.obj, case.probe, case.patterns)
    shape = case.obj.shape
    factors = [coarse_correction(slopes, shape, case.problem.N).factor for slopes in (found, expected)]
    errors = [relative_error(getattr(found, name), getattr(expected, name)) for name in vars(expected)]
    return CheckResult(largest_error(*errors, relative_error(*factors)), COARSE32)


def arithmetic(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Compare sums, products, division by a weight and norm on the device with NumPy in float64."""
    case = kernel_case(engine, rng)
    x, y = (complex_noise(rng, 9, 11).astype(np.complex64) for _ in range(2))
    weight = rng.uniform(0, 2, (9, 11)).astype(np.float32)
    kernels = case.kernels
    ours, other, divisor = (kernels.from_numpy(array) for array in (x, y, weight))
    found = (
        kernels.combine(1.5, ours, -0.5, other),
        kernels.multiply(ours, other),
        kernels.precondition(ours, divisor),
        kernels.precondition(ours, divisor, 0.5),
    )
    expected = (1.5 * x - 0.5 * y, x * y, *(x / (weight + share * weight.max()) for share in (0.02, 0.5)))
    errors = [relative_error(kernels.to_numpy(one), two) for one, two in zip(found, expected, strict=True)]
    norm = float((np.abs(x.astype(complex)) ** 2 * weight).sum())
    return CheckResult(largest_error(*errors, abs(kernels.norm(ours, divisor) / norm - 1)), KERNEL32)


def reconstruction(engine: EngineUnderTest, rng: np.random.Generator, update_probe: bool) -> CheckResult:
    """Compare a whole reconstruction with that of the NumPy kernels, on illuminated pixels."""
    case = kernel_case(engine, rng)
    options = SolverOptions(ITERATIONS, update_probe, step=0.5 if update_probe else 1.0)
    found, expected = (solve(case.problem, kernels, None, options).image for kernels in (case.kernels, NumpyKernels()))
    illuminated = expected.coverage > 0.05 * expected.coverage.max()
    return CheckResult(relative_error(found.obj[illuminated], expected.obj[illuminated]), RECONSTRUCTED)


CHECKS = (
    Check("backend_contract 10.3", "illumination", illumination, slow=True),
    Check("backend_contract 10.4", "object update", partial(update, name="obj"), slow=True),
    Check("backend_contract 10.4", "probe update", partial(update, name="probe"), slow=True),
    Check("backend_contract 10.4", "squared error and norm", squared_error, slow=True),
    Check("backend_contract 10.5", "phase slopes and coarse correction", phase_slopes, slow=True),
    Check("backend_contract 10.9", "fitted patterns: illumination", partial(illumination, draw=fitted_case), slow=True),
    Check(
        "backend_contract 10.9",
        "fitted patterns: object update",
        partial(update, name="obj", draw=fitted_case),
        slow=True,
    ),
    Check(
        "backend_contract 10.9",
        "fitted patterns: probe update",
        partial(update, name="probe", draw=fitted_case),
        slow=True,
    ),
    Check(
        "backend_contract 10.9",
        "fitted patterns: squared error and norm",
        partial(squared_error, draw=fitted_case),
        slow=True,
    ),
    Check("backend_contract 10.9", "fitted patterns: phase slopes", partial(phase_slopes, draw=fitted_case), slow=True),
    Check("backend_contract 10.9", "updates of positions, scales and background", pattern_updates, slow=True),
    Check("backend_contract 10.10", "normal equations", normal_equations, slow=True),
    Check("backend_contract 10.11", "updates of a mini-batch", mini_batch, slow=True),
    Check("backend_contract 10.11", "sums of mini-batches are those of all patterns", partition, slow=True),
    Check("backend_contract 10.6", "arithmetic on the device", arithmetic, slow=True),
    Check(
        "backend_contract 10.7", "reconstruction of the object", partial(reconstruction, update_probe=False), slow=True
    ),
    Check(
        "backend_contract 10.7",
        "reconstruction of object and probe",
        partial(reconstruction, update_probe=True),
        slow=True,
    ),
)
