"""
ePIE: iterative reconstruction, used to refine a probe before training and to polish an image (spec: physics 8).

Source: Maiden and Rodenburg, *An improved ptychographical phase retrieval algorithm for diffractive imaging*,
Ultramicroscopy 109 (2009); incoherent modes after Thibault and Menzel, Nature 494 (2013). Positions between
pixels are met by shifting the probe in Fourier space, which is exact for a probe that fits its window.
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
from ptycho_backend.events import OnEvent, StageEvent, ThrottledProgress, ignore
from ptycho_backend.physics.calibration import Calibration, probe_weight
from ptycho_backend.solver.scan_geometry import AXES, ScanGeometry, abs2, probe_of, spectrum_of
from ptycho_backend.solver.stitching import stitch

OBJECT_STEP = 1.0  # share of the full correction given to the object
PROBE_STEP = 1.0  # and to the probe
CACHE_BYTES = 512 * 2**20  # shifted probes are kept where they fit in this
STAGE = "ePIE"


@dataclass(eq=False)
class EpieResult:
    """Object image, probe (mode, y, x) in the calibration's scale, and the relative error of every pass."""

    image: Image
    probe: NDArray[np.complex64]
    errors: list[float] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Plan:
    """
    What a reconstruction by ePIE goes through.

    Parameters
    ----------
    passes : int
        Visits of every pattern, in an order drawn anew for each pass.
    update_probe : bool
        Correct the probe too, from the second pass on.
    start : Image, optional
        Object to start from; None starts from 1 everywhere.
    """

    passes: int
    update_probe: bool = True
    start: Image | None = None


def epie(
    scan: Scan, calibration: Calibration, plan: Plan, rng: np.random.Generator, on_event: OnEvent = ignore
) -> EpieResult:
    """
    Reconstruct a scan by ePIE.

    Parameters
    ----------
    scan : Scan
    calibration : Calibration
        Scale of the data, and the probe to start from.
    plan : Plan
    rng : numpy Generator
    on_event : callable
        Receives a StageEvent after every pass, with the image so far.

    Returns
    -------
    EpieResult
        ``errors`` holds Σ(A − |ψ|)² / ΣA² over good pixels, as met during each pass.
    """
    state = _State(scan, calibration, plan.start, cache_probes=not plan.update_probe)
    progress = ThrottledProgress(on_event, STAGE, plan.passes)
    errors: list[float] = []
    for number in range(plan.passes):
        wrong = energy = 0.0
        for visited, row in enumerate(rng.permutation(len(scan))):
            misfit, seen = state.visit(int(row), plan.update_probe and number > 0)
            wrong, energy = wrong + misfit, energy + seen
            progress.report(number, visited / len(scan))
        state.end_pass()
        errors.append(wrong / energy)
        on_event(StageEvent(STAGE, number + 1, plan.passes, f"error {errors[-1]:.3g}", state.image_so_far()))
    return EpieResult(state.image(), state.probe(), errors)


def polish(
    scan: Scan,
    calibration: Calibration,
    image: Image,
    passes: int,
    rng: np.random.Generator,
    on_event: OnEvent = ignore,
) -> Image:
    """Polish a stitched image by passes of ePIE with the probe as it is."""
    if passes == 0:
        return image
    return epie(scan, calibration, Plan(passes, update_probe=False, start=image), rng, on_event).image


class _State:
    """Object, probe and data of a running ePIE, in the FFT's own pixel order."""

    def __init__(self, scan: Scan, calibration: Calibration, start: Image | None, cache_probes: bool) -> None:
        self._scan, self._r = scan, np.float32(calibration.rms_input_scale)
        self._geometry = ScanGeometry(scan)
        self._obj = self._geometry.canvas(start)
        self._good = np.fft.ifftshift(scan.mask)
        self._all_good = bool(scan.mask.all())
        self._spectrum = spectrum_of(calibration.probe)
        n_bytes = len(scan) * calibration.probe.nbytes
        self._cache: dict[int, NDArray[np.complex64]] | None = {} if cache_probes and n_bytes < CACHE_BYTES else None
        self._brightest = self._peak()

    def end_pass(self) -> None:
        """Take the step of the next pass from the probe as it is now."""
        self._brightest = self._peak()

    def image(self) -> Image:
        """Return the object; coverage is the summed probe weight, as for a stitched image."""
        return self.image_so_far()()

    def image_so_far(self) -> Callable[[], Image]:
        """Return what makes the image of the object and probe as they are now."""
        return partial(self._image, self._obj.copy(), self.probe())

    def _image(self, obj: NDArray[np.complex64], probe: NDArray[np.complex64]) -> Image:
        N = self._scan.N
        flat = np.broadcast_to(np.complex64(1), (len(self._scan), N, N))
        coverage = stitch(flat, self._scan.positions_px, probe_weight(probe)).coverage
        seen = np.where(coverage > 0, obj[:-1, :-1], 0).astype(np.complex64)
        return Image(seen, coverage, self._geometry.frame.origin_px)

    def probe(self) -> NDArray[np.complex64]:
        """Return the probe, centred in its window."""
        return probe_of(self._spectrum)

    def visit(self, row: int, update_probe: bool) -> tuple[float, float]:
        """Correct the object, and the probe where asked for, by one pattern; return its Σ(A − |ψ|)² and ΣA²."""
        N = self._scan.N
        y, x = self._geometry.corners_px[row]
        patch = self._obj[y : y + N, x : x + N]
        amplitude = np.fft.ifftshift(self._scan.amplitude(slice(row, row + 1))[0]) * self._r
        probe = self._shifted_probe(row)
        waves = probe * patch
        detector = scipy.fft.fft2(waves, axes=AXES, norm="ortho")
        predicted = np.sqrt(abs2(detector).sum(axis=0))
        ratio = amplitude / np.maximum(predicted, 1e-9)
        if not self._all_good:
            ratio[~self._good] = 1.0
        change = scipy.fft.ifft2(detector * ratio, axes=AXES, norm="ortho", overwrite_x=True)
        change -= waves
        if update_probe:
            self._correct_probe(row, patch, change)
        patch += (OBJECT_STEP / self._brightest) * (np.conj(probe) * change).sum(axis=0)
        misfit = (amplitude - predicted) if self._all_good else (amplitude - predicted)[self._good]
        seen = amplitude if self._all_good else amplitude[self._good]
        return float(np.vdot(misfit, misfit)), float(np.vdot(seen, seen))

    def _shifted_probe(self, row: int) -> NDArray[np.complex64]:
        if self._cache is not None and row in self._cache:
            return self._cache[row]
        moved = self._geometry.shifted_probes(self._spectrum, slice(row, row + 1))[0]
        if self._cache is not None:
            self._cache[row] = moved
        return moved

    def _correct_probe(self, row: int, patch: NDArray[Any], change: NDArray[Any]) -> None:
        step = PROBE_STEP / max(float(abs2(patch).max()), 1e-12)
        correction = scipy.fft.fft2(np.conj(patch) * change, axes=AXES, norm="ortho", overwrite_x=True)
        self._spectrum += np.float32(step) * np.conj(self._geometry.shift_ramps(slice(row, row + 1))[0]) * correction

    def _peak(self) -> np.float32:
        return np.float32(abs2(self.probe()).sum(axis=0).max())
