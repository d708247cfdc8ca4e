"""Interpreter of network descriptions: memory layout, canonical weights, freed values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ptycho_backend.config import ModelConfig
from ptycho_backend.network.architectures import describe, initial_weights
from ptycho_torch.engine import network as module
from ptycho_torch.engine.network import Interpreter, from_canonical, to_canonical

CONFIG = ModelConfig(N=32, n_filters_scale=1, unrolled_steps=1)


def interpreter(config=CONFIG, seed=0) -> Interpreter:
    (description,) = describe(config).values()
    built = Interpreter(description)
    built.load_canonical(initial_weights(config, seed))
    return built


def test_all_values_are_channels_last(monkeypatch):
    calls, conv2d = [], module.F.conv2d

    def spy(value, kernel, bias, padding):
        calls.append((value, kernel))
        return conv2d(value, kernel, bias, padding=padding)

    monkeypatch.setattr(module.F, "conv2d", spy)
    (output,) = interpreter()({"estimate": torch.randn(3, 2, 32, 32)})
    assert len(calls) == 15
    for value, kernel in calls:
        assert value.is_contiguous(memory_format=torch.channels_last)
        assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert output.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("architecture", ["unet", "cnn"])
def test_kernels_have_true_channels_last_strides(architecture):
    # With one input or output channel, wrong strides pass is_contiguous and break the backward pass.
    for value in interpreter(ModelConfig(N=32, unrolled_steps=1, architecture=architecture)).values.values():
        if value.ndim == 4:
            _, inner, height, width = value.shape
            assert value.stride() == (inner * height * width, 1, inner * width, inner)


def test_canonical_layout_is_height_width_in_out():
    kernel = torch.arange(3 * 3 * 2 * 5).reshape(3, 3, 2, 5)
    assert from_canonical(kernel).shape == (5, 2, 3, 3)
    assert from_canonical(kernel)[4, 1, 0, 2] == kernel[0, 2, 1, 4]
    assert torch.equal(to_canonical(from_canonical(kernel)), kernel)
    bias = torch.arange(5)
    assert to_canonical(bias) is bias


def test_weights_survive_a_round_trip():
    weights = initial_weights(CONFIG, 3)
    back = interpreter(seed=3).by_name
    assert list(back) == list(weights)
    for name, value in weights.items():
        np.testing.assert_array_equal(to_canonical(back[name].detach()).numpy(), value)


def test_interpreters_of_one_description_share_no_memory():
    (description,) = describe(CONFIG).values()
    one, other = Interpreter(description), Interpreter(description)
    one.load_canonical(initial_weights(CONFIG, 0))
    other.load_canonical(initial_weights(CONFIG, 1))
    x = {"estimate": torch.ones(1, 2, 32, 32)}
    assert not torch.equal(one(x)[0], other(x)[0])
    storage = {value.data_ptr() for value in one.values.values()}
    assert storage.isdisjoint(value.data_ptr() for value in other.values.values())


def test_space_to_depth_is_row_by_row_and_depth_to_space_its_inverse():
    value = torch.randn(2, 4, 6, 3).permute(0, 3, 1, 2)  # channels-last, the layout between convolutions
    expected = torch.cat([value[:, :, a::2, b::2] for a in (0, 1) for b in (0, 1)], dim=1)
    blocks = module.OPERATIONS["space_to_depth"]([value], {})
    assert torch.equal(blocks, expected)
    assert blocks.is_contiguous(memory_format=torch.channels_last)
    back = module.OPERATIONS["depth_to_space"]([blocks], {})
    assert torch.equal(back, value)
    assert back.is_contiguous(memory_format=torch.channels_last)


def test_values_are_freed_after_their_last_use(monkeypatch):
    alive, run = [], Interpreter._run

    def spy(self, op, operands):
        import sys

        alive.append(len(sys._getframe(1).f_locals["values"]))
        return run(self, op, operands)

    monkeypatch.setattr(Interpreter, "_run", spy)
    interpreter()({"estimate": torch.randn(1, 2, 32, 32)})
    assert max(alive) <= 6  # three skips and the values of the present operation
