"""
ePIE, the extended ptychographical iterative engine: one pattern after the other (spec: physics 8).

It refines a probe before training, and an image at the end. A Fourier shift of the probe represents
sub-pixel positions, exactly for a probe that fits its window.

References
----------
Maiden and Rodenburg, *An improved ptychographical phase retrieval algorithm for diffractive imaging*,
Ultramicroscopy 109 (2009).
Thibault and Menzel, *Reconstructing state mixtures from diffraction measurements*, Nature 494 (2013): modes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from ptycho_backend.data.image import Image
from ptycho_backend.data.scan import Scan
from ptycho_backend.engines.numpy.solver import constrain_exit_waves
from ptycho_backend.events import OnEvent, StageEvent, ThrottledProgress, ignore
from ptycho_backend.physics.calibration import Calibration, probe_weight
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.scan_geometry import AXES, abs2, probe_of, spectrum_of
from ptycho_backend.solver.stitching import stitch

OBJECT_STEP, PROBE_STEP = 1.0, 1.0  # relative to the full update
CACHE_BYTES = 512 * 2**20  # upper limit of cached shifted probes
STAGE = "ePIE"


@dataclass(eq=False)
class EpieResult:
    """Object image, probe (mode, y, x) in the calibration's scale, and the relative error of every iteration."""

    image: Image
    probe: NDArray[np.complex64]
    errors: list[float] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class EpieOptions:
    """
    Options of an ePIE reconstruction.

    Parameters
    ----------
    iterations : int
        Each visits every pattern once, in a random order.
    update_probe : bool
        Update the probe too, from the second iteration on.
    start : Image, optional
        Initial object; None: 1 everywhere.
    """

    iterations: int
    update_probe: bool = True
    start: Image | None = None


def epie(
    scan: Scan, calibration: Calibration, options: EpieOptions, rng: np.random.Generator, on_event: OnEvent = ignore
) -> EpieResult:
    """
    Reconstruct a scan by ePIE.

    Parameters
    ----------
    scan : Scan
    calibration : Calibration
        Scale of the data, and the initial probe.
    options : EpieOptions
    rng : numpy Generator
        Draws the order of the patterns.
    on_event : callable
        Receives a StageEvent with the current image after every iteration.

    Returns
    -------
    EpieResult
        ``errors`` are Σ(A − |ψ|)² / ΣA² over good pixels, each term before its pattern's update.
    """
    state = _EpieState(scan, calibration, options.start, cache_probes=not options.update_probe)
    progress = ThrottledProgress(on_event, STAGE, options.iterations)
    errors: list[float] = []
    for k in range(options.iterations):
        squared_error = norm = 0.0
        for done, row in enumerate(rng.permutation(len(scan))):
            pattern_error, pattern_norm = state.update(int(row), options.update_probe and k > 0)
            squared_error, norm = squared_error + pattern_error, norm + pattern_norm
            progress.report(k, done / len(scan))
        state.set_object_step()
        errors.append(squared_error / norm)
        on_event(StageEvent(STAGE, k + 1, options.iterations, f"error {errors[-1]:.3g}", state.current_image()))
    return EpieResult(state.current_image()(), state.probe(), errors)


def refine_by_epie(
    scan: Scan,
    calibration: Calibration,
    image: Image,
    iterations: int,
    rng: np.random.Generator,
    on_event: OnEvent = ignore,
) -> Image:
    """Refine an image by ePIE with a fixed probe."""
    if iterations == 0:
        return image
    return epie(scan, calibration, EpieOptions(iterations, update_probe=False, start=image), rng, on_event).image


class _EpieState:
    """Object, probe and data of an ePIE reconstruction, in the FFT's own pixel order."""

    def __init__(self, scan: Scan, calibration: Calibration, start: Image | None, cache_probes: bool) -> None:
        self._problem = Problem.of(scan, calibration)
        self._geometry, self._good = self._problem.geometry, self._problem.good
        self._obj = self._geometry.canvas(start)
        self._spectrum = spectrum_of(calibration.probe)
        self._cache: dict[int, NDArray[np.complex64]] = {}
        self._uses_cache = cache_probes and len(scan) * calibration.probe.nbytes < CACHE_BYTES
        self.set_object_step()

    def set_object_step(self) -> None:
        """Set the object step of the next iteration to 1 / max Σ_m|P_m|², from the current probe."""
        self._object_step = OBJECT_STEP / np.float32(abs2(self.probe()).sum(axis=0).max())

    def current_image(self) -> Callable[[], Image]:
        """Return a function that computes the image of the current object and probe."""
        return partial(self._image, self._obj.copy(), self.probe())

    def _image(self, obj: NDArray[np.complex64], probe: NDArray[np.complex64]) -> Image:
        """Return the object with the coverage of a stitched image: the summed probe weight."""
        scan = self._problem.scan
        ones = np.broadcast_to(np.complex64(1), (len(scan), scan.N, scan.N))
        flat = stitch(ones, scan.positions_px, probe_weight(probe), self._geometry.frame)
        covered = np.where(flat.coverage > 0, obj[:-1, :-1], 0).astype(np.complex64)
        return Image(covered, flat.coverage, flat.origin_px)

    def probe(self) -> NDArray[np.complex64]:
        """Return the probe, centred in its window."""
        return probe_of(self._spectrum)

    def update(self, row: int, update_probe: bool) -> tuple[float, float]:
        """Update object and probe by one pattern; return its Σ(A − |ψ|)² and ΣA²."""
        N = self._problem.N
        y, x = self._geometry.corners_px[row]
        patch = self._obj[y : y + N, x : x + N]
        x, probe = self._problem.amplitudes(slice(row, row + 1)), self._shifted_probe(row)
        wave = constrain_exit_waves((probe * patch)[None], x, self._good)
        if update_probe:
            self._update_probe(row, patch, wave.update[0])
        patch += self._object_step * (np.conj(probe) * wave.update[0]).sum(axis=0)
        return float(np.vdot(wave.residual, wave.residual)), float(np.vdot(x, x))

    def _shifted_probe(self, row: int) -> NDArray[np.complex64]:
        if row in self._cache:
            return self._cache[row]
        probe = self._geometry.shifted_probes(self._spectrum, slice(row, row + 1))[0]
        if self._uses_cache:
            self._cache[row] = probe
        return probe

    def _update_probe(self, row: int, patch: NDArray[Any], exit_wave_update: NDArray[Any]) -> None:
        step = np.float32(PROBE_STEP / max(float(abs2(patch).max()), 1e-12))
        gradient = scipy.fft.fft2(np.conj(patch) * exit_wave_update, axes=AXES, norm="ortho", overwrite_x=True)
        self._spectrum += step * np.conj(self._geometry.shift_ramps(slice(row, row + 1))[0]) * gradient
