"""TensorFlow model: weights, shared traced functions, losses, gradients and precision."""

import dataclasses
import gc
import weakref

import numpy as np
import pytest

from ptycho.engine.backend import TensorFlowBackend
from ptycho.engine.traced_functions import MAX_FUNCTIONS
from ptycho_backend.config import ExecutionConfig
from ptycho_backend.engines.model import LOG_SCALE, PROBE
from ptycho_backend.errors import DataError, DeviceError, ModelFileError
from ptycho_backend.network import reference
from ptycho_backend.network.architectures import initial_weights
from ptycho_backend.network.physics_constants import PhysicsConstants
from ptycho_backend.physics.losses import global_phase_factor

UNET, CNN = {"unrolled_steps": 2}, {"architecture": "cnn"}
PAIRS = {"unrolled_steps": 2, "gridsize": 2}


def changed(model, **weights):
    """Set some weights by name and leave the others."""
    model.set_weights({**model.get_weights(), **weights})


def without_heads(model):
    """Set the heads of "unet" to zero, so that only the physics remains."""
    weights = model.get_weights()
    model.set_weights({n: np.zeros_like(w) if "/head/" in n else w for n, w in weights.items()})


@pytest.mark.slow  # tests/parity tests the same on every engine
@pytest.mark.parametrize("architecture", [UNET, CNN])
def test_initial_weights_are_those_of_the_core_and_survive_a_round_trip(make_model, make_training, architecture):
    training = make_training(architecture, seed=5)
    model = make_model(training)
    weights = model.get_weights()
    for name, expected in initial_weights(training.model, 5).items():
        np.testing.assert_array_equal(weights[name], expected)
    assert weights[LOG_SCALE].shape == ()
    np.testing.assert_array_equal(weights[PROBE][..., 1], model.calibration.probe.imag)
    rng = np.random.default_rng(0)
    other = {name: rng.normal(size=value.shape).astype(np.float32) for name, value in weights.items()}
    model.set_weights(other)
    for name, value in model.get_weights().items():
        np.testing.assert_array_equal(value, other[name])


def test_weights_are_copies_and_are_checked(make_model, make_training):
    model = make_model(make_training())
    weights = model.get_weights()
    weights[PROBE][:] = 7.0
    assert not (model.get_weights()[PROBE] == 7.0).any()
    missing = {name: value for name, value in weights.items() if name != LOG_SCALE}
    for bad in (missing, {**weights, "extra": np.zeros(1)}, {**weights, LOG_SCALE: np.zeros(2)}):
        with pytest.raises(ModelFileError):
            model.set_weights(bad)


ALL_TERMS = {"nll_weight": 0.7, "mae_weight": 0.5, "realspace_weight": 0.3, "realspace_mae_weight": 0.2}


def assert_equals_reference(model, training, batch):
    arguments = (model.get_weights(), PhysicsConstants.of(training.model, model.calibration), batch)
    patches = reference.reference_patches(training.model, *arguments)
    np.testing.assert_allclose(model.predict_patches(batch), patches, rtol=0, atol=3e-5)
    consistent = reference.reference_patches(training.model, *arguments, amplitude_constraint=True)
    np.testing.assert_allclose(model.predict_patches(batch, True), consistent, rtol=0, atol=1e-4)
    counts = reference.reference_counts(training.model, *arguments)
    np.testing.assert_allclose(model.expected_counts(batch), counts, rtol=0, atol=1e-4 * counts.max())
    expected = reference.reference_loss(training, *arguments)
    assert model.loss_and_gradients(batch)[0] == pytest.approx(expected, rel=1e-4)


COVERED_BY_PARITY = [pytest.param(fields, marks=pytest.mark.slow) for fields in (PAIRS, {**CNN, "gridsize": 2})]


@pytest.mark.parametrize("fields", [{"unrolled_steps": 3}, *COVERED_BY_PARITY])
def test_a_model_equals_the_reference(make_model, make_training, make_samples, fields):
    training = make_training(fields, **ALL_TERMS)
    model, batch = make_model(training), make_samples(training.model).batch(slice(0, 2))
    rng = np.random.default_rng(0)
    weights = {n: v + 0.03 * rng.normal(size=v.shape).astype(np.float32) for n, v in model.get_weights().items()}
    model.set_weights(weights)
    assert_equals_reference(model, training, batch)


SMOOTH = {**CNN, "probe_mask": True, "gaussian_smoothing_sigma": 0.7}


