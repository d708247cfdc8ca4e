"""The interpreter: channels-last inside, canonical outside."""

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


def test_values_stay_channels_last_all_the_way(monkeypatch):
    seen, real = [], module.F.conv2d

    def spy(value, kernel, bias, padding):
        seen.append((value, kernel))
        return real(value, kernel, bias, padding=padding)

    monkeypatch.setattr(module.F, "conv2d", spy)
    (output,) = interpreter()({"estimate": torch.randn(3, 2, 32, 32)})
    assert len(seen) == 15
    for value, kernel in seen:
        assert value.is_contiguous(memory_format=torch.channels_last)
        assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert output.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("architecture", ["unet", "cnn"])
def test_kernels_have_true_channels_last_strides(architecture):
    # With one input or output channel, strides can look right and still break a backward pass.
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


def test_weights_come_back_as_they_went_in():
    weights = initial_weights(CONFIG, 3)
    back = interpreter(seed=3).by_name
    assert list(back) == list(weights)
    for name, value in weights.items():
        np.testing.assert_array_equal(to_canonical(back[name].detach()).numpy(), value)


def test_two_interpreters_of_one_description_share_nothing():
    (description,) = describe(CONFIG).values()
    one, other = Interpreter(description), Interpreter(description)
    one.load_canonical(initial_weights(CONFIG, 0))
    other.load_canonical(initial_weights(CONFIG, 1))
    x = {"estimate": torch.ones(1, 2, 32, 32)}
    assert not torch.equal(one(x)[0], other(x)[0])
    storage = {value.data_ptr() for value in one.values.values()}
    assert storage.isdisjoint(value.data_ptr() for value in other.values.values())


def test_blocks_become_channels_row_by_row_and_come_back():
    value = torch.randn(2, 4, 6, 3).permute(0, 3, 1, 2)  # channels-last, as values are between convolutions
    expected = torch.cat([value[:, :, a::2, b::2] for a in (0, 1) for b in (0, 1)], dim=1)
    blocks = module.OPERATIONS["space_to_depth"]([value], {})
    assert torch.equal(blocks, expected)
    assert blocks.is_contiguous(memory_format=torch.channels_last)
    back = module.OPERATIONS["depth_to_space"]([blocks], {})
    assert torch.equal(back, value)
    assert back.is_contiguous(memory_format=torch.channels_last)


def test_values_that_nothing_reads_any_more_are_let_go(monkeypatch):
    alive, real = [], Interpreter._run

    def spy(self, op, inputs):
        import sys

        alive.append(len(sys._getframe(1).f_locals["values"]))
        return real(self, op, inputs)

    monkeypatch.setattr(Interpreter, "_run", spy)
    interpreter()({"estimate": torch.randn(1, 2, 32, 32)})
    assert max(alive) <= 6  # three skips, and what is being worked on
