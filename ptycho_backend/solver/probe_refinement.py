"""Probe refinement before all other computations, on the patterns at the scan's centre (spec: physics 8.4)."""

from __future__ import annotations

import dataclasses
import logging
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.config import TrainingConfig
from ptycho_backend.data.probe_guess import FROM_PATTERNS, PROBE_GUESS, centred
from ptycho_backend.data.scan import Scan
from ptycho_backend.engines.numpy.solver import NumpyKernels
from ptycho_backend.engines.solver_contract import SolverKernels
from ptycho_backend.events import OnEvent, ignore, without_images
from ptycho_backend.physics.calibration import Calibration, calibrate
from ptycho_backend.physics.losses import expected_half_deviance, half_deviance
from ptycho_backend.solver.pattern_fits import Fits
from ptycho_backend.solver.probe_modes import orthogonal_modes, started_modes
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.registration import find_shift
from ptycho_backend.solver.scan_geometry import abs2, shifted_probe, spectrum_of
from ptycho_backend.solver.solver import SHARED_STEP, MiniBatches, Solution, SolverOptions, solve
from ptycho_backend.solver.unknown_probe import search_probe

MAX_PATTERNS = 300  # largest number of neighbouring patterns used
STAGE = "probe"
HELD_OUT = 5  # every fifth pattern decides, and takes no part
LOW_DOSE = 10.0  # photons per good pixel
# At high dose a free probe that explains other patterns as well gives the better image: with an exact guess 44.6 / 46.5
# dB against 43.8 / 45.5.
TIED = 1.03
SUSPECT = 4.0  # half-deviance of held-out patterns over the noise's: above it, another probe is searched
PARTLY_COHERENT = 2.0  # the same, above which modes are tried
MODE_BATCHES = 5  # iterations in mini-batches: modes then differ early
SEARCH_PATTERNS = 200
FOUND_FACTOR = 4  # iterations of a found probe over those of a guess
TRIMMED = 0.1  # of the held-out patterns, with the largest errors
CLEARLY_BETTER = 0.7  # error of a found probe over that of the guess: a defocused twin is never better by chance
REGISTRATIONS = 4  # the correlation's Hann window leaves a ninth of the shift each time

logger = logging.getLogger(__name__)


def refined_calibration(
    scan: Scan,
    calibration: Calibration,
    training: TrainingConfig,
    iterations: int,
    on_event: OnEvent = ignore,
    kernels: SolverKernels | None = None,
) -> tuple[Calibration, dict[str, Any]]:
    """
    Return the calibration with a refined probe, or unchanged if refinement does not lower the error.

    Parameters
    ----------
    scan : Scan
    calibration : Calibration
    training : TrainingConfig
        Provides model, photons and seed.
    iterations : int
        Iterations over object and probe; 0 changes nothing.
    on_event : callable
    kernels : SolverKernels, optional
        Kernels of an engine; None takes those of NumPy.

    Returns
    -------
    calibration : Calibration
    record : dict
        ``probe_refined`` and, after any iterations, ``probe_refinement_seconds`` and ``held_out_over_noise``.
    """
    if iterations == 0:
        return calibration, {"probe_refined": False}
    started = time.perf_counter()
    found = refine_probe(scan, calibration, iterations, on_event, kernels)
    seconds = time.perf_counter() - started
    logger.info("probe refinement: %s after %.1f s", "refined probe used" if found.used else "guess kept", seconds)
    if found.used:
        calibration = calibrate(scan, training.model, training.nphotons, found.probe)
    record = {"probe_refined": found.used, "probe_refinement_seconds": seconds}
    return calibration, record | {"held_out_over_noise": found.over_noise}


class Refinement(NamedTuple):
    """
    Result of a probe refinement.

    Parameters
    ----------
    probe : complex64, shape (mode, y, x)
        Refined probe, or the guess if it explains held-out patterns as well.
    used : bool
        True for the refined probe.
    over_noise : float
        Half-deviance of the held-out patterns over what photon noise alone causes; 0 without iterations.
    """

    probe: NDArray[np.complex64]
    used: bool
    over_noise: float


