"""Comparison of an engine's solver kernels with the oracle, and of whole reconstructions (backend_contract 10)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.config import ModelConfig
from ptycho_backend.engines.numpy.solver import NumpyKernels
from ptycho_backend.engines.solver_contract import SolverKernels
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


def illumination(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Compare the illumination with the oracle's."""
    case = kernel_case(engine, rng)
    found = case.kernels.to_numpy(case.kernels.illumination(case.on_device()[1]))
    return CheckResult(relative_error(found, oracle.illumination(case.probe, case.patterns, case.obj.shape)), KERNEL32)


def update(engine: EngineUnderTest, rng: np.random.Generator, name: str) -> CheckResult:
    """Compare the update of object or probe with the oracle's."""
    case = kernel_case(engine, rng)
    found = case.kernels.to_numpy(getattr(case.kernels.updates(*case.on_device(), True), name))
    expected = getattr(oracle.updates(case.obj, case.probe, case.patterns), name)
    return CheckResult(relative_error(found, expected), KERNEL32)


def squared_error(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Compare squared error and norm with the oracle's, and the weight of the probe update with its definition."""
    case = kernel_case(engine, rng)
    found, expected = case.kernels.updates(*case.on_device(), True), oracle.updates(case.obj, case.probe, case.patterns)
    patches = oracle.extract_patches(case.obj, case.patterns.corners_px, case.problem.N)
    errors = (
        abs(found.squared_error / expected.squared_error - 1),
        abs(found.norm / expected.norm - 1),
        relative_error(case.kernels.to_numpy(found.probe_weight), (np.abs(patches) ** 2).sum(axis=0)),
    )
    return CheckResult(largest_error(*errors), KERNEL32)


def phase_slopes(engine: EngineUnderTest, rng: np.random.Generator) -> CheckResult:
    """Compare the linearised smooth errors with the oracle's, and the coarse correction that follows from both."""
    case = kernel_case(engine, rng)
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
    ours, other, dense = (kernels.from_numpy(array) for array in (x, y, weight))
    found = (kernels.combine(1.5, ours, -0.5, other), kernels.multiply(ours, other), kernels.precondition(ours, dense))
    expected = (1.5 * x - 0.5 * y, x * y, x / (weight + 0.02 * weight.max()))
    errors = [relative_error(kernels.to_numpy(one), two) for one, two in zip(found, expected, strict=True)]
    norm = float((np.abs(x.astype(complex)) ** 2 * weight).sum())
    return CheckResult(largest_error(*errors, abs(kernels.norm(ours, dense) / norm - 1)), KERNEL32)


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
