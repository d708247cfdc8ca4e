"""Hypothesis strategies draw valid inputs, reach the edge cases, vary and shrink."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import Phase, assume, find, given, settings
from hypothesis import strategies as st

from ptycho_backend.checks import check_training
from ptycho_backend.config import ModelConfig, validate
from ptycho_backend.data.scan import Scan
from ptycho_backend.engines.model import LOG_SCALE, PROBE
from ptycho_backend.errors import InertOptionWarning
from ptycho_backend.network.architectures import parameters
from ptycho_backend.network.weights import check_weights
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.testing import strategies

SMALL_SCANS = strategies.scans()
POSITIONS = np.arange(20.0).reshape(10, 2)
# Enough for cases that appear in one draw of ten.
SEARCH = settings(max_examples=300, derandomize=True, deadline=None, database=None)


def reaches(strategy, condition):
    """Return whether some example fulfils a condition."""
    results = []

    @settings(SEARCH, phases=[Phase.generate])
    @given(strategy)
    def evaluate(value):
        results.append(bool(condition(value)))

    evaluate()
    return any(results)


class TestScans:
    @given(SMALL_SCANS)
    def test_valid_and_calibrated(self, scan):
        assert isinstance(scan, Scan)  # checked by its constructor
        assert len(scan) == len(scan.positions_px)
        assert scan.mask.any()
        assert calibrate(scan, ModelConfig(N=scan.N)).rms_input_scale > 0

    @given(SMALL_SCANS)
    def test_a_known_object_covers_every_window(self, scan):
        assume(scan.obj is not None)
        first = np.floor(scan.positions_px + 0.5) - scan.N // 2 - scan.obj_origin_px
        assert first.min() >= 0
        assert (first.max(axis=0) + scan.N <= scan.obj.shape).all()

    @pytest.mark.parametrize(
        "condition",
        [
            lambda scan: scan.obj is None,
            lambda scan: scan.obj is not None,
            lambda scan: scan.mask.all(),
            lambda scan: not scan.mask.all(),
            lambda scan: len(scan.probe) == 1,
            lambda scan: len(scan.probe) == 3,
            lambda scan: scan.measurement == "amplitude",
            lambda scan: scan.patterns.dtype == np.uint16,
            lambda scan: len(scan) == 1,
            lambda scan: len(scan) == 9,
            lambda scan: scan.patterns.max() > 255,
            lambda scan: (scan.patterns.sum(axis=(1, 2)) == 0).any() or scan.patterns.mean() < 0.2,
            lambda scan: len(np.unique(scan.positions_px, axis=0)) < len(scan),
        ],
    )
    def test_edge_cases(self, condition):
        assert reaches(SMALL_SCANS, condition)

    def test_shrinking(self):
        smallest = find(SMALL_SCANS, lambda scan: len(scan.probe) > 1, settings=SEARCH)
        assert (len(smallest), len(smallest.probe), smallest.N) == (1, 2, 8)

    @given(strategies.scans(N=10, smallest=3, largest=4))
    def test_fixed_sizes(self, scan):
        assert scan.N == 10
        assert len(scan) in (3, 4)


class TestMasks:
    @given(strategies.masks(6))
    def test_at_least_one_good_pixel(self, mask):
        assert (mask.dtype, mask.shape) == (np.bool_, (6, 6))
        assert mask.any()

    def test_edge_cases(self):
        assert reaches(strategies.masks(6), lambda mask: mask.all())
        assert reaches(strategies.masks(6), lambda mask: mask.mean() < 0.6)


class TestGroups:
    @given(strategies.groups(POSITIONS))
    def test_members_are_different_positions_around_their_mean(self, groups):
        assert groups.offsets_px.shape == (*groups.indices.shape, 2)
        np.testing.assert_allclose(groups.offsets_px.mean(axis=1), 0, atol=1e-12)
        assert all(len(set(row)) == groups.channels for row in groups.indices.tolist())

    @pytest.mark.parametrize("channels", [1, 4, 9])
    def test_all_sizes_appear(self, channels):
        assert reaches(strategies.groups(POSITIONS), lambda groups: groups.channels == channels)
        fixed = strategies.groups(POSITIONS, gridsize=int(np.sqrt(channels)))
        assert reaches(fixed, lambda groups: groups.channels == channels and len(groups) < 10)

    @given(strategies.groups(POSITIONS[:3]))
    def test_few_positions_give_single_groups(self, groups):
        assert groups.channels == 1


class TestConfigs:
    @given(strategies.training_configs())
    def test_valid(self, training):
        validate(training)

    @given(st.data())
    def test_trainable_on_a_scan_of_their_size(self, data):
        training = data.draw(strategies.training_configs(data.draw(strategies.model_configs(N=32))))
        scan = data.draw(strategies.scans(N=32, smallest=4).filter(lambda scan: scan.obj is not None))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InertOptionWarning)
            check_training(training, scan)

    @pytest.mark.parametrize(
        "condition",
        [
            lambda training: training.model.architecture == "cnn" and training.model.gridsize == 2,
            lambda training: training.model.architecture == "unet" and training.model.unrolled_steps == 3,
            lambda training: training.model.model_type == "supervised",
            lambda training: training.nll_weight == 0 and training.mae_weight == 0,
            lambda training: training.validation_fraction == 0,
            lambda training: training.probe_trainable and training.model.probe_mask,
        ],
    )
    def test_edge_cases(self, condition):
        assert reaches(strategies.training_configs(), condition)

    @given(strategies.training_configs(ModelConfig(N=48), seed=7))
    def test_fixed_fields(self, training):
        assert (training.model.N, training.seed) == (48, 7)


class TestWeights:
    @given(st.data())
    def test_names_and_shapes(self, data):
        config = data.draw(strategies.model_configs(N=32))
        weights = data.draw(strategies.weights(config, modes=2))
        shapes = {parameter.name: parameter.shape for parameter in parameters(config)}
        check_weights(weights, {**shapes, LOG_SCALE: (), PROBE: (2, 32, 32, 2)})
        assert all(value.dtype == np.float32 and np.abs(value).max() > 0 for value in weights.values())

    def test_draws_differ(self):
        strategy = strategies.weights(ModelConfig(N=32, n_filters_scale=1, unrolled_steps=1))
        sums = set()

        @settings(max_examples=10)
        @given(strategy)
        def draw(weights):
            sums.add(float(weights["step1/head/kernel"].sum()))

        draw()
        assert len(sums) > 3


@given(strategies.offsets(3, 2.0), strategies.offsets(3, 2.0, whole=True))
def test_offsets_stay_in_range(fractional, whole):
    assert fractional.shape == whole.shape == (3, 2)
    assert np.abs(fractional).max() <= 2
    np.testing.assert_array_equal(whole, np.rint(whole))


@pytest.mark.parametrize("modes", [1, 2, 3])
def test_all_numbers_of_modes_appear(modes):
    assert reaches(strategies.probes(8), lambda probe: len(probe) == modes)
