"""
Iterative reconstruction from all patterns: parallel PIE with Nesterov momentum and coarse corrections.

One loop serves every engine and every setting: the object alone, or with the probe, and with positions, flux and
background of the patterns. Each iteration sums the updates of all patterns, weighted by illumination. After some
iterations a coarse correction removes what varies over many probes, and a probe correction what defocuses probe and
object together (spec: physics 7.7, 7.8, 8.5, 9).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.image import Experiment, Image
from ptycho_backend.engines.solver_contract import (
    KernelUpdates,
    PatternParameters,
    PatternUpdates,
    SolverKernels,
    Wanted,
)
from ptycho_backend.events import OnEvent, StageEvent, ThrottledProgress, ignore
from ptycho_backend.physics.calibration import SUPPORT_FLOOR, probe_weight
from ptycho_backend.physics.momentum import momentum
from ptycho_backend.solver.coarse_correction import Flux, coarse_correction
from ptycho_backend.solver.contradicting_patterns import contradicting_patterns
from ptycho_backend.solver.pattern_fits import CONTRADICTIONS_AT, NO_FITS, Fits, PatternFits
from ptycho_backend.solver.probe_correction import probe_correction
from ptycho_backend.solver.probe_modes import orthogonal_modes
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.stitching import support_half_px

STAGE = "iterations"
MIN_ITERATIONS, MAX_ITERATIONS = 6, 64  # if no number is given
UPDATE_TOLERANCE = 1.2e-4  # the solver stops below this relative object update,
NOISE_TOLERANCE = 6e-3  # or below this fraction of the relative amplitude residual
COARSE_AT = (3, 6, 9, 12, 16, 24, 32, 48)  # iterations that a coarse correction follows
COARSE_TOLERANCE_RAD = 2e-3  # a correction below it does not hold the iterations up
PROBE_TOLERANCE_RAD = 5e-3  # the same for a probe correction
BATCH_REGULARISATION = 0.1  # of the largest weight: a mini-batch leaves much of the object in the dark
SHARED_STEP = 0.5  # of the updates, if probe or scales correct the same residual as the object
COARSE_RATIO = 0.7  # a correction larger than this fraction of the previous one is noise, and the last


@dataclass(frozen=True)
class MiniBatches:
    """
    First iterations, in mini-batches: object and probe change after each of them, without momentum.

    Parameters
    ----------
    iterations : int
    order : numpy Generator
        Draws the order of the patterns.
    size : int
        Patterns of a mini-batch.
    """

    iterations: int
    order: np.random.Generator
    size: int = 16


@dataclass(frozen=True)
class SolverOptions:
    """
    Settings of the iterations.

    Parameters
    ----------
    iterations : int, optional
        Number of iterations; None: until convergence, at most 64.
    update_probe : bool
        Update the probe in every iteration too.
    step : float, optional
        Fraction of the preconditioned update; None: 0.5 if object and probe correct the same residual, else 1.
    fits : Fits
        Fits of positions, flux and background.
    coarse : bool
        Apply coarse corrections.
    stage : str
        Name of the stage in events.
    batches : MiniBatches, optional
        First iterations in mini-batches; None for none.
    """

    iterations: int | None = None
    update_probe: bool = False
    step: float | None = None
    fits: Fits = NO_FITS
    coarse: bool = True
    stage: str = STAGE
    batches: MiniBatches | None = None


@dataclass(eq=False)
class Solution:
    """
    Result of the iterations.

    Parameters
    ----------
    image : Image
        With its experiment: probe, positions, scales and background.
    probe : complex64, shape (mode, y, x)
        Probe in the calibration's scale.
    errors : list of float
        Σ(x − |ψ|)² / Σx² over good pixels, in every iteration.
    """

    image: Image
    probe: NDArray[np.complex64]
    errors: list[float] = field(default_factory=list)

    @property
    def experiment(self) -> Experiment:
        """Experiment of the image, which the iterations always fill in."""
        return cast(Experiment, self.image.experiment)


def solve(
    problem: Problem,
    kernels: SolverKernels,
    start: Image | None = None,
    options: SolverOptions | None = None,
    on_event: OnEvent = ignore,
) -> Solution:
    """
    Reconstruct an object, with its probe or with a fixed one.

    Parameters
    ----------
    problem : Problem
        Data, geometry, and the initial probe.
    kernels : SolverKernels
        Kernels of an engine; their arrays stay on the device until the end.
    start : Image, optional
        Initial object; None: 1 everywhere.
    options : SolverOptions, optional
    on_event : callable
        Receives a StageEvent after every iteration, with the error and the current image.

    Returns
    -------
    Solution
        Its image has the pixels and coverage of `start`, or those of all windows without one.

    Notes
    -----
    Spec: physics 7.7, 7.8, 8.5, 9.

    References
    ----------
    Rodenburg and Faulkner (2004): object update of PIE, here for all patterns in parallel.
    Nesterov (1983): momentum. Xu et al. (2018): momentum in accelerated Wirtinger flow.
    """
    options = options or SolverOptions()
    if options.iterations == 0 and start is not None:
        probe = problem.calibration.probe
        experiment = Experiment.given(probe, problem.scan.positions_px)
        return Solution(dataclasses.replace(start, experiment=experiment), probe)
    iteration = _Iteration(problem, kernels, start, options, on_event)
    errors = []
    for _ in range(options.iterations if options.iterations is not None else MAX_ITERATIONS):
        errors.append(iteration.advance())
        if iteration.finished:
            break
    return Solution(iteration.image(), kernels.to_numpy(iteration.probe), errors)


class _Iteration:
    """State of the loop: current and previous object and probe on the device."""

    def __init__(
        self, problem: Problem, kernels: SolverKernels, start: Image | None, options: SolverOptions, on_event: OnEvent
    ) -> None:
        self._problem, self._kernels, self._options, self._on_event = problem, kernels, options, on_event
        self._rows, self._given_px = np.arange(len(problem)), problem.scan.positions_px
        kernels.load(problem)
        self.obj = self._previous = kernels.from_numpy(problem.geometry.canvas(start))
        self.probe = self._previous_probe = kernels.from_numpy(problem.calibration.probe)
        progress = ThrottledProgress(on_event, "illumination", len(problem))
        self._illumination = kernels.illumination(self.probe, progress.report)
        progress.finish()
        self._start = start if start is not None else self._covered()
        ones = np.ones((len(problem), 1))
        gauge = np.hstack([ones, problem.scan.positions_px]) if options.update_probe else ones
        self.fits = PatternFits(PatternParameters.of(problem.geometry), options.fits, gauge)
        default = SHARED_STEP if options.update_probe else 1.0
        self._step = default if options.step is None else options.step
        self._done, self._coarse_left, self._last_phase_rad = 0, options.coarse, np.inf
        self._converged, self._last_probe_rad = False, np.inf

    @property
    def finished(self) -> bool:
        """Whether no iteration is left, or the object and its coarse corrections have converged."""
        if self._options.iterations is not None:
            return self._done == self._options.iterations
        coarse = not self._coarse_left or self._last_phase_rad < COARSE_TOLERANCE_RAD
        probe = not self._options.update_probe or self._last_probe_rad < PROBE_TOLERANCE_RAD
        converged = self._converged and coarse and (probe or self._done > COARSE_AT[-1]) and self.fits.converged
        return self._done == MAX_ITERATIONS or (self._done >= MIN_ITERATIONS and converged)

    def advance(self) -> float:
        """Compute one iteration; return its relative squared error."""
        batches = self._options.batches
        if batches is not None and self._done < batches.iterations:
            return self._advance_in_batches(batches)
        k, kernels, update_probe = self._done, self._kernels, self._options.update_probe
        extrapolated = self._extrapolated(self.obj, self._previous)
        probe = self._extrapolated(self.probe, self._previous_probe) if update_probe else self.probe
        report = self._report(ThrottledProgress(self._on_event, self._options.stage, self._total(k + 1)), k)
        wanted = Wanted(update_probe, self.fits.wanted(k))
        if self.fits.active:
            kernels.set_parameters(self.fits.extrapolated())
        updates = kernels.updates(extrapolated, probe, wanted, report)
        squared_error = updates.squared_error
        error = squared_error / max(updates.norm, 1e-30)
        if update_probe:
            self._illumination = updates.illumination
        elif self.fits.active:
            self._illumination = kernels.illumination(self.probe)  # positions and scales are part of it
        object_update = kernels.precondition(updates.obj, self._illumination)
        step = min(self._step, SHARED_STEP) if self.fits.fits("flux") else self._step
        self._previous, self.obj = self.obj, kernels.combine(1.0, extrapolated, step, object_update)
        if update_probe:
            self._update_probe(probe, updates)
        if updates.patterns is not None:
            squared_error -= self._fit_patterns(updates.patterns, k, self._noise_variance(squared_error))
        if self.fits.active:
            kernels.set_parameters(self.fits.current)
        self._converged = self._is_small(object_update, error)
        self._done += 1
        if self._coarse_left and self._done in COARSE_AT:
            self._correct(squared_error)
        if update_probe and self._options.coarse and self._done in COARSE_AT[1:]:
            self._correct_probe()
        self._report_iteration(error)
        return error

    def _fit_patterns(self, updates: PatternUpdates, k: int, noise_variance: float) -> float:
        """Fit single patterns, and leave out those that contradict the others; return the squared error of these."""
        had_flux = self.fits.fits("flux")
        self.fits.update(updates, k, noise_variance)
        if self.fits.fits("flux") and not had_flux:  # the corrections then start afresh
            self._coarse_left, self._last_phase_rad = self._options.coarse, np.inf
        if k not in CONTRADICTIONS_AT:
            return 0.0
        wrong = contradicting_patterns(updates.squared_errors)
        if wrong.any():
            self._leave_out(wrong, k)
        return float(updates.squared_errors[wrong].sum())

    def _leave_out(self, wrong: NDArray[np.bool_], k: int) -> None:
        """Go on without some patterns."""
        rows = np.flatnonzero(~wrong)
        self._rows, self._problem = self._rows[rows], self._problem.part(rows)
        self.fits.keep(rows, k)
        self._kernels.load(self._problem)
        self._kernels.set_parameters(self.fits.current)
        self._illumination = self._kernels.illumination(self.probe)

    def _advance_in_batches(self, batches: MiniBatches) -> float:
        """Compute one iteration in mini-batches; return the relative squared error, each term before its update."""
        kernels, update_probe, squared_error, norm = self._kernels, self._options.update_probe, 0.0, 0.0
        order = batches.order.permutation(len(self._problem))
        for start in range(0, len(order), batches.size):
            wanted = Wanted(True, rows=order[start : start + batches.size])
            updates = kernels.updates(self.obj, self.probe, wanted)
            step = kernels.precondition(updates.obj, updates.illumination, BATCH_REGULARISATION)
            self.obj = kernels.combine(1.0, self.obj, 1.0, step)
            if update_probe:
                step = kernels.precondition(updates.probe, updates.probe_weight, BATCH_REGULARISATION)
                self.probe = kernels.combine(1.0, self.probe, 1.0, step)
            squared_error, norm = squared_error + updates.squared_error, norm + updates.norm
        self._previous, self._previous_probe = self.obj, self.probe
        self._illumination = kernels.illumination(self.probe)
        self._done += 1
        error = squared_error / max(norm, 1e-30)
        self._report_iteration(error)
        return error

    def _report_iteration(self, error: float) -> None:
        total = self._done if self.finished else self._total(self._done)
        current = partial(self.image, self.obj)
        self._on_event(StageEvent(self._options.stage, self._done, total, f"error {error:.3g}", current, float(error)))

    def image(self, obj: Any = None) -> Image:
        """Return the object on the pixels of the initial image, with the experiment."""
        canvas, start = self._kernels.to_numpy(self.obj if obj is None else obj), self._start
        fitted, geometry, n = self.fits.current, self._problem.geometry, len(self._given_px)
        positions_px, scales = self._given_px.copy(), np.ones(n)
        positions_px[self._rows] += fitted.shifts_px - geometry.shifts_px
        scales[self._rows] = fitted.scales
        probe = self._kernels.to_numpy(self.probe)
        if self._options.update_probe and len(probe) > 1 and np.isfinite(probe).all():
            probe = orthogonal_modes(probe, smallest_share=0.0)
        left_out = tuple(np.setdiff1d(np.arange(n), self._rows).tolist())
        experiment = Experiment(
            probe, positions_px, self._given_px, scales, fitted.background, self.fits.unfitted, left_out
        )
        origin = np.asarray(start.origin_px) - np.asarray(geometry.frame.origin_px)
        y, x = np.rint(origin).astype(int)
        height, width = start.obj.shape
        covered = np.where(start.coverage > 0, canvas[y : y + height, x : x + width], 0)
        return Image(covered.astype(np.complex64), start.coverage, start.origin_px, experiment)

    def _extrapolated(self, current: Any, previous: Any) -> Any:
        factor = momentum(self._done)
        return self._kernels.combine(1.0 + factor, current, -factor, previous) if factor else current

    def _update_probe(self, extrapolated: Any, updates: KernelUpdates) -> None:
        update = self._kernels.precondition(updates.probe, updates.probe_weight)
        combined = self._kernels.combine(1.0, extrapolated, self._step, update)
        self._previous_probe, self.probe = self.probe, combined

    def _is_small(self, object_update: Any, error: float) -> bool:
        """Return whether the relative object update is below the tolerance (spec: physics 7.8)."""
        tolerance = max(UPDATE_TOLERANCE, NOISE_TOLERANCE * float(np.sqrt(error)))
        norms = (self._kernels.norm(each, self._illumination) for each in (object_update, self.obj))
        return next(norms) < tolerance**2 * next(norms)

    def _correct(self, squared_error: float) -> None:
        """Multiply both objects of the momentum by the coarse correction, which so keeps its direction."""
        kernels, problem = self._kernels, self._problem
        slopes = kernels.phase_slopes(self.obj, self.probe)
        scales = self.fits.current.scales if self.fits.fits("flux") else None
        variance = self._noise_variance(squared_error)
        flux = Flux(scales, variance, self._options.update_probe) if scales is not None else None
        correction = coarse_correction(slopes, problem.geometry.canvas_shape, problem.N, flux)
        if correction.scales is not None:
            self.fits.set_scales(correction.scales)
            kernels.set_parameters(self.fits.current)
        factor = kernels.from_numpy(correction.factor)
        self.obj, self._previous = kernels.multiply(self.obj, factor), kernels.multiply(self._previous, factor)
        smaller = correction.phase_rad < COARSE_RATIO * self._last_phase_rad
        self._coarse_left = smaller and self._done < COARSE_AT[-1]
        self._last_phase_rad = correction.phase_rad

    def _noise_variance(self, squared_error: float) -> float:
        """Return the variance of one measured amplitude, as the residual has it."""
        return squared_error / (len(self._problem) * self._problem.good_pixels)

    def _correct_probe(self) -> None:
        """Filter objects and probes of the momentum by the probe correction."""
        kernels = self._kernels
        correction = probe_correction(kernels, self.obj, self.probe, len(self._problem))
        self._last_probe_rad = correction.phase_rad
        arrays = (self.obj, self._previous, self.probe, self._previous_probe)
        filtered = [kernels.from_numpy(correction.apply(kernels.to_numpy(array))) for array in arrays]
        self.obj, self._previous, self.probe, self._previous_probe = filtered

    def _total(self, done: int) -> int:
        """Return the total that an event of iteration `done` reports."""
        if self._options.iterations is not None:
            return self._options.iterations
        return MIN_ITERATIONS if done < MIN_ITERATIONS else MAX_ITERATIONS

    def _report(self, progress: ThrottledProgress, k: int) -> Callable[[int], None]:
        n = len(self._problem)
        return lambda patterns: progress.report(k, patterns / n)

    def _covered(self) -> Image:
        """Return the canvas without the object: coverage is the illumination over the peak intensity of the probe."""
        geometry, weight = self._problem.geometry, probe_weight(self._problem.calibration.probe)
        peak = float((np.abs(self._problem.calibration.probe) ** 2).sum(axis=0).max())
        count = geometry.window_count(support_half_px(weight.astype(np.float32)))
        coverage = np.where(count > 0, self._kernels.to_numpy(self._illumination) / peak + SUPPORT_FLOOR * count, 0)
        height, width = geometry.frame.shape
        coverage = coverage[:height, :width].astype(np.float32)
        return Image(np.zeros((height, width), np.complex64), coverage, geometry.frame.origin_px)
