"""PyTorch model: weights, pickling, devices, threads and precision."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
import torch

from ptycho_backend.config import ExecutionConfig
from ptycho_backend.errors import DeviceError
from ptycho_backend.physics.losses import half_deviance
from ptycho_torch.engine import physics
from ptycho_torch.engine.device import resolve_device


@pytest.mark.parametrize("architecture", ["unet", "cnn"])
@pytest.mark.parametrize("n", [1, 2])
def test_gradients_are_finite_for_any_batch_size(setup, architecture, n):
    model, samples = setup(architecture=architecture)
    loss, gradients = model.loss_and_gradients(samples.batch(slice(0, n)))
    assert np.isfinite(loss)
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


def test_models_share_no_memory(setup):
    one, samples = setup()
    other, _ = setup()
    batch = samples.batch(slice(0, 2))
    before = other.predict_patches(batch)
    one.set_weights({name: value * 1.5 for name, value in one.get_weights().items()})
    np.testing.assert_array_equal(other.predict_patches(batch), before)
    storage = {p.data_ptr() for p in one.parameters().values()}
    assert storage.isdisjoint(p.data_ptr() for p in other.parameters().values())


def test_set_weights_copies(setup):
    model, _ = setup()
    weights = model.get_weights()
    model.set_weights(weights)
    weights["log_scale"] += 1
    weights["step1/head/bias"][:] = 9
    assert model.get_weights()["log_scale"] == 0
    assert model.get_weights()["step1/head/bias"].max() == 0


def test_the_module_can_be_pickled_and_its_state_loaded_without_pickle(setup):
    model, _ = setup(gaussian_smoothing_sigma=0.5)
    copy = pickle.loads(pickle.dumps(model.module))  # noqa: S301 - made here
    state = model.module.state_dict()
    assert all(torch.equal(value, copy.state_dict()[name]) for name, value in state.items())
    stream = io.BytesIO()
    torch.save(state, stream)
    stream.seek(0)
    assert set(torch.load(stream, weights_only=True)) == set(state)


def test_every_weight_is_registered_with_torch(setup):
    model, _ = setup(training={"probe_trainable": True})
    registered = {id(p) for p in model.module.parameters()}
    assert {id(p) for p in model.parameters().values()} == registered
    assert all(p.requires_grad for p in model.module.parameters())


def test_inference_makes_no_autograd_graph(setup):
    model, samples = setup()
    with torch.inference_mode():
        assert not model.module(model_batch(samples)).requires_grad
    model.predict_patches(samples.batch(slice(0, 2)))
    assert all(p.grad is None for p in model.module.parameters())


def model_batch(samples):
    from ptycho_torch.engine.module import to_tensors

    return to_tensors(samples.batch(slice(0, 2)))


@pytest.mark.parametrize("device", ["cuda:99", "mps", "tpu"])
def test_an_absent_device_is_an_error_with_its_name(device):
    with pytest.raises(DeviceError, match=device):
        resolve_device(device)


def test_auto_is_the_first_gpu_or_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(DeviceError, match="sees 0 GPU"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(resolve_device(name)) for name in ("auto", "cuda", "gpu", "cuda:1")] == [
        "cuda:0",
        "cuda:0",
        "cuda:0",
        "cuda:1",
    ]


def test_a_configured_number_of_threads_is_set(setup):
    before = torch.get_num_threads()
    try:
        setup(ExecutionConfig(device="cpu", precision="32-true", threads=1))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_only_convolutions_use_bfloat16(setup):
    model, samples = setup(ExecutionConfig(device="cpu", precision="bf16-mixed"))
    exact, _ = setup()
    batch = samples.batch(slice(0, 2))
    patches, reference = model.predict_patches(batch), exact.predict_patches(batch)
    assert patches.dtype == np.complex64
    assert 0 < np.abs(patches - reference).max() < 0.02
    assert {value.dtype for value in model.get_weights().values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("k", [1.0, 3e4, 1e9, 1e-30, 1e-44])
@pytest.mark.parametrize("lam", [0.0, 1e-3, 0.4, 2e4, 1e9])
def test_half_deviance_in_float32_equals_float64(lam, k):
    expected = torch.tensor(lam, requires_grad=True)
    value = physics.half_deviance(expected, torch.tensor(k))
    value.backward()
    counts = float(np.float32(k))
    assert float(value.detach()) == pytest.approx(
        float(half_deviance(np.array(lam), np.array(counts))), rel=1e-3, abs=1e-6
    )
    if lam > 1e-3:
        assert float(expected.grad) == pytest.approx(1 - counts / lam, rel=1e-3, abs=1e-3)
