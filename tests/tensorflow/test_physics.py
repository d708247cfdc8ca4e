"""The TensorFlow physics against the float64 reference, and its gradients against finite differences."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ptycho import physics
from ptycho_backend.core import forward, losses, propagation, translation, unrolled

FEW = settings(max_examples=15, deadline=None)
# float32 carries 6e-8; a few hundred sums of FFT, matrix product and mean leave about 1e-6 of the largest value.
CLOSE = 5e-6
GRADIENT = 2e-3  # sqrt and division near dark pixels magnify rounding in the gradient


def assert_close(actual, expected, relative=CLOSE):
    expected = np.asarray(expected)
    assert np.shape(actual) == expected.shape
    assert np.abs(np.asarray(actual) - expected).max() <= relative * max(np.abs(expected).max(), 1e-30)


def waves(rng, *shape):
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)


class Problem:
    """Random patches, offsets, probe, weight, mask and measured amplitude."""

    def __init__(self, seed, groups=2, C=2, N=8, modes=2):
        rng = np.random.default_rng(seed)
        self.N = N
        self.patches = waves(rng, groups, C, N, N)
        self.labels = waves(rng, groups, C, N, N)
        self.probe = waves(rng, modes, N, N)
        self.offsets = rng.uniform(-3, 3, (groups, C, 2)).astype(np.float32)
        self.weight = rng.uniform(0.1, 1.0, (N, N)).astype(np.float32)
        self.mask = (rng.random((N, N)) > 0.2).astype(np.float32)
        self.mask[0, 0] = 1.0
        self.x = rng.uniform(0.0, 3.0, (groups, C, N, N)).astype(np.float32)
        self.counts = rng.poisson(3.0, (groups, C, N, N)).astype(np.float32)
        self.expected = rng.uniform(0.0, 8.0, (groups, C, N, N)).astype(np.float32)
        self.S = translation.canvas_size(N, self.offsets)


problems = st.integers(0, 2**32 - 1).map(Problem)


@FEW
@given(st.integers(0, 2**32 - 1), st.integers(1, 17), st.integers(1, 17))
def test_far_field_matches_reference_also_for_odd_sides(seed, height, width):
    wave = waves(np.random.default_rng(seed), 2, height, width)
    there = physics.far_field(tf.constant(wave))
    assert_close(there, propagation.far_field(wave.astype(complex)))
    assert_close(physics.near_field(there), wave)
    assert_close(physics.near_field(tf.constant(wave)), propagation.near_field(wave.astype(complex)))


def test_a_flat_wave_lands_on_the_centre_of_the_detector():
    for N in (4, 5, 16):
        detector = physics.far_field(tf.ones((N, N), tf.complex64)).numpy()
        expected = np.zeros((N, N))
        expected[N // 2, N // 2] = N  # unitary: energy N² in one pixel
        assert_close(detector, expected)


@FEW
@given(problems)
def test_translation_merge_and_extraction(p):
    args = (p.offsets, p.weight, p.S)
    assert_close(physics.place(p.patches, p.offsets, p.S), translation.place(p.patches, p.offsets, p.S))
    merged = forward.merge(p.patches, *args)
    assert_close(physics.merge(p.patches, *args), merged)
    cut = translation.extract(merged[:, None], p.offsets.astype(float), p.N)
    canvas = tf.constant(merged[:, None].astype(np.complex64))
    assert_close(physics.extract(canvas, p.offsets, p.N), cut)
    assert_close(physics.consistent_patches(p.patches, *args), forward.consistent_patches(p.patches, *args))


def test_a_bright_pixel_lands_where_the_offset_says():
    patch = np.zeros((1, 1, 8, 8), np.complex64)
    patch[..., 4, 4] = 1.0
    canvas = physics.place(patch, np.array([[[2.0, -1.0]]], np.float32), 14).numpy()[0, 0]
    assert np.argwhere(canvas).tolist() == [[4 + 3 + 2, 4 + 3 - 1]]


@FEW
@given(problems, st.sampled_from([0.0, 0.7]))
def test_intensity_matches_reference(p, sigma):
    G = forward.smoothing_matrix(p.N, sigma).astype(np.float32) if sigma else None
    actual = physics.intensity(p.patches, p.probe, G)
    assert_close(actual, forward.intensity(p.patches.astype(complex), p.probe.astype(complex), sigma))


@FEW
@given(problems)
def test_first_estimate_and_data_consistency_match_reference(p):
    probe, patches = p.probe.astype(complex), p.patches.astype(complex)
    assert_close(physics.initial_estimate(p.x, p.probe), unrolled.initial_estimate(p.x, probe), 2e-5)
    expected = unrolled.data_consistency(patches, p.x, probe, p.mask)
    assert_close(physics.data_consistency(p.patches, p.x, p.probe, p.mask), expected, 2e-5)


@FEW
@given(problems)
def test_losses_match_reference(p):
    p.counts[0, 0, :2] = 0.0
    p.expected[0, 0, 0] = 0.0
    args = (p.expected, p.counts, p.mask)
    assert float(physics.poisson(*args)) == pytest.approx(losses.poisson(*args), rel=CLOSE)
    assert float(physics.amplitude_mae(*args, 0.3)) == pytest.approx(losses.amplitude_mae(*args, 0.3), rel=CLOSE)
    tv = losses.total_variation(p.patches, p.weight)
    assert float(physics.total_variation(p.patches, p.weight)) == pytest.approx(tv, rel=CLOSE)
    mae = losses.label_mae(p.patches, p.labels, p.weight)
    assert float(physics.label_mae(p.patches, p.labels, p.weight)) == pytest.approx(mae, rel=CLOSE)


@pytest.mark.parametrize(
    ("expected", "counts"),
    [(1e5, 1e5 * (1 + 1e-3)), (0.0, 1e5), (1e-3, 1e7), (1e7, 1.0), (5.0, 0.0), (5.0, 1e-30), (1e-9, 1e-12)],
)
def test_half_deviance_keeps_its_digits_at_the_extremes(expected, counts):
    value = tf.Variable(np.float32(expected))
    with tf.GradientTape() as tape:
        actual = physics.half_deviance(value, tf.constant(np.float32(counts)))
    reference = losses.half_deviance(np.float64(np.float32(expected)), np.float64(np.float32(counts)))
    assert float(actual) == pytest.approx(float(reference), rel=1e-4)
    assert np.isfinite(tape.gradient(actual, value))


def functions(p):
    """Every differentiable step as (TensorFlow, reference): patches to one number."""
    probe, S = p.probe.astype(complex), p.S
    random = np.random.default_rng(0).normal(size=p.patches.shape).astype(np.float32)

    def tf_dot(values):
        return tf.reduce_sum(tf.math.real(values) * random) + tf.reduce_sum(tf.math.imag(values) * random[..., ::-1])

    def dot(values):
        return (values.real * random).sum() + (values.imag * random[..., ::-1]).sum()

    return {
        "poisson": (
            lambda z: physics.poisson(physics.intensity(z, p.probe), p.counts, p.mask),
            lambda z: losses.poisson(forward.intensity(z, probe), p.counts, p.mask),
        ),
        "amplitude_mae": (
            lambda z: physics.amplitude_mae(physics.intensity(z, p.probe), p.counts, p.mask, 0.3),
            lambda z: losses.amplitude_mae(forward.intensity(z, probe), p.counts, p.mask, 0.3),
        ),
        "total_variation": (
            lambda z: physics.total_variation(z, p.weight),
            lambda z: losses.total_variation(z, p.weight),
        ),
        "data_consistency": (
            lambda z: tf_dot(physics.data_consistency(z, p.x, p.probe, p.mask)),
            lambda z: dot(unrolled.data_consistency(z, p.x, probe, p.mask)),
        ),
        "consistent_patches": (
            lambda z: tf_dot(physics.consistent_patches(z, p.offsets, p.weight, S)),
            lambda z: dot(forward.consistent_patches(z, p.offsets, p.weight, S)),
        ),
    }


@pytest.mark.parametrize("name", list(functions(Problem(0))))
def test_gradients_match_finite_differences_of_the_reference(name):
    p = Problem(5)
    computed, reference = functions(p)[name]
    parts = [tf.Variable(p.patches.real), tf.Variable(p.patches.imag)]
    with tf.GradientTape() as tape:
        value = computed(tf.complex(*parts))
    gradient = [g.numpy() for g in tape.gradient(value, parts)]
    h, z = 1e-6, p.patches.astype(complex)
    for seed in range(4):
        direction = waves(np.random.default_rng(seed), *z.shape).astype(complex)
        slope = (reference(z + h * direction) - reference(z - h * direction)) / (2 * h)
        along = (gradient[0] * direction.real).sum() + (gradient[1] * direction.imag).sum()
        scale = np.sqrt(sum((g**2).sum() for g in gradient)) * np.sqrt((abs(direction) ** 2).sum())
        assert along == pytest.approx(slope, abs=GRADIENT * scale / 10)


def test_label_gradient_treats_the_phase_as_constant():
    p = Problem(6)
    parts = [tf.Variable(p.patches.real), tf.Variable(p.patches.imag)]
    with tf.GradientTape() as tape:
        value = physics.label_mae(tf.complex(*parts), p.labels, p.weight)
    gradient = tape.gradient(value, parts)
    z = p.patches.astype(complex)
    overlap = (p.weight * z * p.labels.conj()).sum(axis=(1, 2, 3), keepdims=True)
    turn = overlap.conj() / abs(overlap)

    def frozen(patches):
        error = losses.smooth_abs(patches * turn - p.labels) * p.weight
        return error.sum() / (4 * p.weight.sum())

    direction, h = waves(np.random.default_rng(1), *z.shape).astype(complex), 1e-6
    slope = (frozen(z + h * direction) - frozen(z - h * direction)) / (2 * h)
    along = (gradient[0].numpy() * direction.real).sum() + (gradient[1].numpy() * direction.imag).sum()
    assert along == pytest.approx(slope, rel=GRADIENT)


@pytest.mark.parametrize("name", list(functions(Problem(0))))
def test_gradients_are_finite_where_everything_is_dark(name):
    p = Problem(7)
    p.counts[:] = 0.0
    p.x[:] = 0.0
    computed, _ = functions(p)[name]
    parts = [tf.Variable(np.zeros_like(p.x)), tf.Variable(np.zeros_like(p.x))]
    with tf.GradientTape() as tape:
        value = computed(tf.complex(*parts))
    assert all(np.isfinite(g.numpy()).all() for g in tape.gradient(value, parts))
