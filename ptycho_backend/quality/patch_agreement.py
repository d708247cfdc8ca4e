"""Whether what a network predicts of single patterns fits the image that all of them make (spec: metrics 8.3, 8.6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from ptycho_backend.data.image import Image
from ptycho_backend.data.scan import Scan
from ptycho_backend.events import OnEvent, StageEvent, ignore
from ptycho_backend.network.prediction import Predicted
from ptycho_backend.physics.calibration import Calibration
from ptycho_backend.runtime.memory_map import release
from ptycho_backend.solver.scan_geometry import AXES, ScanGeometry, abs2, spectrum_of
from ptycho_backend.solver.stitching import central

PIXELS = (-3, -2, -1)  # mode, y, x
Real = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PatchAgreement:
    """
    How patches compare with the image.

    Parameters
    ----------
    disagreement : float64, shape (position,)
        Rms of exit wave of the patch minus exit wave of the image, over the rms of the latter; 0 is agreement.
    patch_contrast, image_contrast : float
        Share of the exit waves that is no multiple of the probe: what the object does to the wave, 0 to 1.
    """

    disagreement: Real
    patch_contrast: float
    image_contrast: float


def patch_agreement(
    scan: Scan,
    calibration: Calibration,
    predicted: Predicted,
    image: Image,
    chunk: int,
    on_event: OnEvent = ignore,
) -> PatchAgreement:
    """
    Compare each predicted patch with the image, its constant phase aside.

    Exit waves are compared, where the probe says what counts and a fraction of a pixel can be moved without
    interpolation.

    Parameters
    ----------
    scan : Scan
    calibration : Calibration
        Whose probe the patches were predicted with.
    predicted : Predicted
    image : Image
    chunk : int
        Groups compared at a time.
    on_event : callable
        Receives StageEvents.

    Notes
    -----
    Spec: metrics 8.3 and 8.6.
    """
    state = _Exits(scan, calibration.probe, predicted, image)
    misfit, energy = np.zeros(len(scan)), np.zeros(len(scan))
    contrasts = np.zeros(4)
    for start in range(0, len(predicted.patches), chunk):
        chosen = slice(start, start + chunk)
        rows = predicted.indices[chosen].ravel()
        wrong, seen, parts = state.compared(predicted.patches[chosen], rows)
        np.add.at(misfit, rows, wrong)
        np.add.at(energy, rows, seen)
        contrasts += parts
        release(predicted.patches)
        on_event(StageEvent("agreement", min(chosen.stop, len(predicted.patches)), len(predicted.patches)))
    patch, patch_all, whole, whole_all = (float(value) for value in np.maximum(contrasts, 1e-30))
    return PatchAgreement(np.sqrt(misfit / np.maximum(energy, 1e-30)), patch / patch_all, whole / whole_all)


class _Exits:
    """Exit waves of patches and of the image, on the image's pixels, as far as patches are stitched."""

    def __init__(self, scan: Scan, probe: NDArray[np.complex64], predicted: Predicted, image: Image) -> None:
        self._half = predicted.weight.shape[-1] // 2
        self._probe = np.zeros_like(probe)
        central(self._probe, self._half)[:] = central(probe, self._half) * (predicted.weight > 0)
        self._spectrum = spectrum_of(self._probe)
        self._geometry = ScanGeometry(scan)
        self._canvas = self._geometry.canvas(image)

    def compared(self, patches: NDArray[np.complex64], rows: NDArray[np.intp]) -> tuple[Real, Real, Real]:
        """
        Return |difference|² and |image|² of some positions, and four sums of which contrasts are made.

        Patches are (group, channel, y, x), rows the positions of all of them in turn.
        """
        waves = np.repeat(self._probe[None], len(rows), axis=0)
        central(waves, self._half)[:] *= patches.reshape(-1, 1, *patches.shape[2:])
        spectra = scipy.fft.fft2(waves, axes=AXES, norm="ortho", overwrite_x=True)
        own = self._geometry.shifted_probes(spectra, rows)
        probes = self._geometry.shifted_probes(self._spectrum, rows)
        common = probes * self._geometry.extract_patches(self._canvas, rows)
        product = (own * np.conj(common)).sum(axis=PIXELS, keepdims=True)
        turn = np.conj(product) / np.maximum(np.abs(product), 1e-30)
        wrong, seen = (abs2(part).sum(axis=PIXELS, dtype=np.float64) for part in (own * turn - common, common))
        parts = [*_contrast(own, probes), *_contrast(common, probes)]
        return wrong, seen, np.array(parts)


def _contrast(waves: NDArray[np.complex64], probes: NDArray[np.complex64]) -> tuple[float, float]:
    """Return Σ|ψ − c·P|² with the best c of every position, and Σ|ψ|²."""
    light = abs2(probes).sum(axis=PIXELS, dtype=np.float64)
    overlap = np.abs((waves * np.conj(probes)).sum(axis=PIXELS)) ** 2
    energy = abs2(waves).sum(axis=PIXELS, dtype=np.float64)
    return float((energy - overlap / light).sum()), float(energy.sum())
