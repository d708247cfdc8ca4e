"""
The physics in TensorFlow, float32: twin of :mod:`ptycho_backend.physics`, which defines every formula.

Shapes are those of the core: patches (group, channel, y, x), offsets (group, channel, 2), probe (mode, y, x).
"""

from __future__ import annotations

import tensorflow as tf

from ptycho_backend.physics.amplitude_constraint import BACKGROUND, REGULARISATION
from ptycho_backend.physics.forward import MERGE_FLOOR
from ptycho_backend.physics.losses import MIN_COUNTS

AXES = (-2, -1)
NO_COUNTS = 1e-20  # below it a pixel counts as dark: (λ − k)/k must not overflow float32


def far_field(exit_wave: tf.Tensor) -> tf.Tensor:
    """Propagate to the detector: centred, orthonormal FFT (spec: physics 3.1)."""
    # ifftshift, not fftshift: they differ when a side is odd.
    centred = tf.signal.ifftshift(exit_wave, axes=AXES)
    return tf.signal.fftshift(tf.signal.fft2d(centred), axes=AXES) / _root_size(exit_wave)


def near_field(detector_wave: tf.Tensor) -> tf.Tensor:
    """Propagate back to the sample: inverse and adjoint of :func:`far_field`."""
    centred = tf.signal.ifftshift(detector_wave, axes=AXES)
    return tf.signal.fftshift(tf.signal.ifft2d(centred), axes=AXES) * _root_size(detector_wave)


def intensity_of(wave: tf.Tensor) -> tf.Tensor:
    """Return |z|² with a gradient that is finite everywhere."""
    return tf.square(tf.math.real(wave)) + tf.square(tf.math.imag(wave))


