"""Solver kernels in TensorFlow: arrays stay on the device (spec: backend_contract 10)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho.engine.device import placement, prepare_device, resolve_device
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
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.scan_geometry import shift_ramps, shift_slopes

CPU_CHUNK_PIXELS = 64**3  # fits in a processor's cache
TINY = np.finfo(np.float32).tiny  # a dark exit wave has no centre
Rows = slice | tf.Tensor
GPU_CHUNK_PIXELS = 2**24  # a quarter of a gigabyte of work arrays for each mode


class ChunkWaves(NamedTuple):
    """Waves of some patterns: probes, windows and exit-wave updates (position, mode, y, x)."""

    probes: tf.Tensor
    patches: tf.Tensor
    update: tf.Tensor
    residual: tf.Tensor
    amplitude: tf.Tensor


class ProbeSums(NamedTuple):
    """Sums for the probe over the patterns so far."""

    illumination: tf.Tensor
    spectrum: tf.Tensor
    weight: tf.Tensor


class TensorFlowKernels(SolverKernels):
    """
    Kernels on one device.

    Parameters
    ----------
    device : str
        "auto", "cpu", "cuda" or "cuda:<index>".
    """

    def __init__(self, device: str = "auto") -> None:
        self.device = resolve_device(device)
        prepare_device(self.device)

    def load(self, problem: Problem) -> None:
        """Copy amplitudes, corners and sub-pixel shifts to the device."""
        self.N, self._n, self._modes = problem.N, len(problem), len(problem.calibration.probe)
        self._geometry, self._shape = problem.geometry, problem.geometry.canvas_shape
        self._corners, width = problem.geometry.corners_px, self._shape[1]
        axis = np.arange(self.N)
        with tf.device(placement(self.device)):
            self._window = tf.constant((axis[:, None] * width + axis).ravel(), tf.int32)
            self._first = tf.constant(self._corners[:, 0] * width + self._corners[:, 1], tf.int32)
            self._good = None if problem.good is None else tf.constant(problem.good)
            self._amplitudes = tf.concat([tf.constant(problem.amplitudes(rows)) for _, rows in self._chunks()], axis=0)
        self._shifts_px: NDArray[np.float64] | None = None
        self.set_parameters(PatternParameters.of(problem.geometry))

    def set_parameters(self, parameters: PatternParameters) -> None:
        """Set positions, scales and background of the patterns."""
        if parameters.shifts_px is not self._shifts_px:
            self._move_to(parameters.shifts_px)
        with tf.device(placement(self.device)):
            scales = tf.constant(parameters.scales, tf.float32)
            self._scales = None if (parameters.scales == 1).all() else to_complex(scales)
        self._epsilon = parameters.background + BACKGROUND

    def _move_to(self, shifts_px: NDArray[np.float64]) -> None:
        """Copy the factors of the shifts to the device."""
        self._shifts_px, ramps = shifts_px, shift_ramps(shifts_px, self.N)
        slopes = [shift_slopes(factor, shift) for factor, shift in zip(ramps, shifts_px.T, strict=True)]
        with tf.device(placement(self.device)):
            self._factors_y, self._factors_x = (tf.constant(factor) for factor in ramps)
            self._slopes_y, self._slopes_x = (tf.constant(slope) for slope in slopes)

    def from_numpy(self, array: NDArray[Any]) -> tf.Tensor:
        """Return a tensor on the device, float32 or complex64."""
        with tf.device(placement(self.device)):
            return tf.constant(np.asarray(array), tf.complex64 if np.iscomplexobj(array) else tf.float32)

    def to_numpy(self, array: tf.Tensor) -> NDArray[Any]:
        """Return a NumPy copy."""
        return np.array(array.numpy())

    def illumination(self, probe: tf.Tensor, report: Report | None = None) -> tf.Tensor:
        """Return Σ_j Σ_m |P_jm|², shape (y, x)."""
        require_shapes(self._geometry, probe)
        with tf.device(placement(self.device)):
            total, spectrum = tf.zeros(self._shape), tf.signal.fft2d(probe)
            for done, rows in self._chunks():
                total = self._scatter_add(total, tf.reduce_sum(abs2(self._probes(spectrum, rows)), axis=1), rows)
                if report is not None:
                    report(done)
            return total

    def updates(
        self, obj: tf.Tensor, probe: tf.Tensor, wanted: Wanted = OBJECT_ONLY, report: Report | None = None
    ) -> KernelUpdates:
        """Return the sums over all patterns, or over those of a mini-batch."""
        require_shapes(self._geometry, probe, obj)
        with tf.device(placement(self.device)):
            spectrum, real, sums = tf.signal.fft2d(probe), tf.zeros(self._shape), tf.zeros(2, tf.float64)
            imaginary, patterns = real, [tf.zeros((0, COLUMNS), tf.float64)]
            probe_sums = ProbeSums(real, tf.zeros_like(spectrum), tf.zeros(probe.shape[-2:]))
            for done, rows in self._chunks(wanted.rows):
                x = taken(self._amplitudes, rows)
                waves = self._constrained(x, self._probes(spectrum, rows), self._patches(obj, rows))
                object_update = tf.reduce_sum(tf.math.conj(waves.probes) * waves.update, axis=1)
                real = self._scatter_add(real, tf.math.real(object_update), rows)
                imaginary = self._scatter_add(imaginary, tf.math.imag(object_update), rows)
                squares = [tf.reduce_sum(tf.square(values)) for values in (waves.residual, x)]
                sums += tf.cast(tf.stack(squares), tf.float64)
                if wanted.probe or wanted.patterns:
                    back = tf.signal.fft2d(tf.math.conj(waves.patches) * waves.update)
                    intensity = tf.reduce_sum(abs2(waves.probes), axis=1)
                if wanted.probe:
                    probe_sums = self._add_probe(probe_sums, waves.patches, back, intensity, rows)
                if wanted.patterns:
                    positions = self._position_updates(spectrum, back, rows)
                    patterns.append(self._pattern_updates(waves, intensity, positions))
                if report is not None:
                    report(done)
            squared_error, norm = map(float, sums.numpy())
            updates = KernelUpdates(tf.complex(real, imaginary), squared_error, norm)
            if wanted.patterns:
                updates = replace(updates, patterns=PatternUpdates.of(self.to_numpy(tf.concat(patterns, axis=0))))
            if not wanted.probe:
                return updates
            illumination, probe_spectrum, weight = probe_sums
            return replace(
                updates, illumination=illumination, probe=tf.signal.ifft2d(probe_spectrum), probe_weight=weight
            )

    def normal_equations(
        self,
        obj: tf.Tensor,
        probe: tf.Tensor,
        objects: Sequence[tf.Tensor],
        probes: Sequence[tf.Tensor],
        rows: NDArray[np.intp],
    ) -> NormalEquations:
        """Return the least squares of patterns `rows` over directions of object and probe."""
        require_shapes(self._geometry, probe, obj)
        n = len(objects)
        with tf.device(placement(self.device)):
            spectra = [tf.signal.fft2d(each) for each in (probe, *probes)]
            total = tf.zeros((n, n + 1), tf.float64)
            for _, chunk in self._chunks(rows, arrays=n + 1):
                total += self._equations((obj, *objects), spectra, chunk)
        found = self.to_numpy(total)
        return NormalEquations(found[:, :n], found[:, n])

    def phase_slopes(self, obj: tf.Tensor, probe: tf.Tensor) -> PhaseSlopes:
        """Return the linearised smooth errors of all patterns."""
        require_shapes(self._geometry, probe, obj)
        with tf.device(placement(self.device)):
            spectrum = tf.signal.fft2d(probe)
            return summed([self._slopes(obj, spectrum, rows) for _, rows in self._chunks()])

    def combine(self, a: float, x: tf.Tensor, b: float, y: tf.Tensor) -> tf.Tensor:
        """Return a·x + b·y."""
        return tf.cast(a, x.dtype) * x + tf.cast(b, y.dtype) * y

    def multiply(self, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Return x·y."""
        return x * y

    def precondition(self, update: tf.Tensor, weight: tf.Tensor, regularisation: float = REGULARISATION) -> tf.Tensor:
        """Return update / (weight + regularisation·max weight)."""
        return update / to_complex(weight + regularisation * tf.reduce_max(weight))

    def norm(self, x: tf.Tensor, weight: tf.Tensor) -> float:
        """Return Σ weight·|x|²."""
        return float(tf.reduce_sum(tf.cast(tf.reduce_sum(abs2(x) * weight, axis=1), tf.float64)))

    def _slopes(self, obj: tf.Tensor, spectrum: tf.Tensor, rows: slice) -> PhaseSlopes:
        x, exit_waves = self._amplitudes[rows], self._probes(spectrum, rows) * self._patches(obj, rows)
        intensity = tf.reduce_sum(abs2(exit_waves), axis=1)
        axis = tf.range(self.N, dtype=tf.float32)
        sums = [tf.linalg.matvec(tf.reduce_sum(intensity, axis=other), axis) for other in (2, 1)]
        centres = tf.stack(sums, axis=1) / tf.maximum(tf.reduce_sum(intensity, axis=(1, 2)), TINY)[:, None]
        detector = tf.signal.fft2d(exit_waves)
        amplitude, phases, logarithms = self._amplitude(detector), [], []
        for along in ((axis - centres[:, :1])[:, None, :, None], (axis - centres[:, 1:])[:, None, None, :]):
            moment = tf.signal.fft2d(exit_waves * to_complex(along))
            phases.append(self._tangent(detector, amplitude, 1j * moment))
            logarithms.append(self._tangent(detector, amplitude, moment))
        by_scale = amplitude - self._epsilon / amplitude
        jacobian = self._on_good(tf.stack([*phases, *logarithms, by_scale], axis=1))
        jacobian = tf.reshape(jacobian, (-1, 5, self.N**2))
        residual = tf.reshape(self._on_good(x - amplitude), (-1, self.N**2))
        information = tf.matmul(jacobian, jacobian, transpose_b=True)
        return PhaseSlopes(
            information=information.numpy().astype(np.float64),
            gradient=tf.linalg.matvec(jacobian, residual).numpy().astype(np.float64),
            centres_px=self._corners[rows] + centres.numpy().astype(np.float64),
        )

    def _constrained(self, x: tf.Tensor, probes: tf.Tensor, patches: tf.Tensor) -> ChunkWaves:
        detector = tf.signal.fft2d(probes * patches)  # unnormalised; the factor 1/N stands in the amplitude
        amplitude = self._amplitude(detector)
        residual = self._on_good(x - amplitude)
        update = tf.signal.ifft2d(detector * to_complex(residual / amplitude)[:, None])
        return ChunkWaves(probes, patches, update, residual, amplitude)

    def _add_probe(
        self, sums: ProbeSums, patches: tf.Tensor, back: tf.Tensor, intensity: tf.Tensor, rows: Rows
    ) -> ProbeSums:
        back = self._scaled(back, rows) * tf.math.conj(self._factors(rows))
        return ProbeSums(
            self._scatter_add(sums.illumination, intensity, rows),
            sums.spectrum + tf.reduce_sum(back, axis=0),
            sums.weight + tf.reduce_sum(abs2(self._scaled(patches, rows)[:, 0]), axis=0),
        )

    def _position_updates(self, spectrum: tf.Tensor, back: tf.Tensor, rows: Rows) -> tf.Tensor:
        """Return 2·Re Σ conj(∂P·O)·χ by the shift (y, x), shape (position, 2)."""
        # Both waves are Fourier transforms without a factor, so that their inner product is N² times that of pixels.
        overlap = tf.reduce_sum(self._scaled(back, rows) * tf.math.conj(spectrum), axis=1)
        factors_y, factors_x = taken(self._factors_y, rows), taken(self._factors_x, rows)
        along_y = tf.linalg.matvec(overlap, tf.math.conj(factors_x)) * tf.math.conj(taken(self._slopes_y, rows))
        along_x = tf.linalg.matvec(overlap, tf.math.conj(factors_y), transpose_a=True)
        along_x *= tf.math.conj(taken(self._slopes_x, rows))
        sums = [tf.reduce_sum(tf.math.real(along), axis=1) for along in (along_y, along_x)]
        return 2 / self.N**2 * tf.stack(sums, axis=1)

    def _pattern_updates(self, waves: ChunkWaves, intensity: tf.Tensor, positions: tf.Tensor) -> tf.Tensor:
        """Return all fields of the pattern updates as columns (position, 9); of the background before its sum."""
        patches, residual, amplitude = waves.patches[:, 0], waves.residual, waves.amplitude
        scattering = abs2(slope_along_y(patches)), abs2(transposed(slope_along_y(transposed(patches))))
        by_scale, damped = self._on_good(amplitude - self._epsilon / amplitude), tf.square(amplitude) + DARK
        fields = [
            *(2 * intensity * each for each in scattering),
            2 * residual * by_scale,
            2 * tf.square(by_scale),
            tf.square(residual),
            residual * (residual + 2 * amplitude) / damped,
            self._on_good(1 / damped),
        ]
        columns = tf.stack([tf.reduce_sum(each, axis=(1, 2)) for each in fields], axis=1)
        return tf.cast(tf.concat([positions, columns], axis=1), tf.float64)

    def _equations(self, objects: tuple[tf.Tensor, ...], spectra: list[tf.Tensor], rows: tf.Tensor) -> tf.Tensor:
        """Return JᵀJ and, as last column, Jᵀ(x − a) of patterns; object and probe stand before their directions."""
        patch, probe = self._patches(objects[0], rows), self._probes(spectra[0], rows)
        detector = tf.signal.fft2d(probe * patch)
        amplitude, tangents = self._amplitude(detector), []
        for obj, spectrum in zip(objects[1:], spectra[1:], strict=True):
            change = tf.signal.fft2d(self._probes(spectrum, rows) * patch + probe * self._patches(obj, rows))
            tangents.append(self._tangent(detector, amplitude, change))
        residual = taken(self._amplitudes, rows) - amplitude
        dense = self._on_good(tf.stack([*tangents, residual], axis=1))
        dense = tf.reshape(dense, (-1, len(spectra), self.N**2))
        return tf.reduce_sum(tf.cast(tf.matmul(dense[:, :-1], dense, transpose_b=True), tf.float64), axis=0)

    def _chunks(self, rows: NDArray[np.intp] | None = None, arrays: int = 0) -> Iterator[tuple[int, Any]]:
        """Yield the number of patterns done and each chunk: slices of the scan, or numbers on the device."""
        size, n = self._chunk_size(arrays), self._n if rows is None else len(rows)
        chosen = None if rows is None else tf.constant(rows, tf.int32)
        for start in range(0, n, size):
            chunk = slice(start, min(start + size, n))
            yield chunk.stop, chunk if chosen is None else chosen[chunk]

    def _chunk_size(self, arrays: int = 0) -> int:
        """Return the number of patterns that are computed at once, with real work arrays beside those of the modes."""
        pixels = GPU_CHUNK_PIXELS if self.device.startswith("cuda") else CPU_CHUNK_PIXELS
        return max(1, pixels // (self.N**2 * (self._modes + -(-arrays // 8))))

    def _amplitude(self, detector: tf.Tensor) -> tf.Tensor:
        return tf.sqrt(tf.reduce_sum(abs2(detector), axis=1) / self.N**2 + self._epsilon)

    def _tangent(self, detector: tf.Tensor, amplitude: tf.Tensor, change: tf.Tensor) -> tf.Tensor:
        overlap = tf.reduce_sum(tf.math.real(tf.math.conj(detector) * change), axis=1)
        return overlap / (self.N**2 * amplitude)

    def _on_good(self, values: tf.Tensor) -> tf.Tensor:
        return values if self._good is None else values * self._good

    def _factors(self, rows: Rows) -> tf.Tensor:
        return taken(self._factors_y, rows)[:, None, :, None] * taken(self._factors_x, rows)[:, None, None, :]

    def _scaled(self, waves: tf.Tensor, rows: Rows) -> tf.Tensor:
        return waves if self._scales is None else waves * taken(self._scales, rows)[:, None, None, None]

    def _probes(self, spectrum: tf.Tensor, rows: Rows) -> tf.Tensor:
        return self._scaled(tf.signal.ifft2d(spectrum * self._factors(rows)), rows)

    def _index(self, rows: Rows) -> tf.Tensor:
        return taken(self._first, rows)[:, None] + self._window

    def _patches(self, canvas: tf.Tensor, rows: Rows) -> tf.Tensor:
        return tf.reshape(tf.gather(tf.reshape(canvas, (-1,)), self._index(rows)), (-1, 1, self.N, self.N))

    def _scatter_add(self, canvas: tf.Tensor, values: tf.Tensor, rows: Rows) -> tf.Tensor:
        index = tf.reshape(self._index(rows), (-1, 1))
        added = tf.tensor_scatter_nd_add(tf.reshape(canvas, (-1,)), index, tf.reshape(values, (-1,)))
        return tf.reshape(added, self._shape)


def abs2(wave: tf.Tensor) -> tf.Tensor:
    """Return |wave|²."""
    return tf.square(tf.math.real(wave)) + tf.square(tf.math.imag(wave))


def to_complex(values: tf.Tensor) -> tf.Tensor:
    """Return real values as complex64."""
    return tf.cast(values, tf.complex64)


def taken(array: tf.Tensor, rows: Rows) -> tf.Tensor:
    """Return some rows of an array."""
    return array[rows] if isinstance(rows, slice) else tf.gather(array, rows)


def transposed(patches: tf.Tensor) -> tf.Tensor:
    """Return patches (position, y, x) with y and x exchanged."""
    return tf.transpose(patches, (0, 2, 1))


def slope_along_y(patches: tf.Tensor) -> tf.Tensor:
    """Return central differences along y, one-sided at the edges, of patches (position, y, x)."""
    first, last = patches[:, 1:2] - patches[:, :1], patches[:, -1:] - patches[:, -2:-1]
    return tf.concat([first, (patches[:, 2:] - patches[:, :-2]) / 2, last], axis=1)
