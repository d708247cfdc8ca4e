"""Solver kernels in NumPy and SciPy: chunks of patterns on a thread for each processor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from ptycho_backend.engines.solver_contract import (
    COLUMNS,
    OBJECT_ONLY,
    REGULARISATION,
    KernelUpdates,
    PatternParameters,
    PatternUpdates,
    Report,
    SolverKernels,
    Wanted,
    require_shapes,
    summed,
)
from ptycho_backend.physics.updates import BACKGROUND, DARK, NormalEquations, PhaseSlopes
from ptycho_backend.runtime.devices import processors
from ptycho_backend.runtime.thread_map import ordered_map
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.scan_geometry import (
    AXES,
    Rows,
    abs2,
    probe_of,
    shift_ramps,
    shift_slopes,
    spectrum_of,
    sum_modes,
)

CHUNK_PIXELS = 2**17  # patterns of one chunk, in pixels; with three modes they fit in the processor's cache
TINY = np.finfo(np.float32).tiny  # a dark exit wave has no centre
CACHE_BYTES = 512 * 2**20  # amplitudes and shifted probes are saved where they fit in this
Complex = NDArray[np.complex64]
Real = NDArray[np.float32]
Double = NDArray[np.float64]


class ProbeParts(NamedTuple):
    """Sums for the probe over one chunk of patterns; `intensity` (position, y, x) is not yet scattered."""

    intensity: Real
    spectrum: Complex
    weight: Real


class ChunkUpdate(NamedTuple):
    """Sums over one chunk of patterns; `obj` (position, y, x) is not yet scattered."""

    rows: Rows
    obj: Complex
    squared_error: float
    norm: float
    probe: ProbeParts | None
    patterns: Double | None


class NumpyKernels(SolverKernels):
    """Kernels on the processor. Sums run in the order of the patterns, so they are equal for any number of threads."""

    device = "cpu"

    def load(self, problem: Problem) -> None:
        """Read the amplitudes of a scan by chunks; where they do not fit, patterns stay where they are."""
        self._problem, self._geometry, self._good = problem, problem.geometry, problem.good
        self._saved: dict[int, Complex] = {}
        self._spectrum_of: tuple[Any, Complex] | None = None
        self.set_parameters(PatternParameters.of(problem.geometry))
        self._measured: Real | None = None
        if len(problem) * problem.N**2 * 4 <= CACHE_BYTES:
            measured = np.empty((len(problem), problem.N, problem.N), dtype=np.float32)
            for rows, x in self._map(lambda rows: (rows, problem.amplitudes(rows))):
                measured[rows] = x
            self._measured = measured

    def set_parameters(self, parameters: PatternParameters) -> None:
        """Set positions, scales and background of the patterns."""
        self._parameters, self._spectrum_of = parameters, None
        self._scaled = bool((parameters.scales != 1.0).any())
        self._epsilon = np.float32(parameters.background + BACKGROUND)

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
        done = 0
        for rows, values in self._map(partial(self._intensity, self._begin(probe))):
            self._geometry.scatter_add(total, values, rows)
            done += len(values)
            if report is not None:
                report(done)
        return total

    def updates(
        self, obj: Complex, probe: Complex, wanted: Wanted = OBJECT_ONLY, report: Report | None = None
    ) -> KernelUpdates:
        """Return the sums over all patterns, or over those of a mini-batch."""
        require_shapes(self._geometry, probe, obj)
        spectrum = self._begin(probe)
        # np.zeros takes fresh memory, of which a mini-batch touches only its windows; np.zeros_like writes all of it.
        total, illumination = np.zeros(obj.shape, dtype=obj.dtype), np.zeros(obj.shape, dtype=np.float32)
        probe_spectrum, weight = np.zeros_like(spectrum), np.zeros(probe.shape[-2:], dtype=np.float32)
        squared_error, norm, done, patterns = 0.0, 0.0, 0, [np.empty((0, COLUMNS))]
        for part in self._map(partial(self._chunk_update, obj, spectrum, wanted), wanted.rows):
            self._geometry.scatter_add(total, part.obj, part.rows)
            squared_error, norm = squared_error + part.squared_error, norm + part.norm
            if part.probe is not None:
                self._geometry.scatter_add(illumination, part.probe.intensity, part.rows)
                probe_spectrum += part.probe.spectrum
                weight += part.probe.weight
            if part.patterns is not None:
                patterns.append(part.patterns)
            done += len(part.obj)
            if report is not None:
                report(done)
        updates = KernelUpdates(total, squared_error, norm)
        if wanted.patterns:
            updates = replace(updates, patterns=PatternUpdates.of(np.concatenate(patterns)))
        if not wanted.probe:
            return updates
        return replace(updates, illumination=illumination, probe=probe_of(probe_spectrum), probe_weight=weight)

    def normal_equations(
        self,
        obj: Complex,
        probe: Complex,
        objects: Sequence[Complex],
        probes: Sequence[Complex],
        rows: NDArray[np.intp],
    ) -> NormalEquations:
        """Return the least squares of patterns `rows` over directions of object and probe."""
        require_shapes(self._geometry, probe, obj)
        spectra = [spectrum_of(each) for each in (probe, *probes)]
        n = len(objects)
        information, gradient = np.zeros((n, n)), np.zeros(n)
        for part in self._map(partial(self._equations, (obj, *objects), spectra), rows):
            information, gradient = information + part.information, gradient + part.gradient
        return NormalEquations(information, gradient)

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

    def precondition(self, update: NDArray[Any], weight: Real, regularisation: float = REGULARISATION) -> NDArray[Any]:
        """Return update / (weight + regularisation·max weight)."""
        return np.asarray(update / (weight + np.float32(regularisation) * weight.max()))

    def norm(self, x: NDArray[Any], weight: Real) -> float:
        """Return Σ weight·|x|²."""
        rows = np.einsum("yx,yx->y", abs2(x), weight)
        return float(rows.sum(dtype=np.float64))

    def _begin(self, probe: Complex) -> Complex:
        """Return the probe's spectrum; drop the saved arrays of another probe."""
        if self._spectrum_of is None or self._spectrum_of[0] is not probe:
            self._saved = {}
            self._spectrum_of = (probe, spectrum_of(probe))
        return self._spectrum_of[1]

    def _map(self, function: Callable[[Any], Any], rows: NDArray[np.intp] | None = None) -> Iterator[Any]:
        """Yield the results of chunks in order: slices of all patterns, or arrays of the numbers `rows`."""
        size, n = max(1, CHUNK_PIXELS // self._problem.N**2), len(self._problem if rows is None else rows)
        slices = [slice(start, min(start + size, n)) for start in range(0, n, size)]
        chunks: list[Any] = slices if rows is None else [rows[each] for each in slices]
        return ordered_map(function, chunks, max(1, min(processors(), len(chunks))))

    def _intensity(self, spectrum: Complex, rows: Rows) -> tuple[Rows, Real]:
        return rows, sum_modes(abs2(self._probes(spectrum, rows)))

    def _chunk_update(self, obj: Complex, spectrum: Complex, wanted: Wanted, rows: Rows) -> ChunkUpdate:
        x, probes, patches = self._amplitudes(rows), self._probes(spectrum, rows), self._patches(obj, rows)
        wave = self._constrained(probes * patches, x)
        object_update = sum_modes(np.conj(probes) * wave.update)
        squared_error, norm = float(np.vdot(wave.residual, wave.residual)), float(np.vdot(x, x))
        probe_parts = pattern_parts = None
        if wanted.probe or wanted.patterns:
            intensity = sum_modes(abs2(probes))
            back = scipy.fft.fft2(np.conj(patches) * wave.update, axes=AXES, norm="ortho", overwrite_x=True)
            if self._scaled:
                back *= self._scales(rows)
            if wanted.patterns:
                slopes = self._slopes_of_shift(sum_modes(np.conj(spectrum) * back), rows)
                pattern_parts = self._pattern_updates(slopes, patches[:, 0], intensity, wave)
            if wanted.probe:
                weight = abs2(patches[:, 0])
                weight = weight * self._scales(rows)[:, 0] ** 2 if self._scaled else weight
                back *= np.conj(self._ramps(rows))
                probe_parts = ProbeParts(intensity, back.sum(axis=0), weight.sum(axis=0))
        return ChunkUpdate(rows, object_update, squared_error, norm, probe_parts, pattern_parts)

    def _constrained(self, exit_waves: Complex, x: Real) -> ConstrainedWaves:
        """Apply the amplitude constraint to exit waves, which it overwrites (spec: physics 9.1, 9.2)."""
        detector = scipy.fft.fft2(exit_waves, axes=AXES, norm="ortho", overwrite_x=True)
        amplitude = modelled_amplitude(detector, self._epsilon)
        residual = x - amplitude
        if self._good is not None:
            residual *= self._good
        detector *= (residual / amplitude)[:, None]
        update = scipy.fft.ifft2(detector, axes=AXES, norm="ortho", overwrite_x=True)
        return ConstrainedWaves(update, residual, amplitude)

    def _slopes_of_shift(self, overlap: Complex, rows: Rows) -> Double:
        """Return −∂E/∂shift (position, 2) = 2·Re⟨∂P·O, χ⟩ from the overlap of spectra (position, y, x)."""
        shifts_px, N = self._parameters.shifts_px[rows], self._problem.N
        factors, slopes = shift_ramps(shifts_px, N), []
        for axis, factor in enumerate(factors):
            derivative = shift_slopes(factor, shifts_px[:, axis])
            pair = (derivative, factors[1]) if axis == 0 else (factors[0], derivative)
            along_y = (overlap @ np.conj(pair[1])[:, :, None])[..., 0]
            slopes.append(2 * np.real(along_y * np.conj(pair[0])).sum(axis=1))
        return np.stack(slopes, axis=1).astype(np.float64)

    def _pattern_updates(self, slopes: Double, patches: Complex, intensity: Real, wave: ConstrainedWaves) -> Double:
        """Return all fields of the pattern updates as columns (position, 9); of the background before its sum."""
        weights = [2 * (intensity * abs2(np.gradient(patches, axis=axis))).sum(axis=(1, 2)) for axis in (1, 2)]
        by_scale, damped = wave.amplitude - self._epsilon / wave.amplitude, wave.amplitude**2 + np.float32(DARK)
        by_scale = by_scale if self._good is None else by_scale * self._good
        good = np.float32(1) if self._good is None else self._good
        columns = [
            *weights,
            2 * (wave.residual * by_scale).sum(axis=(1, 2)),
            2 * (by_scale**2).sum(axis=(1, 2)),
            (wave.residual**2).sum(axis=(1, 2)),
            (wave.residual * (wave.residual + 2 * wave.amplitude) / damped).sum(axis=(1, 2), dtype=np.float64),
            (good / damped).sum(axis=(1, 2), dtype=np.float64),
        ]
        return np.concatenate([slopes, np.stack(columns, axis=1)], axis=1)

    def _slopes(self, obj: Complex, spectrum: Complex, rows: Rows) -> PhaseSlopes:
        x, N = self._amplitudes(rows), self._problem.N
        exit_waves = self._probes(spectrum, rows) * self._patches(obj, rows)
        intensity = sum_modes(abs2(exit_waves))
        axis, total = np.arange(N, dtype=np.float32), np.maximum(intensity.sum(axis=(1, 2)), TINY)
        # Sums, not a product with a vector: BLAS rounds a row differently in another chunk.
        sums = [(intensity.sum(axis=other) * axis).sum(axis=1) for other in (2, 1)]
        centres = np.stack(sums, axis=1) / total[:, None]
        detector = scipy.fft.fft2(exit_waves, axes=AXES, norm="ortho")
        amplitude = modelled_amplitude(detector, self._epsilon)
        phases, logarithms = [], []
        for along in ((axis - centres[:, :1])[:, None, :, None], (axis - centres[:, 1:])[:, None, None, :]):
            moment = scipy.fft.fft2(exit_waves * along, axes=AXES, norm="ortho", overwrite_x=True)
            # Re(Ψ̄·F(i·y·ψ)) = −Im(Ψ̄·F(y·ψ))
            phases.append(sum_modes(detector.imag * moment.real - detector.real * moment.imag) / amplitude)
            logarithms.append(sum_modes(detector.real * moment.real + detector.imag * moment.imag) / amplitude)
        jacobian = np.stack([*phases, *logarithms, amplitude - self._epsilon / amplitude], axis=1)
        residual = x - amplitude
        if self._good is not None:
            jacobian *= self._good
            residual *= self._good
        jacobian, flat = jacobian.reshape(len(x), 5, -1), residual.reshape(len(x), -1, 1)
        return PhaseSlopes(
            information=(jacobian @ jacobian.swapaxes(1, 2)).astype(np.float64),
            gradient=(jacobian @ flat)[..., 0].astype(np.float64),
            centres_px=self._geometry.corners_px[rows] + centres.astype(np.float64),
        )

    def _equations(self, objects: tuple[Complex, ...], spectra: list[Complex], rows: Rows) -> NormalEquations:
        """Return the normal equations of some patterns; object and probe stand before their directions."""
        patches = [self._patches(canvas, rows) for canvas in objects]
        probes = [self._shifted(spectrum, rows) for spectrum in spectra]
        detector = scipy.fft.fft2(probes[0] * patches[0], axes=AXES, norm="ortho", overwrite_x=True)
        amplitude = modelled_amplitude(detector, self._epsilon)
        residual, jacobian = self._amplitudes(rows) - amplitude, []
        for patch, probe in zip(patches[1:], probes[1:], strict=True):
            change = scipy.fft.fft2(probe * patches[0] + probes[0] * patch, axes=AXES, norm="ortho", overwrite_x=True)
            jacobian.append(sum_modes(detector.real * change.real + detector.imag * change.imag) / amplitude)
        dense = np.stack(jacobian)
        if self._good is not None:
            dense *= self._good
            residual *= self._good
        dense, flat = dense.reshape(len(dense), -1), residual.reshape(-1)
        return NormalEquations((dense @ dense.T).astype(np.float64), (dense @ flat).astype(np.float64))

    def _patches(self, obj: Complex, rows: Rows) -> Complex:
        return self._geometry.extract_patches(obj, rows)

    def _amplitudes(self, rows: Rows) -> Real:
        return self._problem.amplitudes(rows) if self._measured is None else self._measured[rows]

    def _probes(self, spectrum: Complex, rows: Rows) -> Complex:
        """Return the scaled probe shifted to some positions, (position, mode, y, x); saved for chunks of the scan."""
        n_bytes = len(self._problem) * (self._problem.N**2 * 4 + spectrum.nbytes)
        if not isinstance(rows, slice) or n_bytes > CACHE_BYTES:
            return self._shifted(spectrum, rows)
        if rows.start not in self._saved:
            self._saved[rows.start] = self._shifted(spectrum, rows)
        return self._saved[rows.start]

    def _shifted(self, spectrum: Complex, rows: Rows) -> Complex:
        probes = scipy.fft.ifft2(spectrum * self._ramps(rows), axes=AXES, norm="ortho", overwrite_x=True)
        return np.asarray(probes * self._scales(rows) if self._scaled else probes)

    def _ramps(self, rows: Rows) -> Complex:
        """Return the Fourier factors (position, 1, y, x) that shift a probe to the positions `rows`."""
        # Computed at each call: for all positions of a large scan they take too much memory.
        along_y, along_x = shift_ramps(self._parameters.shifts_px[rows], self._problem.N)
        return np.asarray(along_y[:, None, :, None] * along_x[:, None, None, :])

    def _scales(self, rows: Rows) -> Real:
        return self._parameters.scales[rows, None, None, None].astype(np.float32)


class ConstrainedWaves(NamedTuple):
    """Exit-wave update (position, mode, y, x), residual x − a and modelled amplitude a (position, y, x)."""

    update: Complex
    residual: Real
    amplitude: Real


def modelled_amplitude(detector: Complex, epsilon: np.float32) -> Real:
    """Return sqrt(Σ_m|Ψ_m|² + ε), shape (position, y, x), of detector waves (position, mode, y, x)."""
    amplitude = sum_modes(abs2(detector))
    amplitude += epsilon
    return np.sqrt(amplitude, out=amplitude)
