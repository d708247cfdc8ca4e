"""Solver kernels in TensorFlow: arrays stay on the device (spec: backend_contract 10)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptycho.engine.device import placement, prepare_device, resolve_device
from ptycho_backend.engines.solver_contract import (
    REGULARISATION,
    KernelUpdates,
    Report,
    SolverKernels,
    require_shapes,
    summed,
)
from ptycho_backend.physics.updates import BACKGROUND, PhaseSlopes
from ptycho_backend.solver.problem import Problem
from ptycho_backend.solver.scan_geometry import shift_ramps

CPU_CHUNK_PIXELS = 64**3  # fits in a processor's cache
TINY = np.finfo(np.float32).tiny  # a dark exit wave has no centre
GPU_CHUNK_PIXELS = 2**24  # a quarter of a gigabyte of work arrays for each mode


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
            self._shifts = [tf.constant(factor) for factor in shift_ramps(problem.geometry.shifts_px, problem.N)]
            self._good = None if problem.good is None else tf.constant(problem.good)
            self._amplitudes = tf.concat([tf.constant(problem.amplitudes(rows)) for rows in self._chunks()], axis=0)

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
            for rows in self._chunks():
                total = self._scatter_add(total, tf.reduce_sum(abs2(self._probes(spectrum, rows)), axis=1), rows)
                if report is not None:
                    report(rows.stop)
            return total

    def updates(
        self, obj: tf.Tensor, probe: tf.Tensor, probe_too: bool = False, report: Report | None = None
    ) -> KernelUpdates:
        """Return the sums over all patterns."""
        require_shapes(self._geometry, probe, obj)
        with tf.device(placement(self.device)):
            spectrum, parts = tf.signal.fft2d(probe), tf.zeros_like(abs2(obj))
            real, imaginary, sums = parts, parts, tf.zeros(2, tf.float64)
            probe_spectrum, weight = tf.zeros_like(spectrum), tf.zeros(probe.shape[-2:])
            for rows in self._chunks():
                x, probes, patches = self._amplitudes[rows], self._probes(spectrum, rows), self._patches(obj, rows)
                detector = tf.signal.fft2d(probes * patches)  # unnormalised; the factor 1/N stands in the amplitude
                amplitude = self._amplitude(detector)
                residual = self._on_good(x - amplitude)
                exit_wave_update = tf.signal.ifft2d(detector * to_complex(residual / amplitude)[:, None])
                object_update = tf.reduce_sum(tf.math.conj(probes) * exit_wave_update, axis=1)
                real = self._scatter_add(real, tf.math.real(object_update), rows)
                imaginary = self._scatter_add(imaginary, tf.math.imag(object_update), rows)
                sums += tf.cast(tf.stack([tf.reduce_sum(tf.square(residual)), tf.reduce_sum(tf.square(x))]), tf.float64)
                if probe_too:
                    back = tf.signal.fft2d(tf.math.conj(patches) * exit_wave_update)
                    probe_spectrum += tf.reduce_sum(back * tf.math.conj(self._factors(rows)), axis=0)
                    weight += tf.reduce_sum(abs2(patches[:, 0]), axis=0)
                if report is not None:
                    report(rows.stop)
            probe_update = tf.signal.ifft2d(probe_spectrum) if probe_too else None
            total = tf.complex(real, imaginary)
            return KernelUpdates(total, probe_update, weight if probe_too else None, *map(float, sums.numpy()))

    def phase_slopes(self, obj: tf.Tensor, probe: tf.Tensor) -> PhaseSlopes:
        """Return the linearised smooth errors of all patterns."""
        require_shapes(self._geometry, probe, obj)
        with tf.device(placement(self.device)):
            spectrum = tf.signal.fft2d(probe)
            return summed([self._slopes(obj, spectrum, rows) for rows in self._chunks()])

    def combine(self, a: float, x: tf.Tensor, b: float, y: tf.Tensor) -> tf.Tensor:
        """Return a·x + b·y."""
        return tf.cast(a, x.dtype) * x + tf.cast(b, y.dtype) * y

    def multiply(self, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Return x·y."""
        return x * y

    def precondition(self, update: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        """Return update / (weight + 0.02·max weight)."""
        return update / to_complex(weight + REGULARISATION * tf.reduce_max(weight))

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
        amplitude, tangents = self._amplitude(detector), []
        for along in ((axis - centres[:, :1])[:, None, :, None], (axis - centres[:, 1:])[:, None, None, :]):
            moment = tf.signal.fft2d(exit_waves * to_complex(along))
            overlap = tf.reduce_sum(-tf.math.imag(tf.math.conj(detector) * moment), axis=1)
            tangents.append(overlap / (self.N**2 * amplitude))
        jacobian = self._on_good(tf.stack([*tangents, amplitude], axis=1))
        jacobian = tf.reshape(jacobian, (-1, 3, self.N**2))
        residual = tf.reshape(self._on_good(x - amplitude), (-1, self.N**2))
        information = tf.matmul(jacobian, jacobian, transpose_b=True)
        return PhaseSlopes(
            information=information.numpy().astype(np.float64),
            gradient=tf.linalg.matvec(jacobian, residual).numpy().astype(np.float64),
            centres_px=self._corners[rows] + centres.numpy().astype(np.float64),
        )

    def _chunks(self) -> Iterator[slice]:
        pixels = GPU_CHUNK_PIXELS if self.device.startswith("cuda") else CPU_CHUNK_PIXELS
        size = max(1, pixels // (self.N**2 * self._modes))
        return (slice(start, min(start + size, self._n)) for start in range(0, self._n, size))

    def _amplitude(self, detector: tf.Tensor) -> tf.Tensor:
        return tf.sqrt(tf.reduce_sum(abs2(detector), axis=1) / self.N**2 + BACKGROUND)

    def _on_good(self, values: tf.Tensor) -> tf.Tensor:
        return values if self._good is None else values * self._good

    def _factors(self, rows: slice) -> tf.Tensor:
        along_y, along_x = (factor[rows] for factor in self._shifts)
        return along_y[:, None, :, None] * along_x[:, None, None, :]

    def _probes(self, spectrum: tf.Tensor, rows: slice) -> tf.Tensor:
        return tf.signal.ifft2d(spectrum * self._factors(rows))

    def _index(self, rows: slice) -> tf.Tensor:
        return self._first[rows, None] + self._window

    def _patches(self, canvas: tf.Tensor, rows: slice) -> tf.Tensor:
        return tf.reshape(tf.gather(tf.reshape(canvas, (-1,)), self._index(rows)), (-1, 1, self.N, self.N))

    def _scatter_add(self, canvas: tf.Tensor, values: tf.Tensor, rows: slice) -> tf.Tensor:
        index = tf.reshape(self._index(rows), (-1, 1))
        added = tf.tensor_scatter_nd_add(tf.reshape(canvas, (-1,)), index, tf.reshape(values, (-1,)))
        return tf.reshape(added, self._shape)


def abs2(wave: tf.Tensor) -> tf.Tensor:
    """Return |wave|²."""
    return tf.square(tf.math.real(wave)) + tf.square(tf.math.imag(wave))


def to_complex(values: tf.Tensor) -> tf.Tensor:
    """Return real values as complex64."""
    return tf.cast(values, tf.complex64)