@pytest.mark.parametrize("fields", [PAIRS, SMOOTH])
def test_equal_descriptions_share_traced_functions_with_separate_state(make_model, make_training, make_samples, fields):
    """The second model, with another probe and scale, uses the graphs of the first and its own state."""
    training = make_training(fields, **ALL_TERMS)
    samples, backend, rng = make_samples(training.model), TensorFlowBackend(), np.random.default_rng(0)
    probe = samples.calibration.probe * np.exp(1j * rng.normal(size=(32, 32)))  # same intensity, other phases
    other = dataclasses.replace(
        samples.calibration,
        probe=np.roll(probe, (2, -3), axis=(-2, -1)).astype(np.complex64),
        rms_input_scale=1.7 * samples.calibration.rms_input_scale,
    )
    first = make_model(training, backend=backend)
    second = make_model(training, calibration=other, backend=backend)
    weights = {n: v + 0.03 * rng.normal(size=v.shape).astype(np.float32) for n, v in second.get_weights().items()}
    second.set_weights(weights)
    batch = samples.batch(slice(0, 2))
    for model in (first, second, first):
        assert_equals_reference(model, training, batch)
    for name, function in first._functions.items():
        assert second._functions[name] is function
        assert not function.captured_inputs


def test_the_cache_is_bounded_and_holds_no_model(make_model, make_training, make_samples):
    training = make_training(UNET)
    samples, backend = make_samples(training.model), TensorFlowBackend()

    def predict(**fields):
        model = make_model(make_training({**UNET, **fields}), backend=backend)
        model.predict_patches(samples.batch(slice(0, 1)))
        return weakref.ref(model)

    models = [predict(initial_iterations=n) for n in range(MAX_FUNCTIONS + 2)]
    gc.collect()
    assert [model() for model in models] == [None] * len(models)
    assert len(backend._traced_functions._functions) == MAX_FUNCTIONS


@pytest.mark.parametrize(
    ("fields", "precision"),
    [({"mae_weight": 0.4}, "32-true"), ({"nll_weight": 0.5}, "32-true"), ({}, "bf16-mixed")],
)
def test_other_descriptions_have_other_traced_functions(make_model, make_training, make_samples, fields, precision):
    training = make_training(UNET)
    batch = make_samples(training.model).batch(slice(0, 2))
    other = ExecutionConfig(device="cpu", precision=precision)
    first, second = make_model(training), make_model(make_training(UNET, **fields), other)
    losses = [model.loss_and_gradients(batch)[0] for model in (first, second)]
    assert losses[0] != losses[1]


@pytest.mark.slow  # tests/parity tests the same on every engine
@pytest.mark.parametrize("fields", [UNET, CNN, PAIRS])
def test_shapes_and_dtypes_for_any_number_of_groups(make_model, make_training, make_samples, fields):
    training = make_training(fields)
    model, samples = make_model(training), make_samples(training.model)
    together = model.predict_patches(samples.batch(slice(0, 5)))
    assert together.shape == (5, training.model.channels, 32, 32)
    assert together.dtype == np.complex64
    alone = np.concatenate([model.predict_patches(samples.batch(slice(i, i + 1))) for i in range(5)])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    assert model.expected_counts(samples.batch(slice(0, 2))).dtype == np.float32


@pytest.mark.slow  # tests/parity tests the same on every engine
def test_log_scale_multiplies_counts(make_model, make_training, make_samples):
    training = make_training()
    model, batch = make_model(training), make_samples(training.model).batch(slice(0, 2))
    before = model.expected_counts(batch)
    changed(model, log_scale=np.float32(0.5 * np.log(3.0)))
    np.testing.assert_allclose(model.expected_counts(batch), 3 * before, rtol=1e-5)


def test_bad_pixels_leave_the_loss(make_model, make_training, make_samples):
    training = make_training(UNET)
    model, samples = make_model(training), make_samples(training.model)
    without_heads(model)
    batch = samples.batch(slice(0, 2))
    assert not batch.mask.all()
    loss, _ = model.loss_and_gradients(batch)
    batch.x[..., batch.mask == 0] *= 1.0 + 1e-6  # bad pixels change only the first estimate
    assert model.loss_and_gradients(batch)[0] == pytest.approx(loss, rel=1e-4)


LOSSES = {
    "poisson": (UNET, {}),
    "mae": ({}, {"nll_weight": 0.0, "mae_weight": 1.0}),
    "all": (PAIRS, {"mae_weight": 0.5, "realspace_weight": 0.3, "realspace_mae_weight": 0.2}),
    "supervised": ({**CNN, "model_type": "supervised"}, {"realspace_weight": 0.1}),
    "cnn": ({**CNN, "gridsize": 2, "gaussian_smoothing_sigma": 0.6}, {}),
}