def times(wave: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Return a complex tensor times a real one."""
    return wave * tf.complex(factor, 0.0)


def translation_matrix(offset_px: tf.Tensor, N: int, S: int) -> tf.Tensor:
    """Return T(d), shape (..., S, N) (spec: physics 1.1)."""
    rows = tf.range(S, dtype=tf.float32)[:, None] - (S - 1) / 2
    columns = tf.range(N, dtype=tf.float32)[None, :] - (N - 1) / 2
    return tf.nn.relu(1.0 - tf.abs(rows - columns - offset_px[..., None, None]))


def scatter_patches(patch: tf.Tensor, offset_px: tf.Tensor, S: int) -> tf.Tensor:
    """Put patches (..., N, N) on canvases (..., S, S)."""
    Ty, Tx = (translation_matrix(offset_px[..., axis], patch.shape[-1], S) for axis in (0, 1))
    return _sandwich(Ty, patch, tf.linalg.matrix_transpose(Tx))


def extract_patches(canvas: tf.Tensor, offset_px: tf.Tensor, N: int) -> tf.Tensor:
    """Cut patches (..., N, N) out of canvases (..., S, S): the adjoint of :func:`scatter_patches`."""
    Ty, Tx = (translation_matrix(offset_px[..., axis], N, canvas.shape[-1]) for axis in (0, 1))
    return _sandwich(tf.linalg.matrix_transpose(Ty), canvas, Tx)


def merge(patches: tf.Tensor, offsets_px: tf.Tensor, weight: tf.Tensor, S: int) -> tf.Tensor:
    """Merge each group into one canvas by a weighted mean (spec: physics 2.1)."""
    numerator = tf.reduce_sum(scatter_patches(times(patches, weight), offsets_px, S), axis=1)
    denominator = tf.reduce_sum(scatter_patches(weight, offsets_px, S), axis=1)
    return times(numerator, 1.0 / (denominator + MERGE_FLOOR))


def consistent_patches(patches: tf.Tensor, offsets_px: tf.Tensor, weight: tf.Tensor, S: int) -> tf.Tensor:
    """Merge each group and cut one patch per member out of the result."""
    canvas = merge(patches, offsets_px, weight, S)
    return extract_patches(canvas[:, None], offsets_px, patches.shape[-1])


def exit_waves(patches: tf.Tensor, probe: tf.Tensor, smoothing: tf.Tensor | None = None) -> tf.Tensor:
    """Illuminate patches (..., y, x) with every mode: (..., mode, y, x)."""
    waves = tf.expand_dims(patches, -3) * probe
    return waves if smoothing is None else _sandwich(smoothing, waves, tf.linalg.matrix_transpose(smoothing))


def intensity(patches: tf.Tensor, probe: tf.Tensor, smoothing: tf.Tensor | None = None) -> tf.Tensor:
    """Return Σ_modes |F(P·q)|²: incoherent modes add as intensities."""
    return _sum_modes(intensity_of(far_field(exit_waves(patches, probe, smoothing))))


def initial_estimate(x: tf.Tensor, probe: tf.Tensor) -> tf.Tensor:
    """Estimate patches without a network: the data-consistency step applied to an object of 1."""
    return constrain_amplitude(tf.complex(tf.ones_like(x), tf.zeros_like(x)), x, probe, tf.ones_like(x[0, 0]))


def constrain_amplitude(patches: tf.Tensor, x: tf.Tensor, probe: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Return D(O): measured amplitude, predicted phase, probe divided out (spec: physics 6.2)."""
    return AmplitudeConstraint(x, probe, mask)(patches)


def accelerated(patches: tf.Tensor, x: tf.Tensor, probe: tf.Tensor, mask: tf.Tensor, iterations: int) -> tf.Tensor:
    """Repeat the data-consistency step from extrapolated patches (spec: physics 6.5)."""
    step, before = AmplitudeConstraint(x, probe, mask), patches
    for k in range(iterations):
        ahead = patches if k == 0 else patches + times(patches - before, k / (k + 3))
        before, patches = patches, step(ahead)
    return patches


class AmplitudeConstraint:
    """
    The step D for patterns, a probe and a mask: what does not depend on the patches is computed once.

    Of the signs that centre the two transforms, those on the detector meet nothing but intensities and cancel; the
    others are the probe's. The factors that make the transforms orthonormal cancel too.
    """

    def __init__(self, x: tf.Tensor, probe: tf.Tensor, mask: tf.Tensor) -> None:
        N, M = probe.shape[-2:]
        self._forward, self._inverse, size = far_field, near_field, 1
        lit = tf.reduce_sum(intensity_of(probe), axis=0)
        if N % 4 == 0 and M % 4 == 0:
            probe = times(probe, _checkerboard(N, M))
            self._forward, self._inverse, size = tf.signal.fft2d, tf.signal.ifft2d, N * M
        self._probe, self._mask = probe, mask
        self._back = times(tf.math.conj(probe), 1.0 / (lit + REGULARISATION * tf.reduce_max(lit)))
        # In the units of a transform without its factor 1/sqrt(size).
        self._measured = tf.expand_dims(tf.sqrt(size * (tf.square(x) + BACKGROUND)), -3)
        self._background = size * BACKGROUND

    def __call__(self, patches: tf.Tensor) -> tf.Tensor:
        """Return D(O) of patches (group, channel, y, x)."""
        detector = self._forward(exit_waves(patches, self._probe))
        predicted = tf.expand_dims(_sum_modes(intensity_of(detector)), -3)
        correction = (self._measured * tf.math.rsqrt(predicted + self._background) - 1.0) * self._mask
        return patches + _sum_modes(self._back * self._inverse(times(detector, correction)))


def _sum_modes(values: tf.Tensor) -> tf.Tensor:
    """Sum over modes; a single one is not copied."""
    return tf.squeeze(values, -3) if values.shape[-3] == 1 else tf.reduce_sum(values, axis=-3)


def half_deviance(expected: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    """Return the Poisson half-deviance of every pixel (spec: physics 5.1)."""
    lam = tf.maximum(expected, MIN_COUNTS)
    lit = counts > NO_COUNTS
    safe = tf.where(lit, counts, 1.0)
    u = (lam - safe) / safe
    # ln(1 + u) keeps its digits near u = 0 only: close to u = −1 float32 rounds 1 + u to 0.
    near = tf.abs(u) < 0.5
    log_ratio = tf.where(near, tf.math.log1p(tf.where(near, u, 0.0)), tf.math.log(lam / safe))
    return tf.where(lit, safe * (u - log_ratio), lam)


def poisson(expected: tf.Tensor, counts: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Return the mean half-deviance over good pixels."""
    return _masked_mean(half_deviance(expected, counts), mask)


def amplitude_mae(expected: tf.Tensor, counts: tf.Tensor, mask: tf.Tensor, r: tf.Tensor) -> tf.Tensor:
    """Return the mean absolute error of normalised amplitude over good pixels."""
    lam = tf.maximum(expected, MIN_COUNTS)
    return _masked_mean(r * tf.abs(tf.sqrt(lam) - tf.sqrt(counts)), mask)


def total_variation(patches: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Return the weighted mean of |∂y O| + |∂x O|."""
    dy = smooth_abs(patches[..., 1:, :] - patches[..., :-1, :]) * weight[:-1, :]
    dx = smooth_abs(patches[..., :, 1:] - patches[..., :, :-1]) * weight[:, :-1]
    return (tf.reduce_sum(dy) + tf.reduce_sum(dx)) / (_images(patches) * tf.reduce_sum(weight))


def label_mae(patches: tf.Tensor, labels: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Return the weighted mean of |O·u − L|, u each group's best constant phase (spec: physics 5.3)."""
    products = times(patches * tf.math.conj(labels), weight)
    z = tf.stop_gradient(tf.reduce_sum(products, axis=(1, 2, 3), keepdims=True))
    turn = times(tf.math.conj(z), 1.0 / tf.maximum(tf.abs(z), 1e-12))
    error = smooth_abs(patches * turn - labels) * weight
    return tf.reduce_sum(error) / (_images(patches) * tf.reduce_sum(weight))


def smooth_abs(values: tf.Tensor) -> tf.Tensor:
    """Return sqrt(|z|² + 1e-12): |z| with a finite slope at 0."""
    return tf.sqrt(intensity_of(values) + 1e-12)


def _checkerboard(N: int, M: int) -> tf.Tensor:
    rows, columns = (1.0 - 2.0 * (tf.range(side, dtype=tf.float32) % 2.0) for side in (N, M))
    return rows[:, None] * columns


def _root_size(wave: tf.Tensor) -> tf.Tensor:
    size = tf.cast(tf.reduce_prod(tf.shape(wave)[-2:]), tf.float32)
    return tf.complex(tf.sqrt(size), 0.0)


def _sandwich(left: tf.Tensor, image: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """Return left @ image @ right for real matrices and a real or complex image."""
    if not tf.as_dtype(image.dtype).is_complex:
        return left @ image @ right
    # Two real products cost half of one complex product with a matrix that has no imaginary part.
    return tf.complex(left @ tf.math.real(image) @ right, left @ tf.math.imag(image) @ right)


def _masked_mean(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(values * mask) / (_images(values) * tf.reduce_sum(mask))


def _images(values: tf.Tensor) -> tf.Tensor:
    """Return how many images (..., y, x) there are, float32."""
    return tf.cast(tf.reduce_prod(tf.shape(values)[:-2]), tf.float32)
