"""
Physics of :mod:`ptycho_backend.physics` in TensorFlow, float32.

The core defines every formula and all shapes: patches (group, channel, y, x), offsets (group, channel, 2), probe
(mode, y, x).
"""

from __future__ import annotations

import tensorflow as tf

from ptycho_backend.physics.amplitude_constraint import BACKGROUND, REGULARISATION
from ptycho_backend.physics.forward import MERGE_FLOOR
from ptycho_backend.physics.losses import MIN_COUNTS
from ptycho_backend.physics.momentum import momentum

AXES = (-2, -1)
NO_COUNTS = 1e-20  # pixels with fewer counts are dark: (λ − k)/k would overflow float32


def far_field(exit_wave: tf.Tensor) -> tf.Tensor:
    """Propagate to the detector by a centred, orthonormal FFT (spec: physics 3.1)."""
    # ifftshift, not fftshift: they differ when a side is odd.
    centred = tf.signal.ifftshift(exit_wave, axes=AXES)
    return tf.signal.fftshift(tf.signal.fft2d(centred), axes=AXES) / _root_size(exit_wave)


def near_field(detector_wave: tf.Tensor) -> tf.Tensor:
    """Propagate back to the sample: inverse and adjoint of :func:`far_field`."""
    centred = tf.signal.ifftshift(detector_wave, axes=AXES)
    return tf.signal.fftshift(tf.signal.ifft2d(centred), axes=AXES) * _root_size(detector_wave)


def abs2(wave: tf.Tensor) -> tf.Tensor:
    """Return |z|², with a finite gradient everywhere."""
    return tf.square(tf.math.real(wave)) + tf.square(tf.math.imag(wave))


