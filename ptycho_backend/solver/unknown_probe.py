"""
Search for a probe without a guess, or beside a poor one (spec: physics 8.6).

The far field of a probe has, to good accuracy, the amplitude of the mean pattern. Its phase is unknown, and defocus is
most of it. Probes of both signs of defocus are tried on a block of patterns, in a few mini-batch iterations from a
flat object. Their errors have one broad minimum, around which finer defocus and astigmatism are tried.

References
----------
Rodenburg and Maiden, *Ptychography*, Springer Handbook of Microscopy (2019): defocused probes, and their starts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.data.image import Image
from ptycho_backend.data.probe_guess import centred, filled, spot, unit_curvature
from ptycho_backend.engines.numpy.solver import NumpyKernels
from ptycho_backend.events import OnEvent, StageEvent, ignore
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.solver import MiniBatches, SolverOptions, solve

BLURS = (0.03, 0.06, 0.09, 0.12, 0.15, 0.18, 0.22, 0.26, 0.31)
GRID = tuple(sorted([0.0, *BLURS, *(-blur for blur in BLURS)]))  # blur by defocus over the side of a pattern
TRIALS = 40  # about as many in one search
ROUNDS = ((2, 5), (5, 1))  # iterations from the start, and how many of the best go on
LAST = 5  # iterations of a trial that is compared with the best
FINISH = 25  # iterations of the best
ASTIGMATISM = 0.25  # first trial, of the defocus
LARGEST_STEP = 1.5  # of these trials, that the vertex of a parabola may lie away
Complex = NDArray[np.complex64]
STAGE = "probe search"


@dataclass(frozen=True)
class Candidate:
    """
    Probe to try.

    Parameters
    ----------
    probe : complex64, shape (mode, y, x)
    blur : float, optional
        Blur by the defocus of a spot, root mean square over the side of a pattern, with its sign; None for a guess.
    """

    probe: Complex = field(repr=False, compare=False)
    blur: float | None = None


@dataclass(eq=False)
class Trial:
    """Iterations of one candidate on a block of patterns."""

    problem: Problem
    candidate: Candidate
    image: Image | None = None
    errors: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.probe = self.candidate.probe

    def advance(self, iterations: int) -> float:
        """Go on to a number of iterations from the start; return the error of the last."""
        more = iterations - len(self.errors)
        if more > 0:
            calibration = dataclasses.replace(self.problem.calibration, probe=self.probe)
            problem = dataclasses.replace(self.problem, calibration=calibration)
            batches = MiniBatches(more, np.random.default_rng(len(self.errors)))
            options = SolverOptions(more, update_probe=True, coarse=False, batches=batches)
            solution = solve(problem, NumpyKernels(), self.image, options)
            self.image, self.probe = solution.image, solution.probe
            self.errors += solution.errors
        return self.errors[iterations - 1]


def search_probe(block: Problem, on_event: OnEvent = ignore) -> Complex:
    """
    Return the probe that explains a block of patterns best, after some iterations.

    Parameters
    ----------
    block : Problem
        Neighbouring patterns, with the guess in the calibration.
    on_event : callable
        Receives a StageEvent after every trial.

    Returns
    -------
    complex64, shape (mode, y, x)
        In the calibration's scale.
    """
    search = _Search(block, on_event)
    trials = [Trial(block, candidate) for candidate in search.candidates()]
    for iterations, keep in ROUNDS:
        trials = search.best_of(trials, iterations)[:keep]
    best = search.finer(trials[0])
    best.advance(FINISH)
    return best.probe


def spots(block: Problem, blurs: Sequence[float]) -> list[Complex]:
    """Return spots (mode, y, x) with the far field of the mean pattern, one for each blur (see :class:`Candidate`)."""
    search = _Search(block, ignore)
    return [search.spot(blur).probe for blur in blurs]


class _Search:
    """Trials on a block of patterns."""

    def __init__(self, block: Problem, on_event: OnEvent) -> None:
        self._block, self._on_event, self._done = block, on_event, 0
        x = np.fft.fftshift(block.amplitudes(slice(0, len(block))), axes=(-2, -1))
        self._mean = filled((x.astype(np.float64) ** 2).mean(axis=0), block.scan.mask)
        self._unit = unit_curvature(self._mean) * block.N

    def candidates(self) -> list[Candidate]:
        """Return the guess, the guess in the middle of its window, and spots of different defocus."""
        guess = self._block.calibration.probe
        middle = centred(guess)
        guesses = [guess] if np.array_equal(middle, guess) else [guess, middle]
        return [*(Candidate(each) for each in guesses), *(self.spot(blur) for blur in GRID)]

    def best_of(self, trials: list[Trial], iterations: int) -> list[Trial]:
        """Return trials by their errors after some iterations, the best first."""
        for trial in trials:
            trial.advance(iterations)
            self._done += 1
            self._on_event(StageEvent(STAGE, min(self._done, TRIALS), TRIALS))
        return sorted(trials, key=lambda trial: trial.errors[iterations - 1])

    def finer(self, best: Trial) -> Trial:
        """Try defocus half a step of the grid away, then astigmatism along two directions and at their vertex."""
        blur = best.candidate.blur
        if blur is None:
            return best
        at = GRID.index(blur)
        halfway = [(blur + other) / 2 for other in (*GRID[max(at - 1, 0) : at], *GRID[at + 1 : at + 2])]
        best = self._best_with(best, [self.spot(each) for each in halfway])
        blur = best.candidate.blur or 0.0
        pairs = [
            [self.spot(blur, (s * u, s * v)) for s in (-1, 1)] for u, v in ((ASTIGMATISM, 0.0), (0.0, ASTIGMATISM))
        ]
        trials = [[Trial(self._block, candidate) for candidate in pair] for pair in pairs]
        self.best_of([trial for pair in trials for trial in pair], LAST)
        steps = [vertex(*(trial.errors[LAST - 1] for trial in (low, best, high))) for low, high in trials]
        both = self.spot(blur, (ASTIGMATISM * steps[0], ASTIGMATISM * steps[1]))
        best = self._best_with(best, [both])
        return self.best_of([best, *trials[0], *trials[1]], LAST)[0]

    def _best_with(self, best: Trial, others: list[Candidate]) -> Trial:
        return self.best_of([best, *(Trial(self._block, candidate) for candidate in others)], LAST)[0]

    def spot(self, blur: float, astigmatism: tuple[float, float] = (0.0, 0.0)) -> Candidate:
        """Return a spot with this blur; astigmatism is a fraction of its defocus."""
        curvature = blur * self._unit
        y_x = (astigmatism[0] * abs(curvature), astigmatism[1] * abs(curvature))
        return Candidate(spot(self._mean, curvature, y_x), blur)


def vertex(low: float, middle: float, high: float) -> float:
    """Return the minimum of the parabola through three errors at −1, 0 and 1, not far outside."""
    bend = low + high - 2 * middle
    step = 0.5 * (low - high) / bend if bend > 0 else np.sign(low - high)
    return float(np.clip(step, -LARGEST_STEP, LARGEST_STEP))
