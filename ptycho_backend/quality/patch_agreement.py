"""Agreement of predicted patches with the stitched image (spec: metrics 8.3, 8.6)."""

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
    Disagreement and contrast of the exit waves of patches and image.

    Parameters
    ----------
    disagreement : float64, shape (position,)
        Rms difference of the exit waves of patch and image, over the rms of the latter; 0 for equal waves.
    patch_contrast, image_contrast : float
        Share of the exit waves' energy orthogonal to the probe, 0 to 1: the effect of the object on the wave.
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
    Compare each predicted patch with the image, up to a constant phase.

    The comparison uses exit waves: the probe weights the pixels, and a Fourier shift needs no interpolation.

    Parameters
    ----------
    scan : Scan
    calibration : Calibration
        Calibration of the prediction, with its probe.
    predicted : Predicted
    image : Image
    chunk : int
        Groups per chunk.
    on_event : callable
        Receives StageEvents.

    Notes
    -----
    Spec: metrics 8.3 and 8.6.
    """
    exit_waves = _ExitWaves(scan, calibration.probe, predicted, image)
    squared_error, energy = np.zeros(len(scan)), np.zeros(len(scan))
    contrasts = np.zeros(4)
    for start in range(0, len(predicted.patches), chunk):
        groups = slice(start, start + chunk)
        rows = predicted.indices[groups].ravel()
        chunk_error, chunk_energy, chunk_contrasts = exit_waves.compare(predicted.patches[groups], rows)
        np.add.at(squared_error, rows, chunk_error)
        np.add.at(energy, rows, chunk_energy)
        contrasts += chunk_contrasts
        release(predicted.patches)
        on_event(StageEvent("agreement", min(groups.stop, len(predicted.patches)), len(predicted.patches)))
    patch, patch_all, image_part, image_all = (float(value) for value in np.maximum(contrasts, 1e-30))
    disagreement = np.sqrt(squared_error / np.maximum(energy, 1e-30))
    return PatchAgreement(disagreement, patch / patch_all, image_part / image_all)


class _ExitWaves:
    """Exit waves of patches and image on the image's pixels, inside the stitched part of each patch."""

    def __init__(self, scan: Scan, probe: NDArray[np.complex64], predicted: Predicted, image: Image) -> None:
        self._half = predicted.weight.shape[-1] // 2
        self._probe = np.zeros_like(probe)
        central(self._probe, self._half)[:] = central(probe, self._half) * (predicted.weight > 0)
        self._spectrum = spectrum_of(self._probe)
        self._geometry = ScanGeometry(scan)
        self._canvas = self._geometry.canvas(image)

    def compare(self, patches: NDArray[np.complex64], rows: NDArray[np.intp]) -> tuple[Real, Real, Real]:
        """
        Return |difference|² and |image|² of some positions, and four sums for the contrasts.

        Patches are (group, channel, y, x); `rows` are their positions in the same order.
        """
        waves = np.repeat(self._probe[None], len(rows), axis=0)
        central(waves, self._half)[:] *= patches.reshape(-1, 1, *patches.shape[2:])
        spectra = scipy.fft.fft2(waves, axes=AXES, norm="ortho", overwrite_x=True)
        of_patch = self._geometry.shifted_probes(spectra, rows)
        probes = self._geometry.shifted_probes(self._spectrum, rows)
        of_image = probes * self._geometry.extract_patches(self._canvas, rows)
        product = (of_patch * np.conj(of_image)).sum(axis=PIXELS, keepdims=True)
        phase_factor = np.conj(product) / np.maximum(np.abs(product), 1e-30)
        squared_error, energy = (
            abs2(wave).sum(axis=PIXELS, dtype=np.float64) for wave in (of_patch * phase_factor - of_image, of_image)
        )
        return squared_error, energy, np.array([*_contrast(of_patch, probes), *_contrast(of_image, probes)])


def _contrast(waves: NDArray[np.complex64], probes: NDArray[np.complex64]) -> tuple[float, float]:
    """Return Σ|ψ − c·P|² with the best c of every position, and Σ|ψ|²."""
    illumination = abs2(probes).sum(axis=PIXELS, dtype=np.float64)
    overlap = np.abs((waves * np.conj(probes)).sum(axis=PIXELS)) ** 2
    energy = abs2(waves).sum(axis=PIXELS, dtype=np.float64)
    return float((energy - overlap / illumination).sum()), float(energy.sum())
