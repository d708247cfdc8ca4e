"""
Object and probe at once: passes over all patterns that correct both (spec: physics 8.5).

A pass of ePIE leaves the noise of its last patterns in the probe; here every pattern has the same say in it.
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
from ptycho_backend.runtime.devices import processors
from ptycho_backend.solver.scan_geometry import AXES, abs2, probe_of, spectrum_of
from ptycho_backend.solver.solver import Canvas, Passes, bounded

SHARE = np.float32(0.5)  # of its correction that each takes: both answer the same misfit
STAGE = "probe"
Asked = tuple[NDArray[np.complex64], NDArray[np.float32]]  # spectrum of a probe's correction, and Σ|O|²


@dataclass(eq=False)
class JointResult:
    """Probe (mode, y, x) in the calibration's scale, and Σ(x − |ψ|)² / Σx² of every pass."""

    probe: NDArray[np.complex64]
    errors: list[float]


def joint_passes(
    scan: Scan,
    calibration: Calibration,
    start: Image,
    passes: int,
    update_probe: bool = True,
    on_event: OnEvent = ignore,
) -> JointResult:
    """
    Correct object and probe until they agree with all patterns.

    Parameters
    ----------
    scan : Scan
    calibration : Calibration
        Scale of the data, and the probe to start from.
    start : Image
        Object to start from.
    passes : int
    update_probe : bool
        False holds the probe, for comparison.
    on_event : callable
        Receives a StageEvent after every pass.

    Returns
    -------
    JointResult

    Notes
    -----
    Spec: physics 8.5. Source: the joint gradient of object and probe of the parallel PIE with Nesterov's momentum
    (1983) on both.
    """
    state = _JointPasses(scan, calibration)
    progress = ThrottledProgress(on_event, STAGE, passes)
    before = canvas = state.geometry.canvas(start)
    probe_before = probe = calibration.probe
    errors: list[float] = []
    with ThreadPoolExecutor(processors()) as pool:
        for k in range(passes):
            momentum = np.float32(k / (k + 3))
            ahead = canvas + momentum * (canvas - before)
            probe_ahead = probe + momentum * (probe - probe_before)
            state.turn_to(probe_ahead)
            before, canvas = canvas, ahead + SHARE * state.change(ahead, pool, partial(progress.report, k))
            if update_probe:
                probe_before, probe = probe, probe_ahead + SHARE * state.probe_change()
            errors.append(state.error)
            on_event(StageEvent(STAGE, k + 1, passes, f"error {state.error:.3g}"))
    return JointResult(probe, errors)


class _JointPasses(Passes):
    """Passes that also gather what all patterns ask of the probe."""

    def turn_to(self, probe: NDArray[np.complex64]) -> None:
        """Go on with another probe; nothing has been asked of it yet."""
        self._spectrum = spectrum_of(probe)
        self._asked = np.zeros_like(self._spectrum)
        self._light = np.zeros(probe.shape[-2:], dtype=np.float32)

    def probe_change(self) -> NDArray[np.complex64]:
        """Return Σ_j S_j⁻¹(Ō_j·change_j) / (Σ_j |O_j|² + 0.02·max), S_j the move to position j."""
        return np.asarray(probe_of(self._asked) / bounded(self._light))

    def _moved(self, rows: slice) -> NDArray[np.complex64]:
        return self.geometry.shifted_probes(self._spectrum, rows)  # another one at every pass

    def _of_probe(self, rows: slice, windows: Canvas, change: NDArray[np.complex64]) -> Asked:
        asked = scipy.fft.fft2(np.conj(windows) * change, axes=AXES, norm="ortho", overwrite_x=True)
        return (asked * np.conj(self.geometry.shift_ramps(rows))).sum(axis=0), abs2(windows[:, 0]).sum(axis=0)

    def _take(self, asked: Asked) -> None:
        self._asked += asked[0]
        self._light += asked[1]
