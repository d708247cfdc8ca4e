"""
Fits of single patterns beside object and probe: positions, flux and background (spec: physics 9.8).

Positions have Nesterov momentum of their own. After some iterations, a fit is needed if its first step is
larger than what noise and an unfinished object cause. With "auto" it then starts.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.config import Switch
from ptycho_backend.engines.solver_contract import PatternParameters, PatternUpdates
from ptycho_backend.physics.calibration import MEAN_INTENSITY
from ptycho_backend.physics.momentum import momentum

# Iterations before a fit. The object then explains most of the data, and does not yet explain the background.
FIRST = {"background": 3, "flux": 6, "positions": 6}
CONTRADICTIONS_AT = (5, 11)  # iterations that look for patterns which contradict all others
SETTLING = 6  # iterations between the start of another fit and the decision about positions, which its cause also moves
POSITION_STEP = 0.5  # of the preconditioned update
LARGEST_STEP_PX = 0.5
LARGEST_LOG_SCALE = float(np.log(2))  # of an amplitude; an empty pattern would go on to 0
DAMPING = 0.1  # of the mean curvature: bounds the step where the object is flat
# A first step below these is no evidence: root mean square, and the share of the mean intensity. An opaque part of the
# object gives up to 0.026 and 1.2e-3 at this stage; flux of ± 10 % gives 0.05, and a background of 1 % 5e-3.
POSITION_EVIDENCE_PX, FLUX_EVIDENCE, BACKGROUND_EVIDENCE = 0.1, 0.035, 2.5e-3
# Of the standard deviation from noise alone. The object at this stage contains the noise of all patterns too:
# without any error, scans of 300 to 1e6 photons per pattern have factors up to 4.2 and 5.2.
POSITION_NOISE, FLUX_NOISE = 4.5, 6.0
CONVERGED_PX = 0.01  # root mean square of a step of the positions
Real = NDArray[np.float64]


@dataclass(frozen=True)
class Fits:
    """
    Switches of the fits.

    Parameters
    ----------
    positions, flux, background : {"auto", "on", "off"}
        "auto" fits what the data show to differ from what is given.
    """

    positions: Switch = "off"
    flux: Switch = "off"
    background: Switch = "off"


NO_FITS = Fits()


class PatternFits:
    """
    State of the fits in an iteration.

    Parameters
    ----------
    initial : PatternParameters
        Parameters as given.
    fits : Fits
    gauge : float64, shape (position, function)
        Functions that the logarithms of the scales have no part of: 1, and beside a free probe y and x. A probe times
        exp(−α·r), an object times exp(α·r) and scales times exp(−α·r_j) explain the patterns as before.
    """

    def __init__(self, initial: PatternParameters, fits: Fits, gauge: Real) -> None:
        self._fits, self._gauge = fits, gauge
        self.current, self._previous_px = initial, initial.shifts_px
        self._needed: dict[str, bool] = {}  # by name, once known
        self._position_steps, self._last_step_px = 0, np.inf
        self._last_start = -SETTLING  # of a fit of flux or background

    def wanted(self, k: int) -> bool:
        """Return whether iteration k needs the updates of single patterns."""
        return k in CONTRADICTIONS_AT or any(self.fits(name) or self._due(name, k) for name in FIRST)

    def fits(self, name: str) -> bool:
        """Return whether a fit has started."""
        switch: Switch = getattr(self._fits, name)
        return name in self._needed and (switch == "on" or (switch == "auto" and self._needed[name]))

    @property
    def active(self) -> bool:
        """Whether any fit has started."""
        return any(self.fits(name) for name in FIRST)

    def _due(self, name: str, k: int) -> bool:
        """Return whether iteration k decides about a fit; about positions some time after the start of another fit."""
        first = FIRST[name] if name != "positions" else max(FIRST[name], self._last_start + SETTLING)
        return k >= first and name not in self._needed

    @property
    def unfitted(self) -> tuple[str, ...]:
        """Names of the fits that are needed and switched off."""
        return tuple(name for name, needed in self._needed.items() if needed and not self.fits(name))

    @property
    def converged(self) -> bool:
        """Whether the positions have stopped, and no fit is still undecided."""
        undecided = any(name not in self._needed and getattr(self._fits, name) != "off" for name in FIRST)
        return not undecided and (not self.fits("positions") or self._last_step_px < CONVERGED_PX)

    def extrapolated(self) -> PatternParameters:
        """Return the parameters at which the next iteration computes its updates."""
        if not self.fits("positions"):
            return self.current
        factor = momentum(self._position_steps)
        ahead = self.current.shifts_px + factor * (self.current.shifts_px - self._previous_px)
        return dataclasses.replace(self.current, shifts_px=ahead)

    def update(self, updates: PatternUpdates, k: int, noise_variance: float) -> None:
        """
        Take one step of every fit in iteration k, from the extrapolated parameters.

        Noise of the amplitudes alone also causes a step; its variance is subtracted from the evidence.
        """
        ratio = updates.background / max(updates.background_weight, 1e-30)
        log_step = updates.scales / np.maximum(updates.scales_weight, 1e-30)
        log_scales = np.log(self.current.scales) + np.clip(log_step, -LARGEST_LOG_SCALE, LARGEST_LOG_SCALE)
        step_px = self._step_px(updates)
        noise_px = deviation(noise_variance, updates.positions_weight)
        noise = deviation(2 * noise_variance, updates.scales_weight)
        evidence = {
            "positions": rms(step_px) > np.hypot(POSITION_EVIDENCE_PX, POSITION_NOISE * noise_px),
            "flux": robust_spread(log_scales) > np.hypot(FLUX_EVIDENCE, FLUX_NOISE * noise),
            "background": ratio > BACKGROUND_EVIDENCE * MEAN_INTENSITY,
        }
        for name in FIRST:
            if self._due(name, k):
                self._needed[name] = bool(evidence[name])
                self._last_start = k if self.fits(name) and name != "positions" else self._last_start
        ahead = self.extrapolated()
        if self.fits("positions"):
            moved_px = ahead.shifts_px + POSITION_STEP * step_px
            self._previous_px, self._last_step_px = self.current.shifts_px, rms(moved_px - self.current.shifts_px)
            self._position_steps += 1
            self.current = dataclasses.replace(self.current, shifts_px=moved_px)
        if self.fits("flux"):
            self.set_scales(np.exp(log_scales))
        if self.fits("background"):
            self.current = dataclasses.replace(self.current, background=max(self.current.background + ratio, 0.0))

    def keep(self, rows: NDArray[np.intp], k: int) -> None:
        """Go on with some of the patterns; the others, left out in iteration k, have moved their neighbours."""
        self.current, self._previous_px = self.current.part(rows), self._previous_px[rows]
        self._gauge = self._gauge[rows]
        self._last_start = k

    def set_scales(self, scales: Real) -> None:
        """Replace the amplitude scales, within the gauge and a factor of 2."""
        logarithms = np.log(scales)
        logarithms = logarithms - self._gauge @ np.linalg.lstsq(self._gauge, logarithms, rcond=None)[0]
        scales = np.exp(np.clip(logarithms, -LARGEST_LOG_SCALE, LARGEST_LOG_SCALE))
        self.current = dataclasses.replace(self.current, scales=scales)

    @staticmethod
    def _step_px(updates: PatternUpdates) -> Real:
        """Return the full step of the positions, without its mean: a common shift moves the object only."""
        weight = updates.positions_weight
        step = updates.positions_px / (weight + DAMPING * weight.mean() + np.finfo(float).tiny)
        step = np.clip(step, -2 * LARGEST_STEP_PX, 2 * LARGEST_STEP_PX)
        return np.asarray(step - step.mean(axis=0))


def deviation(noise_variance: float, weight: Real) -> float:
    """Return the standard deviation of a preconditioned step from the noise of the amplitudes, of a median pattern."""
    return float(np.sqrt(noise_variance / max(float(np.median(weight)), np.finfo(float).tiny)))


def robust_spread(values: Real) -> float:
    """Return the standard deviation of a normal distribution with these quartiles; some outliers do not change it."""
    low, high = np.percentile(values, [25, 75])
    return float(high - low) / 1.349


def rms(values: Real) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(values**2)))
