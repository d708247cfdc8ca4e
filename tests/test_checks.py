"""Rules for several options together."""

import warnings

import numpy as np
import pytest

from ptycho_backend.checks import check_size, check_training, inert_options
from ptycho_backend.config import ModelConfig, TrainingConfig
from ptycho_backend.data.scan import Scan
from ptycho_backend.errors import ConfigError, InertOptionWarning, ShapeError


def scan(N=32):
    return Scan(np.ones((3, N, N), np.uint16), np.zeros((3, 2)), np.ones((N, N), complex), source="small.npz")


def training(model=None, **fields):
    return TrainingConfig(model=ModelConfig(N=32, **(model or {})), **fields)


INERT = [
    ({"amp_activation": "relu"}, {}, "amp_activation", "architecture='unet' has no such head"),
    ({"decoder_outputs": "real_imaginary"}, {}, "decoder_outputs", "architecture='unet' has no such head"),
    ({"pad_object": False}, {}, "pad_object", "architecture='unet' has no such head"),
    ({"probe_big": False}, {}, "probe_big", "architecture='unet' has no such head"),
    ({"architecture": "cnn", "unrolled_steps": 3}, {}, "unrolled_steps", "architecture='cnn' is not unrolled"),
    ({"architecture": "cnn", "initial_iterations": 3}, {}, "initial_iterations", "architecture='cnn' is not unrolled"),
    ({"architecture": "cnn"}, {"constraint_share": 0.5}, "constraint_share", "architecture='cnn' has no such step"),
    (
        {"architecture": "cnn", "pad_object": False, "probe_big": False},
        {},
        "probe_big",
        "pad_object=False already predicts the whole window",
    ),
    ({"object_big": False}, {}, "object_big", "gridsize=1 has nothing to merge"),
    ({}, {"neighbor_count": 12}, "neighbor_count", "gridsize=1 has no neighbours"),
    ({"model_type": "supervised"}, {"nll_weight": 0.5}, "nll_weight", "fitted to labels"),
    ({"model_type": "supervised"}, {"mae_weight": 0.5}, "mae_weight", "fitted to labels"),
    ({"model_type": "supervised"}, {"realspace_mae_weight": 0.5}, "realspace_mae_weight", "fitted to labels"),
]


@pytest.mark.parametrize(
    ("model", "fields", "name", "why"), INERT, ids=[f"{case[2]}-{i}" for i, case in enumerate(INERT)]
)
def test_inert_option_gives_one_warning(model, fields, name, why):
    config = training(model, **fields)
    (message,) = inert_options(config)
    assert message.startswith(f"{name} has no effect: ")
    assert why in message
    with pytest.warns(InertOptionWarning, match=name):
        check_training(config, scan())


EFFECTIVE = [
    {},
    {"architecture": "cnn", "amp_activation": "relu", "pad_object": False},
    {"architecture": "cnn", "probe_big": False},
    {"gridsize": 2, "object_big": False},
    {"unrolled_steps": 4, "initial_iterations": 3},
    {"model_type": "supervised"},
    {"probe_mask": True, "gaussian_smoothing_sigma": 1.0, "n_filters_scale": 1},
]


@pytest.mark.parametrize("model", EFFECTIVE, ids=str)
def test_effective_options_give_no_warning(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_training(training(model), scan())


def test_neighbor_count_has_an_effect_on_groups():
    assert inert_options(training({"gridsize": 2}, neighbor_count=12)) == []


def test_several_inert_options():
    config = training({"object_big": False, "amp_activation": "swish"}, neighbor_count=3)
    assert [message.split()[0] for message in inert_options(config)] == [
        "amp_activation",
        "object_big",
        "neighbor_count",
    ]


def test_size_error_contains_both_sizes_and_the_file():
    with pytest.raises(ShapeError) as caught:
        check_size(ModelConfig(N=64), scan(32))
    text = str(caught.value)
    assert "64×64" in text
    assert "32×32" in text
    assert "small.npz" in text
    check_size(ModelConfig(N=32), scan(32))


def test_training_needs_a_loss():
    with pytest.raises(ConfigError, match="needs a loss"):
        check_training(training(nll_weight=0.0), scan())


@pytest.mark.parametrize("name", ["mae_weight", "realspace_mae_weight"])
def test_one_other_loss_suffices(name):
    check_training(training(nll_weight=0.0, **{name: 1.0}), scan())


def test_total_variation_alone_is_no_loss():
    """The total variation alone has its minimum at an empty object."""
    with pytest.raises(ConfigError, match="needs a loss"):
        check_training(training(nll_weight=0.0, realspace_weight=1.0), scan())
