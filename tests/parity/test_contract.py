"""Contract of every engine about models and weights (contract 1 to 4)."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest

from ptycho_backend.config import ExecutionConfig, ModelConfig, TrainingConfig
from ptycho_backend.engines.model import LOG_SCALE, PROBE
from ptycho_backend.errors import DeviceError, ModelFileError, PtychoError, ShapeError
from ptycho_backend.network.architectures import initial_weights
from ptycho_backend.testing import assert_close, assert_far
from ptycho_backend.testing.tolerances import COUNTS, PATCHES


@pytest.fixture(scope="module")
def merged(case_of):
    """Return a case with groups of four, two modes and bad pixels."""
    return case_of("unet-merged-modes-mask")


@pytest.fixture(scope="module")
def shared_model(model_for, merged):
    """Return a model that tests must not change."""
    return model_for(merged)


@pytest.fixture
def model(shared_model, merged):
    """Return the shared model; restore its weights afterwards."""
    yield shared_model
    shared_model.set_weights(merged.weights)


def test_an_engine_lists_devices_and_versions(backend):
    assert backend.devices()[0] == "cpu"
    versions = backend.versions()
    assert versions
    assert all(isinstance(version, str) and version[0].isdigit() for version in versions.values())


def test_a_model_holds_what_it_was_made_from(backend, model, merged, execution):
    assert model.backend == backend.name
    assert model.training is merged.training
    assert model.config is merged.training.model
    assert model.calibration is merged.samples.calibration
    assert model.execution == execution


@pytest.mark.parametrize("architecture", ["unet", "cnn"])
def test_initial_weights_are_those_of_the_seed(backend, execution, merged, architecture):
    calibration = merged.samples.calibration
    training = TrainingConfig(
        model=ModelConfig(N=32, n_filters_scale=1, unrolled_steps=1, architecture=architecture), seed=23
    )
    before = copy.deepcopy(training)
    weights = backend.create_model(training, calibration, execution).get_weights()
    expected = initial_weights(training.model, 23)
    expected[LOG_SCALE] = np.zeros((), np.float32)
    expected[PROBE] = np.stack([calibration.probe.real, calibration.probe.imag], axis=-1)
    assert set(weights) == set(expected)
    for name, value in expected.items():
        assert weights[name].dtype == np.float32
        np.testing.assert_array_equal(weights[name], value, err_msg=name)
    assert training == before


def test_weights_round_trip_exactly(model, merged):
    weights = model.get_weights()
    for name, value in merged.weights.items():
        np.testing.assert_array_equal(weights[name], value)
    model.set_weights(weights)
    assert all((model.get_weights()[name] == value).all() for name, value in weights.items())


def test_weights_are_copies_both_ways(model, merged):
    copies = model.get_weights()
    for value in copies.values():
        value += 1
    passed = {name: value.copy() for name, value in merged.weights.items()}
    model.set_weights(passed)
    for value in passed.values():
        value += 1
    for name, value in merged.weights.items():
        np.testing.assert_array_equal(model.get_weights()[name], value)


def test_weights_that_do_not_fit_are_errors_and_change_no_weight(model, merged):
    good = {name: value + 1 for name, value in merged.weights.items()}
    missing = {name: value for name, value in good.items() if name != PROBE}
    for bad, message in (
        (missing, "missing: probe"),
        (good | {"extra": np.zeros(1)}, "unknown: extra"),
        (good | {LOG_SCALE: np.zeros(1)}, "'log_scale'"),
        (good | {PROBE: good[PROBE] * np.nan}, "'probe'"),
    ):
        with pytest.raises(ModelFileError, match=message):
            model.set_weights(bad)
    for name, value in merged.weights.items():
        np.testing.assert_array_equal(model.get_weights()[name], value)


def test_predictions_change_no_state(model, merged):
    batch = merged.batch
    before = copy.deepcopy(dataclasses.asdict(batch))
    first = model.predict_patches(batch)
    loss, _ = model.loss_and_gradients(batch)
    np.testing.assert_array_equal(model.predict_patches(batch), first)
    assert model.loss_and_gradients(batch)[0] == loss
    for name, value in dataclasses.asdict(batch).items():
        np.testing.assert_array_equal(value, before[name])
    np.testing.assert_array_equal(model.get_weights()[PROBE], merged.weights[PROBE])


def test_many_batches_have_the_results_of_single_ones(model, merged):
    batches = [merged.batch] + [dataclasses.replace(merged.batch, x=merged.batch.x * scale) for scale in (0.9, 1.1)]
    for found, batch in zip(model.predictions(batches), batches, strict=True):
        assert_close(found, model.predict_patches(batch), PATCHES)
    assert list(model.predictions([])) == []


def test_the_scale_multiplies_the_counts(model, merged):
    counts = model.expected_counts(merged.batch)
    model.set_weights({**merged.weights, LOG_SCALE: merged.weights[LOG_SCALE] + np.float32(np.log(3) / 2)})
    assert_close(model.expected_counts(merged.batch), 3 * counts, COUNTS)


def test_members_of_a_group_agree_after_merging(model, merged):
    # All patches of a group come from one canvas, so each depends on all offsets.
    batch = merged.batch
    moved = dataclasses.replace(batch, offsets_px=batch.offsets_px[:, ::-1].copy())
    assert_far(model.predict_patches(moved), model.predict_patches(batch), PATCHES)


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        ({}, "poisson"),
        ({"mae_weight": 1.0}, "poisson"),
        ({"nll_weight": 0.0, "mae_weight": 1.0}, "mae"),
        ({"nll_weight": 0.0, "realspace_weight": 1.0}, "realspace"),
        ({"model": {"model_type": "supervised"}}, "supervised"),
    ],
)
def test_losses_have_one_name_on_every_engine(backend, execution, merged, training, expected):
    fields = {"N": 32, "n_filters_scale": 1, "unrolled_steps": 1, **training.get("model", {})}
    settings = TrainingConfig(**{**training, "model": ModelConfig(**fields)})
    model = backend.create_model(settings, merged.samples.calibration, execution)
    assert (model.loss_name, model.train_loss_name, model.val_loss_name) == (
        expected,
        f"{expected}_train_loss",
        f"{expected}_val_loss",
    )


def test_a_missing_device_is_an_error(backend, merged):
    with pytest.raises(DeviceError, match="cuda:99"):
        backend.create_model(merged.training, merged.samples.calibration, ExecutionConfig(device="cuda:99"))


class TestOperators:
    """Operators beyond the checks: names, devices and wrong arguments (contract 8)."""

    @pytest.fixture(scope="class")
    def operators(self, backend, device):
        return backend.operators(device)

    def test_the_device_has_its_full_name(self, operators, backend, device):
        assert operators.device in backend.devices()
        assert operators.device.startswith(device)
        assert backend.operators().device == (backend.devices()[1:] or ("cpu",))[0]

    def test_a_missing_device_is_an_error(self, backend):
        with pytest.raises(DeviceError, match="cuda:99"):
            backend.operators("cuda:99")

    def test_results_are_numpy_and_single_precision(self, operators):
        wave = np.ones((4, 6), np.complex128)
        result = operators.evaluate("far_field", wave[::-1])
        assert (type(result), result.dtype, result.shape) == (np.ndarray, np.complex64, (4, 6))
        assert operators.gradient("far_field", wave, cotangent=wave).dtype == np.complex64
        ones = np.ones((1, 1, 4, 4))
        assert type(operators.evaluate("poisson", ones, ones, ones[0, 0])) is float
        assert operators.optimiser_steps(ones[0, 0], [ones[0, 0]], 0.1).dtype == np.float32

    def test_wrong_arguments_are_errors(self, operators):
        wave, real = np.ones((3, 3), complex), np.ones((1, 1, 3, 3))
        with pytest.raises(PtychoError, match="'far_field'"):
            operators.evaluate("far_feild", wave)
        with pytest.raises(PtychoError, match="No operator"):
            operators.evaluate("smooth_abs", wave)
        with pytest.raises(ShapeError, match="pass cotangent"):
            operators.gradient("far_field", wave)
        with pytest.raises(ShapeError, match="leave cotangent out"):
            operators.gradient("poisson", real, real, real[0, 0], cotangent=real)
        with pytest.raises(ValueError):
            operators.evaluate("intensity", real.astype(complex), real[0].astype(complex))
