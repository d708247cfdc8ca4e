"""Pretrained network of the package: file size, recipe and matching models."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from ptycho_backend.config import ModelConfig, to_dict
from ptycho_backend.network.architectures import parameters
from ptycho_backend.network.shipped import SHIPPED, pretrained_weights, shipped_bundle
from ptycho_backend.pretraining.recipe import nominal_calibration, read_config

RECIPE = SHIPPED.parent / "config.yaml"


def test_the_file_is_small_and_has_no_pickle():
    assert SHIPPED.stat().st_size <= 2 * 2**20
    with zipfile.ZipFile(SHIPPED) as archive:
        assert {Path(name).suffix for name in archive.namelist()} <= {".json", ".h5"}


def test_the_model_file_belongs_to_the_recipe():
    bundle, config = shipped_bundle(), read_config(RECIPE)
    assert bundle.provenance["pretraining"] == to_dict(config)
    assert bundle.provenance["steps"] == config.steps
    assert to_dict(bundle.training) | {"backend": "auto"} == to_dict(config.training) | {"backend": "auto"}
    assert bundle.calibration.probe_guess_sha256 == ""
    np.testing.assert_array_equal(bundle.calibration.probe, nominal_calibration().probe)


def test_default_models_have_the_pretrained_network():
    for fields in ({}, {"N": 128}, {"gridsize": 2}, {"object_big": False}, {"model_type": "supervised"}):
        config = ModelConfig(**fields)
        weights = pretrained_weights(config)
        assert {name: value.shape for name, value in weights.items()} == {p.name: p.shape for p in parameters(config)}


@pytest.mark.parametrize(
    "fields",
    [{"n_filters_scale": 2}, {"unrolled_steps": 1}, {"initial_iterations": 0}, {"architecture": "cnn"}],
)
def test_other_networks_have_no_pretrained_weights(fields):
    assert pretrained_weights(ModelConfig(**fields)) is None
