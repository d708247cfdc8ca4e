"""Patches, counts, losses and gradients of every engine against the float64 oracle (contract 4)."""

from __future__ import annotations

import numpy as np
import pytest

from ptycho_backend.engines.model import LOG_SCALE, PROBE
from ptycho_backend.testing import assert_close, assert_far
from ptycho_backend.testing.tolerances import COUNTS, GRADIENT, LOSS, PATCHES


def test_patches(outputs, prepared):
    assert outputs["patches"].dtype == np.complex64
    assert_close(outputs["patches"], prepared.model_case.patches, PATCHES)


def test_patches_after_one_more_step(outputs, prepared):
    if outputs["constrained"] is None:
        return
    assert_close(outputs["constrained"], prepared.model_case.constrained_patches, PATCHES)
    if prepared.model_case.config.architecture == "unet":
        assert_far(outputs["constrained"], outputs["patches"], PATCHES)


def test_counts(outputs, prepared):
    assert outputs["counts"].dtype == np.float32
    assert_close(outputs["counts"], prepared.model_case.counts, COUNTS)


def test_loss(outputs, prepared):
    assert outputs["loss"] == pytest.approx(prepared.model_case.loss(), rel=LOSS.relative)


def test_gradients_exist_for_trained_weights_only(outputs, prepared):
    training = prepared.model_case.training
    data_terms = training.model.model_type == "pinn" and training.nll_weight + training.mae_weight > 0
    frozen = set()
    if not training.probe_trainable:
        frozen.add(PROBE)
    if not (training.intensity_scale_trainable and data_terms):
        frozen.add(LOG_SCALE)
    assert set(outputs["gradients"]) == set(prepared.model_case.weights) - frozen
    for name, gradient in outputs["gradients"].items():
        assert gradient.dtype == np.float32
        assert gradient.shape == prepared.model_case.weights[name].shape
        assert np.abs(gradient).max() > 0, f"{name} is never trained"


def test_gradients_equal_the_slopes_of_the_oracle(outputs, prepared):
    gradients, directions = outputs["gradients"], prepared.model_case.directions
    assert len(prepared.slopes) > (len(gradients) if prepared.case.n_groups == 1 else 0)
    for names, expected in prepared.slopes.items():
        slope = sum(np.vdot(gradients[name], directions[name]) for name in names)
        # Root mean square of the derivative along a random direction.
        squares = [np.square(gradients[name], dtype=float).mean() for name in names]
        assert slope == pytest.approx(expected, abs=GRADIENT.relative * np.sqrt(sum(squares))), names


def test_every_part_of_the_loss_counts(outputs, prepared):
    training = prepared.model_case.training
    supervised, unet = training.model.model_type == "supervised", training.model.architecture == "unet"
    more = 0.5 * (1 + outputs["loss"])  # large enough beside the other terms
    others = {"realspace_weight": training.realspace_weight + more}
    if not supervised:
        others |= {name: getattr(training, name) + more for name in ("nll_weight", "mae_weight")}
    if not supervised and unet:
        others["constraint_share"] = 0.25
    if not supervised and prepared.model_case.batch.labels is not None:
        others["realspace_mae_weight"] = training.realspace_mae_weight + more
    for name, value in others.items():
        assert outputs["loss"] != pytest.approx(prepared.model_case.loss(**{name: value}), rel=10 * LOSS.relative), name


def test_the_option_of_the_case_has_an_effect(outputs, prepared, switched):
    """Counts differ from those of the oracle with the other value of the option."""
    assert_far(outputs["counts"], switched, COUNTS, f"counts with {prepared.case.off}")
