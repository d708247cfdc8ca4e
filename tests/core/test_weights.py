"""Weights that do not fit are refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_backend.core.weights import check_weights
from ptycho_backend.errors import ModelFileError

SHAPES = {"step1/head/kernel": (3, 3, 8, 2), "step1/head/bias": (2,), "log_scale": ()}


def weights(**changes):
    return {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()} | changes


def test_fitting_weights_pass():
    check_weights(weights(), SHAPES)


def test_a_missing_one_is_named():
    incomplete = weights()
    del incomplete["step1/head/bias"]
    with pytest.raises(ModelFileError, match="missing: step1/head/bias"):
        check_weights(incomplete, SHAPES)


def test_an_unknown_one_is_named():
    with pytest.raises(ModelFileError, match="unknown: decoder"):
        check_weights(weights(decoder=np.zeros(3)), SHAPES)


def test_a_misspelt_one_is_matched():
    renamed = weights()
    renamed["step1/heads/bias"] = renamed.pop("step1/head/bias")
    with pytest.raises(ModelFileError, match="rename 'step1/heads/bias' to 'step1/head/bias'"):
        check_weights(renamed, SHAPES)


def test_a_misshapen_one_is_named():
    with pytest.raises(ModelFileError, match=r"'step1/head/bias' of shape \(2,\)"):
        check_weights(weights(**{"step1/head/bias": np.zeros((2, 1))}), SHAPES)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(value):
    with pytest.raises(ModelFileError, match="non-finite"):
        check_weights(weights(log_scale=np.float32(value)), SHAPES)
