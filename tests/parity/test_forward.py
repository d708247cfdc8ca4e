"""Patches, counts, losses and gradients of every engine against the float64 oracle (contract 4)."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_backend.engines.model import LOG_SCALE, PROBE
from ptycho_backend.testing import assert_close, assert_far
from ptycho_backend.testing.tolerances import COUNTS, GRADIENT, LOSS, PATCHES


def test_patches(asked, prepared):
    assert asked["patches"].dtype == np.complex64
    assert_close(asked["patches"], prepared.asked.patches, PATCHES)


def test_patches_after_one_more_step(asked, prepared):
    if asked["consistent"] is None:
        return
    assert_close(asked["consistent"], prepared.asked.consistent, PATCHES)
    if prepared.asked.config.architecture == "unet":
        assert_far(asked["consistent"], asked["patches"], PATCHES)


def test_counts(asked, prepared):
    assert asked["counts"].dtype == np.float32
    assert_close(asked["counts"], prepared.asked.counts, COUNTS)


def test_loss(asked, prepared):
    assert asked["loss"] == pytest.approx(prepared.asked.loss(), rel=LOSS.relative)


def test_gradients_are_there_for_all_trained_weights_and_no_other(asked, prepared):
    training = prepared.asked.training
    data_terms = training.model.model_type == "pinn" and training.nll_weight + training.mae_weight > 0
    frozen = set()
    if not training.probe_trainable:
        frozen.add(PROBE)
    if not (training.intensity_scale_trainable and data_terms):
        frozen.add(LOG_SCALE)
    assert set(asked["gradients"]) == set(prepared.asked.weights) - frozen
    for name, gradient in asked["gradients"].items():
        assert gradient.dtype == np.float32
        assert gradient.shape == prepared.asked.weights[name].shape
        assert np.abs(gradient).max() > 0, f"{name} is never trained"


def test_gradients_are_the_slopes_of_the_oracle(asked, prepared):
    gradients, directions = asked["gradients"], prepared.asked.directions
    assert len(prepared.slopes) > (len(gradients) if prepared.case.n_groups == 1 else 0)
    for names, expected in prepared.slopes.items():
        slope = sum(np.vdot(gradients[name], directions[name]) for name in names)
        # What a random direction sees of a gradient on average.
        squares = [np.square(gradients[name], dtype=float).mean() for name in names]
        assert slope == pytest.approx(expected, abs=GRADIENT.relative * np.sqrt(sum(squares))), names


def test_every_part_of_the_loss_counts(asked, prepared):
    training = prepared.asked.training
    supervised, unet = training.model.model_type == "supervised", training.model.architecture == "unet"
    more = 0.5 * (1 + asked["loss"])  # enough to show beside the other terms
    others = {"realspace_weight": training.realspace_weight + more}
    if not supervised:
        others |= {name: getattr(training, name) + more for name in ("nll_weight", "mae_weight")}
    if not supervised and unet:
        others["constraint_share"] = 0.25
    if not supervised and prepared.asked.batch.labels is not None:
        others["realspace_mae_weight"] = training.realspace_mae_weight + more
    for name, value in others.items():
        assert asked["loss"] != pytest.approx(prepared.asked.loss(**{name: value}), rel=10 * LOSS.relative), name


def test_the_comparison_would_notice_the_other_value_of_an_option(asked, prepared, switched):
    """Every case differs from the oracle of a model whose option has another value: the option has an effect."""
    assert_far(asked["counts"], switched, COUNTS, f"counts with {prepared.case.off}")