def refine_probe(
    scan: Scan,
    calibration: Calibration,
    iterations: int,
    on_event: OnEvent = ignore,
    kernels: SolverKernels | None = None,
) -> Refinement:
    """
    Refine a probe by updates of object and probe from a block of patterns, and compare its error on others.

    Parameters
    ----------
    scan : Scan
    calibration : Calibration
        Scale of the data, and the probe guess.
    iterations : int
        Iterations from a flat object.
    on_event : callable
    kernels : SolverKernels, optional
        Kernels of an engine; None takes those of NumPy, which also make the search in small mini-batches.

    Returns
    -------
    Refinement

    Notes
    -----
    Spec: physics 8.4, 8.5.
    """
    if iterations < 2:
        return Refinement(calibration.probe, False, 0.0)
    block = Problem.of(central_part(scan, MAX_PATTERNS), calibration)
    made = scan.attributes.get(PROBE_GUESS) == FROM_PATTERNS
    trials, listener = _Trials(block, iterations, kernels or NumpyKernels()), without_images(on_event)
    free, fixed = trials.run(calibration.probe, True, listener), trials.run(calibration.probe, False)
    best = free if free.error < trials.tied * fixed.error else fixed  # NaN is no better
    if made or not free.error > CLEARLY_BETTER * fixed.error:
        best = _beyond_the_guess(trials, best, made, listener)
    if best is fixed:
        return Refinement(calibration.probe, False, best.over_noise)
    several = len(best.probe) > 1 and np.isfinite(best.probe).all()
    probe = orthogonal_modes(best.probe) if several else best.probe
    # A spot that was made from the patterns has no outline of its own to correlate with: a ring would move onto it.
    probe = centred(probe) if made else centred_like(probe, calibration.probe)
    return Refinement(probe, True, best.over_noise)


def _beyond_the_guess(trials: _Trials, refined: _Trial, made: bool, on_event: OnEvent) -> _Trial:
    """Search for a probe and for modes, where a wrong guess is still wrong after its refinement."""
    best, start = refined, trials.used.calibration.probe
    if made or not best.over_noise < SUSPECT:
        near = central_rows(trials.used.scan.positions_px, SEARCH_PATTERNS)
        found = trials.run(search_probe(trials.used.part(near), on_event), True, on_event, factor=FOUND_FACTOR)
        if found.error < CLEARLY_BETTER * best.error:
            best, start = found, found.probe
    if best.over_noise > PARTLY_COHERENT and len(start) == 1:
        order = np.random.default_rng(len(trials.used))
        modes = trials.run(started_modes(start), True, on_event, MiniBatches(MODE_BATCHES, order))
        best = modes if modes.error < CLEARLY_BETTER * best.error else best
    return best


@dataclass(frozen=True, eq=False)
class _Trial:
    """A probe after its iterations, and its error on patterns that took no part."""

    probe: NDArray[np.complex64]
    error: float
    over_noise: float  # half-deviance over what photon noise alone causes


class _Trials:
    """Block of patterns of which every fifth is held out."""

    def __init__(self, block: Problem, iterations: int, kernels: SolverKernels) -> None:
        held_out = np.arange(len(block)) % HELD_OUT == HELD_OUT // 2
        self.used, self._held_out = (block.part(np.flatnonzero(rows)) for rows in (~held_out, held_out))
        self._iterations, self._kernels = iterations, kernels
        self._low_dose = _low_dose(self._held_out)
        self.tied = 1.0 if self._low_dose else TIED

    def run(
        self,
        probe: NDArray[np.complex64],
        update_probe: bool,
        on_event: OnEvent = ignore,
        batches: MiniBatches | None = None,
        factor: int = 1,
    ) -> _Trial:
        """Reconstruct the block from a flat object with a probe, and measure the error of the held-out patterns."""
        calibration = dataclasses.replace(self.used.calibration, probe=probe)
        iterations = factor * self._iterations + (batches.iterations if batches else 0)
        # A free probe would take a background for its own light, and unequal flux for noise.
        fits = Fits(flux="auto", background="auto")
        options = SolverOptions(iterations, update_probe, SHARED_STEP, fits, stage=STAGE, batches=batches)
        problem = dataclasses.replace(self.used, calibration=calibration)
        solution = solve(problem, self._kernels, None, options, on_event)
        return _Trial(solution.probe, *_held_out_error(self._held_out, solution, self._low_dose))


