"""Solver kernels in NumPy and SciPy: chunks of patterns on a thread for each processor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from ptycho_backend.engines.solver_contract import (
    REGULARISATION,
    KernelUpdates,
    Report,
    SolverKernels,
    require_shapes,
    summed,
)
from ptycho_backend.physics.updates import BACKGROUND, PhaseSlopes
from ptycho_backend.runtime.devices import processors
from ptycho_backend.runtime.thread_map import QUEUED_PER_WORKER, ordered_pool_map
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.scan_geometry import AXES, abs2, probe_of, spectrum_of, sum_modes

CHUNK_PIXELS = 64**3  # patterns of one chunk, in pixels; small enough for the processor's cache
TINY = np.finfo(np.float32).tiny  # a dark exit wave has no centre
CACHE_BYTES = 512 * 2**20  # amplitudes and shifted probes are saved where they fit in this
Complex = NDArray[np.complex64]
Real = NDArray[np.float32]


class ChunkUpdate(NamedTuple):
    """Sums over one chunk of patterns; `obj` (position, y, x) is not yet scattered."""

    rows: slice
    obj: Complex
    probe_spectrum: Complex | None
    probe_weight: Real | None
    squared_error: float
    norm: float


class NumpyKernels(SolverKernels):
    """Kernels on the processor. Sums run in the order of the patterns, so they are equal for any number of threads."""

    device = "cpu"

    def load(self, problem: Problem) -> None:
        """Set the data of a scan; patterns stay where they are and are read by chunks."""
        self._problem, self._geometry, self._good = problem, problem.geometry, problem.good
        self._saved: dict[tuple[str, int], NDArray[Any]] = {}
        self._spectrum_of: tuple[Any, Complex] | None = None
        self._amplitudes_fit = len(problem) * problem.N**2 * 4 <= CACHE_BYTES

    def from_numpy(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the array in single precision."""
        return np.asarray(array, dtype=np.complex64 if np.iscomplexobj(array) else np.float32)

    def to_numpy(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a copy."""
        return array.copy()

    def illumination(self, probe: Complex, report: Report | None = None) -> Real:
        """Return Σ_j Σ_m |P_jm|², shape (y, x)."""
        require_shapes(self._geometry, probe)
        total = np.zeros(self._geometry.canvas_shape, dtype=np.float32)
        for rows, values in self._map(partial(self._intensity, self._begin(probe))):
            self._geometry.scatter_add(total, values, rows)
            if report is not None:
                report(rows.stop)
        return total

    def updates(
        self, obj: Complex, probe: Complex, probe_too: bool = False, report: Report | None = None
    ) -> KernelUpdates:
        """Return the sums over all patterns."""
        require_shapes(self._geometry, probe, obj)
        spectrum = self._begin(probe)
        total, squared_error, norm = np.zeros_like(obj), 0.0, 0.0
        probe_spectrum = np.zeros_like(spectrum) if probe_too else None
        probe_weight = np.zeros(probe.shape[-2:], dtype=np.float32) if probe_too else None
        for part in self._map(partial(self._chunk_update, obj, spectrum, probe_too)):
            self._geometry.scatter_add(total, part.obj, part.rows)
            squared_error, norm = squared_error + part.squared_error, norm + part.norm
            if probe_too:
                probe_spectrum += part.probe_spectrum
                probe_weight += part.probe_weight
            if report is not None:
                report(part.rows.stop)
        probe_update = probe_of(probe_spectrum) if probe_spectrum is not None else None
        return KernelUpdates(total, probe_update, probe_weight, squared_error, norm)

    def phase_slopes(self, obj: Complex, probe: Complex) -> PhaseSlopes:
        """Return the linearised smooth errors of all patterns."""
        require_shapes(self._geometry, probe, obj)
        return summed(list(self._map(partial(self._slopes, obj, self._begin(probe)))))

    def combine(self, a: float, x: NDArray[Any], b: float, y: NDArray[Any]) -> NDArray[Any]:
        """Return a·x + b·y."""
        out = np.float32(a) * x
        out += np.float32(b) * y
        return np.asarray(out)

    def multiply(self, x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
        """Return x·y."""
        return np.asarray(x * y)

    def precondition(self, update: NDArray[Any], weight: Real) -> NDArray[Any]:
        """Return update / (weight + 0.02·max weight)."""
        return np.asarray(update / (weight + np.float32(REGULARISATION) * weight.max()))

    def norm(self, x: NDArray[Any], weight: Real) -> float:
        """Return Σ weight·|x|²."""
        rows = np.einsum("yx,yx->y", abs2(x), weight)
        return float(rows.sum(dtype=np.float64))

    def _begin(self, probe: Complex) -> Complex:
        """Return the probe's spectrum; drop the saved arrays of another probe."""
        if self._spectrum_of is None or self._spectrum_of[0] is not probe:
            self._saved = {key: value for key, value in self._saved.items() if key[0] == "amplitudes"}
            self._spectrum_of = (probe, spectrum_of(probe))
        return self._spectrum_of[1]

    def _chunks(self) -> Iterator[slice]:
        size, n = max(1, CHUNK_PIXELS // self._problem.N**2), len(self._problem)
        return (slice(start, min(start + size, n)) for start in range(0, n, size))

    def _map(self, function: Callable[[slice], Any]) -> Iterator[Any]:
        with ThreadPoolExecutor(processors()) as pool:
            yield from ordered_pool_map(pool, function, self._chunks(), QUEUED_PER_WORKER * processors())

    def _intensity(self, spectrum: Complex, rows: slice) -> tuple[slice, Real]:
        return rows, sum_modes(abs2(self._probes(spectrum, rows)))

    def _chunk_update(self, obj: Complex, spectrum: Complex, probe_too: bool, rows: slice) -> ChunkUpdate:
        x, probes, patches = self._amplitudes(rows), self._probes(spectrum, rows), self._patches(obj, rows)
        exit_wave_update, residual = constrain_exit_waves(probes * patches, x, self._good)
        object_update = sum_modes(np.conj(probes) * exit_wave_update)
        probe_spectrum = probe_weight = None
        if probe_too:
            back = scipy.fft.fft2(np.conj(patches) * exit_wave_update, axes=AXES, norm="ortho", overwrite_x=True)
            probe_spectrum = (back * np.conj(self._geometry.shift_ramps(rows))).sum(axis=0)
            probe_weight = abs2(patches[:, 0]).sum(axis=0)
        squared_error, norm = float(np.vdot(residual, residual)), float(np.vdot(x, x))
        return ChunkUpdate(rows, object_update, probe_spectrum, probe_weight, squared_error, norm)

    def _slopes(self, obj: Complex, spectrum: Complex, rows: slice) -> PhaseSlopes:
        x, N = self._amplitudes(rows), self._problem.N
        exit_waves = self._probes(spectrum, rows) * self._patches(obj, rows)
        intensity = sum_modes(abs2(exit_waves))
        axis, total = np.arange(N, dtype=np.float32), np.maximum(intensity.sum(axis=(1, 2)), TINY)
        # Sums, not a product with a vector: BLAS rounds a row differently in another chunk.
        sums = [(intensity.sum(axis=other) * axis).sum(axis=1) for other in (2, 1)]
        centres = np.stack(sums, axis=1) / total[:, None]
        detector = scipy.fft.fft2(exit_waves, axes=AXES, norm="ortho")
        amplitude = modelled_amplitude(detector)
        tangents = []
        for along in ((axis - centres[:, :1])[:, None, :, None], (axis - centres[:, 1:])[:, None, None, :]):
            moment = scipy.fft.fft2(exit_waves * along, axes=AXES, norm="ortho", overwrite_x=True)
            # Re(Ψ̄·F(i·y·ψ)) = −Im(Ψ̄·F(y·ψ))
            tangents.append(sum_modes(detector.imag * moment.real - detector.real * moment.imag) / amplitude)
        jacobian = np.stack([*tangents, amplitude], axis=1)
        residual = x - amplitude
        if self._good is not None:
            jacobian *= self._good
            residual *= self._good
        jacobian, flat = jacobian.reshape(len(x), 3, -1), residual.reshape(len(x), -1, 1)
        return PhaseSlopes(
            information=(jacobian @ jacobian.swapaxes(1, 2)).astype(np.float64),
            gradient=(jacobian @ flat)[..., 0].astype(np.float64),
            centres_px=self._geometry.corners_px[rows] + centres.astype(np.float64),
        )

    def _patches(self, obj: Complex, rows: slice) -> Complex:
        return self._geometry.extract_patches(obj, rows)

    def _amplitudes(self, rows: slice) -> Real:
        return self._save("amplitudes", rows, self._amplitudes_fit, lambda: self._problem.amplitudes(rows))

    def _probes(self, spectrum: Complex, rows: slice) -> Complex:
        """Return the probe shifted to the positions of a chunk, (position, mode, y, x)."""
        n_bytes = len(self._problem) * (self._problem.N**2 * 4 + spectrum.nbytes)
        return self._save("probes", rows, n_bytes <= CACHE_BYTES, lambda: self._geometry.shifted_probes(spectrum, rows))

    def _save(self, name: str, rows: slice, fits: bool, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Return the array of a chunk; it is made once where those of all chunks fit."""
        if not fits:
            return make()
        key = (name, rows.start)
        if key not in self._saved:
            self._saved[key] = make()
        return self._saved[key]


def modelled_amplitude(detector: Complex) -> Real:
    """Return sqrt(Σ_m|Ψ_m|² + 1e-8), shape (position, y, x), of detector waves (position, mode, y, x)."""
    amplitude = sum_modes(abs2(detector))
    amplitude += np.float32(BACKGROUND)
    return np.sqrt(amplitude, out=amplitude)


def constrain_exit_waves(exit_waves: Complex, x: Real, good: Real | None) -> tuple[Complex, Real]:
    """
    Apply the amplitude constraint: return the exit-wave update F⁻¹((x − a)·Ψ/a) and the residual x − a.

    Parameters
    ----------
    exit_waves : complex64, shape (position, mode, y, x)
        Overwritten.
    x : float32, shape (position, y, x)
        Measured amplitude, in the order of the FFT.
    good : float32, shape (y, x), optional
        0 on bad pixels, whose residual is 0; None: all pixels are good.

    Notes
    -----
    Spec: physics 9.1, 9.2.
    """
    detector = scipy.fft.fft2(exit_waves, axes=AXES, norm="ortho", overwrite_x=True)
    amplitude = modelled_amplitude(detector)
    residual = x - amplitude
    if good is not None:
        residual *= good
    detector *= (residual / amplitude)[:, None]
    return scipy.fft.ifft2(detector, axes=AXES, norm="ortho", overwrite_x=True), residual
