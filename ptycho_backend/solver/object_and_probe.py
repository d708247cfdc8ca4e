"""
Object and probe reconstruction from all patterns at once: parallel PIE with Nesterov momentum (spec: physics 8.5).

ePIE leaves the noise of its last patterns in the probe; here every pattern has equal weight.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from ptycho_backend.data.image import Image
from ptycho_backend.data.scan import Scan
from ptycho_backend.events import OnEvent, StageEvent, ThrottledProgress, ignore
from ptycho_backend.physics.calibration import Calibration
from ptycho_backend.physics.momentum import extrapolate
from ptycho_backend.runtime.devices import processors
from ptycho_backend.solver.scan_geometry import AXES, abs2, probe_of, spectrum_of
from ptycho_backend.solver.solver import Canvas, SolverState, regularised

STEP = np.float32(0.5)  # object and probe update each correct the same residual
STAGE = "probe"
ProbeGradient = tuple[NDArray[np.complex64], NDArray[np.float32]]  # spectrum of the gradient, and Σ|O|²


@dataclass(eq=False)
class ObjectAndProbeResult:
    """Probe (mode, y, x) in the calibration's scale, and Σ(x − |ψ|)² / Σx² of every iteration."""

    probe: NDArray[np.complex64]
    errors: list[float]


def update_object_and_probe(
    scan: Scan,
    calibration: Calibration,
    start: Image,
    iterations: int,
    update_probe: bool = True,
    on_event: OnEvent = ignore,
) -> ObjectAndProbeResult:
    """
    Reconstruct object and probe from all patterns.

    Parameters
    ----------
    scan : Scan
    calibration : Calibration
        Scale of the data, and the initial probe.
    start : Image
        Initial object.
    iterations : int
    update_probe : bool
        False keeps the probe fixed, for comparison.
    on_event : callable
        Receives a StageEvent after every iteration.

    Returns
    -------
    ObjectAndProbeResult

    Notes
    -----
    Spec: physics 8.5.

    References
    ----------
    Nesterov (1983): momentum, here on object and probe.
    """
    state = _ObjectAndProbeState(scan, calibration)
    progress = ThrottledProgress(on_event, STAGE, iterations)
    previous = canvas = state.geometry.canvas(start)
    previous_probe = probe = calibration.probe
    errors: list[float] = []
    with ThreadPoolExecutor(processors()) as pool:
        for k in range(iterations):
            extrapolated = extrapolate(canvas, previous, k)
            extrapolated_probe = extrapolate(probe, previous_probe, k)
            state.set_probe(extrapolated_probe)
            object_update = state.object_update(extrapolated, pool, partial(progress.report, k))
            previous, canvas = canvas, extrapolated + STEP * object_update
            if update_probe:
                previous_probe, probe = probe, extrapolated_probe + STEP * state.probe_update()
            errors.append(state.error)
            on_event(StageEvent(STAGE, k + 1, iterations, f"error {state.error:.3g}"))
    return ObjectAndProbeResult(probe, errors)


class _ObjectAndProbeState(SolverState):
    """Solver state that also sums the probe gradients of all patterns."""

    def set_probe(self, probe: NDArray[np.complex64]) -> None:
        """Set the probe of the next iteration, and its gradient to 0."""
        self._spectrum = spectrum_of(probe)
        self._gradient_spectrum = np.zeros_like(self._spectrum)
        self._object_intensity = np.zeros(probe.shape[-2:], dtype=np.float32)

    def probe_update(self) -> NDArray[np.complex64]:
        """Return Σ_j S_j⁻¹(Ō_j·Δψ_j) / (Σ_j |O_j|² + 0.02·max), S_j the shift to position j."""
        return np.asarray(probe_of(self._gradient_spectrum) / regularised(self._object_intensity))

    def _shifted_probes(self, rows: slice) -> Canvas:
        return self.geometry.shifted_probes(self._spectrum, rows)  # not cached: the probe changes

    def _probe_gradient(self, rows: slice, patches: Canvas, exit_wave_update: Canvas) -> ProbeGradient:
        spectra = scipy.fft.fft2(np.conj(patches) * exit_wave_update, axes=AXES, norm="ortho", overwrite_x=True)
        spectrum = (spectra * np.conj(self.geometry.shift_ramps(rows))).sum(axis=0)
        return spectrum, abs2(patches[:, 0]).sum(axis=0)

    def _accumulate(self, probe_gradient: ProbeGradient) -> None:
        self._gradient_spectrum += probe_gradient[0]
        self._object_intensity += probe_gradient[1]