@pytest.mark.slow  # tests/parity tests the same on every engine
@pytest.mark.parametrize("case", LOSSES)
def test_gradients_match_finite_differences_of_the_reference(make_model, make_training, make_samples, case):
    fields, weights = LOSSES[case]
    training = make_training(fields, probe_trainable=True, **weights)
    model, batch = make_model(training), make_samples(training.model).batch(slice(0, 2))
    # Small initial heads and a scale of 1 would hide errors.
    rng = np.random.default_rng(0)
    start = {n: v + 0.03 * rng.normal(size=v.shape).astype(np.float32) for n, v in model.get_weights().items()}
    model.set_weights(start)
    constants = PhysicsConstants.of(training.model, model.calibration)
    _, gradients = model.loss_and_gradients(batch)
    # The global phase factor carries no gradient, but would change in a finite difference.
    patches = reference.reference_patches(training.model, start, constants, batch)
    phase_factor = None if batch.labels is None else global_phase_factor(patches, batch.labels, constants.weight)

    def loss_at(name, step):
        shifted = {**start, name: start[name].astype(np.float64) + step}
        return reference.reference_loss(training, shifted, constants, batch, phase_factor)

    kernels = [name for name in gradients if name.endswith("/kernel")]
    for name in [*kernels[:1], *kernels[-1:], *sorted(set(gradients) & {LOG_SCALE, PROBE})]:
        # Mostly along the gradient for a large slope, partly at random to detect a missing term.
        signs = np.sign(gradients[name])
        direction = np.where(rng.random(signs.shape) < 0.7, signs, rng.choice([-1.0, 1.0], signs.shape))
        h = 1e-7
        slope = (loss_at(name, h * direction) - loss_at(name, -h * direction)) / (2 * h)
        assert (gradients[name] * direction).sum() == pytest.approx(slope, rel=3e-3, abs=1e-6), name


@pytest.mark.slow  # tests/parity tests the same on every engine
@pytest.mark.parametrize(
    ("training", "frozen"),
    [
        ({}, {PROBE}),
        ({"probe_trainable": True}, set()),
        ({"intensity_scale_trainable": False}, {PROBE, LOG_SCALE}),
    ],
)
def test_gradients_exist_for_trained_weights_only(make_model, make_training, make_samples, training, frozen):
    config = make_training(**training)
    model = make_model(config)
    _, gradients = model.loss_and_gradients(make_samples(config.model).batch(slice(0, 2)))
    assert set(model.get_weights()) - set(gradients) == frozen
    assert all(np.isfinite(g).all() and g.dtype == np.float32 for g in gradients.values())


def test_a_masked_probe_stays_inside_its_support(make_model, make_training, make_samples):
    training = make_training({"probe_mask": True}, probe_trainable=True)
    model = make_model(training)
    _, gradients = model.loss_and_gradients(make_samples(training.model).batch(slice(0, 2)))
    outside = PhysicsConstants.of(training.model, model.calibration).probe_support == 0
    assert outside.any()
    assert not gradients[PROBE][:, outside].any()
    assert gradients[PROBE].any()


def test_missing_labels_are_an_error(make_model, make_training, make_samples):
    training = make_training({"model_type": "supervised"})
    model, samples = make_model(training), make_samples(training.model, with_labels=False)
    with pytest.raises(DataError, match="labels"):
        model.loss_and_gradients(samples.batch(slice(0, 2)))


def test_bfloat16_differs_a_little_from_float32(make_model, make_training, make_samples):
    training = make_training(CNN)
    batch = make_samples(training.model).batch(slice(0, 2))
    exact = make_model(training).predict_patches(batch)
    coarse = make_model(training, ExecutionConfig(device="cpu", precision="bf16-mixed")).predict_patches(batch)
    difference = np.abs(coarse - exact).max()
    assert 0 < difference < 0.05


def test_models_are_independent(make_model, make_training, make_samples):
    first, second = make_model(make_training(seed=1)), make_model(make_training({"gridsize": 2}, seed=2))
    batch = make_samples(first.config).batch(slice(0, 2))
    before = first.predict_patches(batch)
    second.set_weights({name: value + 0.1 for name, value in second.get_weights().items()})
    second.predict_patches(make_samples(second.config).batch(slice(0, 2)))
    np.testing.assert_array_equal(first.predict_patches(batch), before)
    np.testing.assert_array_equal(make_model(make_training(seed=1)).predict_patches(batch), before)


def test_an_absent_device_is_an_error_with_the_present_ones(make_model, make_training):
    with pytest.raises(DeviceError, match="cpu"):
        make_model(make_training(), ExecutionConfig(device="cuda:99"))


def test_a_late_number_of_threads_is_a_warning(make_model, make_training, caplog):
    make_model(make_training())
    make_model(make_training(), ExecutionConfig(device="cpu", precision="32-true", threads=61))
    assert "threads=61 has no effect" in caplog.text