def _held_out_error(problem: Problem, solution: Solution, low_dose: bool) -> tuple[float, float]:
    """
    Return the error of patterns that took no part in a solution, and their half-deviance over its expectation.

    The error is that of the amplitudes, or at low dose of the counts.

    At low dose the mean of √counts lies below √(mean counts). A free probe fits that difference too, in held-out
    patterns as in others, and ruins the image. The half-deviance of the counts is free of it. At high dose it would
    weigh the dark pixels alone, where few photons decide.
    """
    scan, calibration, rows = problem.scan, problem.calibration, slice(0, len(problem))
    canvas, spectrum = problem.geometry.canvas(solution.image), spectrum_of(solution.probe)
    experiment = solution.experiment
    expected = problem.geometry.intensities(canvas, spectrum, rows) + experiment.background
    expected *= calibration.counts_per_intensity
    counts = scan.counts(rows).astype(np.float64) * calibration.photon_scale
    if (experiment.scales != 1).any():  # flux differs: each held-out pattern has that which suits it
        sums = ((each * scan.mask).sum(axis=(1, 2), keepdims=True) for each in (counts, expected))
        expected = expected * (next(sums) / np.maximum(next(sums), 1e-30))
    deviances = (half_deviance(expected, counts) * scan.mask).sum(axis=(1, 2))
    noise = (expected_half_deviance(expected) * scan.mask).sum(axis=(1, 2))
    over_noise = trimmed_mean(deviances) / max(trimmed_mean(noise), 1e-30)
    if low_dose:
        return trimmed_mean(deviances), over_noise
    return trimmed_mean(((np.sqrt(counts) - np.sqrt(expected)) ** 2 * scan.mask).sum(axis=(1, 2))), over_noise


def trimmed_mean(values: NDArray[np.float64]) -> float:
    """Return the mean without the largest tenth: patterns that contradict all others decide nothing. NaN stays NaN."""
    kept = np.sort(values)[: max(1, int(np.ceil((1 - TRIMMED) * len(values))))]
    return float(kept.mean()) if np.isfinite(values).all() else float("nan")


def _low_dose(problem: Problem) -> bool:
    """Return whether a good pixel has few photons."""
    counts = problem.scan.counts(slice(0, len(problem)))[:, problem.scan.mask]
    return bool(counts.mean(dtype=np.float64) * problem.calibration.photon_scale < LOW_DOSE)


def centred_like(probe: NDArray[np.complex64], guess: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """
    Shift a probe (mode, y, x) to the position of its guess.

    Diffraction data do not fix it: the same shift of probe and object explains them equally well.
    """
    shift_px = np.zeros(2)
    for _ in range(REGISTRATIONS):
        shift_px -= drift_px(shifted_probe(probe, shift_px), guess)
    return shifted_probe(probe, shift_px)  # one shift only: each loses some of the finest detail


def drift_px(probe: NDArray[np.complex64], guess: NDArray[np.complex64]) -> NDArray[np.float64]:
    """
    Return the shift (y, x) of a probe (mode, y, x) from its guess, by correlation of their amplitudes.

    Correlation follows the outline. The centre of mass would also follow the distribution of intensity within it,
    which refinement changes.
    """
    amplitude, expected = (np.sqrt(abs2(modes).sum(axis=0)) for modes in (probe, guess))
    return find_shift(amplitude, expected, probe.shape[-1] / 4)


def central_part(scan: Scan, n: int) -> Scan:
    """Return the n patterns nearest to the scan's centre."""
    return scan.subset(central_rows(scan.positions_px, n))


def central_rows(positions_px: NDArray[np.float64], n: int) -> NDArray[np.intp]:
    """Return the n positions nearest to the scan's centre, in scan order."""
    centre = (positions_px.min(axis=0) + positions_px.max(axis=0)) / 2
    nearest = np.argsort(((positions_px - centre) ** 2).sum(axis=1), kind="stable")[:n]
    return np.sort(nearest)