def times(wave: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Return the product of a complex and a real tensor; TensorFlow does not promote dtypes."""
    return wave * tf.complex(factor, 0.0)


def translation_matrix(offset_px: tf.Tensor, N: int, S: int) -> tf.Tensor:
    """Return T(d), shape (..., S, N) (spec: physics 1.1)."""
    rows = tf.range(S, dtype=tf.float32)[:, None] - (S - 1) / 2
    columns = tf.range(N, dtype=tf.float32)[None, :] - (N - 1) / 2
    return tf.nn.relu(1.0 - tf.abs(rows - columns - offset_px[..., None, None]))


def scatter_patches(patch: tf.Tensor, offset_px: tf.Tensor, S: int) -> tf.Tensor:
    """Place patches (..., N, N) on canvases (..., S, S)."""
    Ty, Tx = (translation_matrix(offset_px[..., axis], patch.shape[-1], S) for axis in (0, 1))
    return _matrix_product(Ty, patch, tf.linalg.matrix_transpose(Tx))


def extract_patches(canvas: tf.Tensor, offset_px: tf.Tensor, N: int) -> tf.Tensor:
    """Extract patches (..., N, N) from canvases (..., S, S): the adjoint of :func:`scatter_patches`."""
    Ty, Tx = (translation_matrix(offset_px[..., axis], N, canvas.shape[-1]) for axis in (0, 1))
    return _matrix_product(tf.linalg.matrix_transpose(Ty), canvas, Tx)


def merge(patches: tf.Tensor, offsets_px: tf.Tensor, weight: tf.Tensor, S: int) -> tf.Tensor:
    """Merge each group on one canvas by a weighted mean (spec: physics 2.1)."""
    numerator = tf.reduce_sum(scatter_patches(times(patches, weight), offsets_px, S), axis=1)
    denominator = tf.reduce_sum(scatter_patches(weight, offsets_px, S), axis=1)
    return times(numerator, 1.0 / (denominator + MERGE_FLOOR))


def consistent_patches(patches: tf.Tensor, offsets_px: tf.Tensor, weight: tf.Tensor, S: int) -> tf.Tensor:
    """Merge each group and extract one patch per member from the result."""
    canvas = merge(patches, offsets_px, weight, S)
    return extract_patches(canvas[:, None], offsets_px, patches.shape[-1])


def exit_waves(patches: tf.Tensor, probe: tf.Tensor, smoothing: tf.Tensor | None = None) -> tf.Tensor:
    """Return the exit waves (..., mode, y, x) of patches (..., y, x) for every probe mode."""
    waves = tf.expand_dims(patches, -3) * probe
    return waves if smoothing is None else _matrix_product(smoothing, waves, tf.linalg.matrix_transpose(smoothing))


def intensity(patches: tf.Tensor, probe: tf.Tensor, smoothing: tf.Tensor | None = None) -> tf.Tensor:
    """Return Σ_modes |F(P·q)|²: incoherent modes add as intensities."""
    return _sum_modes(abs2(far_field(exit_waves(patches, probe, smoothing))))


def initial_estimate(x: tf.Tensor, probe: tf.Tensor) -> tf.Tensor:
    """Estimate patches without a network: the amplitude constraint on an object of 1."""
    return constrain_amplitude(tf.complex(tf.ones_like(x), tf.zeros_like(x)), x, probe, tf.ones_like(x[0, 0]))


def constrain_amplitude(patches: tf.Tensor, x: tf.Tensor, probe: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Return D(O): object update by measured amplitude and predicted phase (spec: physics 6.2)."""
    return AmplitudeConstraint(x, probe, mask)(patches)


def accelerated(patches: tf.Tensor, x: tf.Tensor, probe: tf.Tensor, mask: tf.Tensor, iterations: int) -> tf.Tensor:
    """Repeat the amplitude constraint with Nesterov's momentum (spec: physics 6.5)."""
    constrain, previous = AmplitudeConstraint(x, probe, mask), patches
    for k in range(iterations):
        extrapolated = patches if k == 0 else patches + times(patches - previous, momentum(k))
        previous, patches = patches, constrain(extrapolated)
    return patches


class AmplitudeConstraint:
    """
    Amplitude constraint D for given patterns, probe and mask, with all terms that do not depend on the patches.

    Signs of alternating pixels centre both transforms. On the detector they do not change intensities and cancel; on
    the sample they multiply the probe. The transforms need no normalisation: it cancels too.
    """

    def __init__(self, x: tf.Tensor, probe: tf.Tensor, mask: tf.Tensor) -> None:
        N, M = probe.shape[-2:]
        self._forward, self._inverse, size = far_field, near_field, 1
        illumination = tf.reduce_sum(abs2(probe), axis=0)
        if N % 4 == 0 and M % 4 == 0:
            probe = times(probe, _checkerboard(N, M))
            self._forward, self._inverse, size = tf.signal.fft2d, tf.signal.ifft2d, N * M
        self._probe, self._mask = probe, mask
        self._back = times(tf.math.conj(probe), 1.0 / (illumination + REGULARISATION * tf.reduce_max(illumination)))
        # Amplitudes on the detector in units of the transform without normalisation.
        self._measured = tf.expand_dims(tf.sqrt(size * (tf.square(x) + BACKGROUND)), -3)
        self._background = size * BACKGROUND

    def __call__(self, patches: tf.Tensor) -> tf.Tensor:
        """Return D(O) for patches (group, channel, y, x)."""
        detector = self._forward(exit_waves(patches, self._probe))
        predicted = tf.expand_dims(_sum_modes(abs2(detector)), -3)
        relative_residual = (self._measured * tf.math.rsqrt(predicted + self._background) - 1.0) * self._mask
        return patches + _sum_modes(self._back * self._inverse(times(detector, relative_residual)))


def _sum_modes(values: tf.Tensor) -> tf.Tensor:
    """Return the mode sum (axis −3), without a copy for one mode."""
    return tf.squeeze(values, -3) if values.shape[-3] == 1 else tf.reduce_sum(values, axis=-3)


def half_deviance(expected: tf.Tensor, counts: tf.Tensor) -> tf.Tensor:
    """Return the Poisson half-deviance of every pixel (spec: physics 5.1)."""
    lam = tf.maximum(expected, MIN_COUNTS)
    positive = counts > NO_COUNTS
    safe = tf.where(positive, counts, 1.0)
    u = (lam - safe) / safe
    # log1p is accurate near u = 0 only: close to u = −1 float32 rounds 1 + u to 0.
    near = tf.abs(u) < 0.5
    log_ratio = tf.where(near, tf.math.log1p(tf.where(near, u, 0.0)), tf.math.log(lam / safe))
    return tf.where(positive, safe * (u - log_ratio), lam)


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
    return (tf.reduce_sum(dy) + tf.reduce_sum(dx)) / (_image_count(patches) * tf.reduce_sum(weight))


def label_mae(patches: tf.Tensor, labels: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Return the weighted mean of |O·u − L|, with the global phase factor u of each group (spec: physics 5.3)."""
    error = smooth_abs(patches * global_phase_factor(patches, labels, weight) - labels) * weight
    return tf.reduce_sum(error) / (_image_count(patches) * tf.reduce_sum(weight))


def global_phase_factor(patches: tf.Tensor, labels: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Return the unit factor (group, 1, 1, 1) that aligns the phase of each group with its labels; no gradient."""
    products = times(patches * tf.math.conj(labels), weight)
    z = tf.stop_gradient(tf.reduce_sum(products, axis=(1, 2, 3), keepdims=True))
    return times(tf.math.conj(z), 1.0 / tf.maximum(tf.abs(z), 1e-12))


def smooth_abs(values: tf.Tensor) -> tf.Tensor:
    """Return sqrt(|z|² + 1e-12): |z| with a finite slope at 0."""
    return tf.sqrt(abs2(values) + 1e-12)


def _checkerboard(N: int, M: int) -> tf.Tensor:
    rows, columns = (1.0 - 2.0 * (tf.range(side, dtype=tf.float32) % 2.0) for side in (N, M))
    return rows[:, None] * columns


def _root_size(wave: tf.Tensor) -> tf.Tensor:
    size = tf.cast(tf.reduce_prod(tf.shape(wave)[-2:]), tf.float32)
    return tf.complex(tf.sqrt(size), 0.0)


def _matrix_product(left: tf.Tensor, image: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """Return left @ image @ right for two real matrices and a real or complex image."""
    if not tf.as_dtype(image.dtype).is_complex:
        return left @ image @ right
    # Two real products take half the time of one complex product.
    return tf.complex(left @ tf.math.real(image) @ right, left @ tf.math.imag(image) @ right)


def _masked_mean(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(values * mask) / (_image_count(values) * tf.reduce_sum(mask))


def _image_count(values: tf.Tensor) -> tf.Tensor:
    """Return the number of images (y, x) of a tensor (..., y, x), float32."""
    return tf.cast(tf.reduce_prod(tf.shape(values)[:-2]), tf.float32)
