"""Pretraining options, and labelled batches of the curriculum."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import yaml

import ptycho_backend as pb
from ptycho_backend.config import to_dict
from ptycho_backend.errors import ConfigError
from ptycho_backend.network.architectures import parameter_count
from ptycho_backend.physics import forward, losses
from ptycho_backend.physics.propagation import far_field
from ptycho_backend.pretraining.labels import sharp_patches, sinc_matrix
from ptycho_backend.pretraining.recipe import (
    Curriculum,
    PretrainingConfig,
    check_same,
    config_from,
    nominal_calibration,
    read_config,
)
from ptycho_backend.pretraining.training_set import MARGIN_PX, Recipe

SMALL = {"sizes": {"32": 1.0}, "pixels": 16 * 32**2}


def small(recipe=None, **fields) -> PretrainingConfig:
    """Return a configuration with batches of 4 patterns of 32×32, four to a scan."""
    return config_from({"recipe": {**SMALL, **(recipe or {})}, "batch_pixels": 4 * 32**2, **fields})


class TestCurriculum:
    def test_batches_depend_on_seed_and_number_alone(self):
        config = small()
        curriculum = Curriculum(config)
        first_batches = [curriculum.at(step) for step in range(20)]
        for step in (19, 3, 16):
            again = Curriculum(config).at(step)
            np.testing.assert_array_equal(again.batch.x, first_batches[step].batch.x)
            np.testing.assert_array_equal(again.batch.labels, first_batches[step].batch.labels)
            np.testing.assert_array_equal(again.constants.probe, first_batches[step].constants.probe)
        other = Curriculum(small(seed=1)).at(3)
        assert np.abs(other.batch.x - first_batches[3].batch.x).max() > 0.01

    def test_scans_alternate(self):
        curriculum = Curriculum(small(scans_at_once=2))
        probes = [curriculum.at(step).constants.probe for step in range(9)]
        same = [[np.array_equal(a, b) for b in probes] for a in probes]
        assert same[0] == [True, False] * 4 + [False]

    def test_batch_contains_neighbours_with_their_offsets(self):
        curriculum = Curriculum(
            small({"step_of_diameter": [0.4, 0.4], "diameter_fraction": [0.4, 0.4], "scans": {"raster": 1}})
        )
        step_px, others = 0.4 * 0.4 * 32, set()
        for number in range(8):
            batch = curriculum.at(number).batch
            offsets = batch.offsets_px[:, 0]
            np.testing.assert_allclose(offsets.mean(axis=0), 0.0, atol=1e-5)
            assert np.hypot(*offsets.T).max() < 2.5 * step_px
            assert batch.canvas_px >= 32 + 2 * np.abs(offsets).max()
            others.add(batch.x.tobytes())
        assert len(others) > 4

    def test_labels_are_consistent_with_offsets(self):
        batch, constants = Curriculum(small({"detail_sigma_px": [3.0, 3.0]})).at(0)
        labels, offsets = batch.labels.transpose(1, 0, 2, 3), batch.offsets_px.transpose(1, 0, 2).astype(float)
        weight = constants.weight.astype(float)
        again = forward.consistent_patches(labels, offsets, weight, batch.canvas_px)
        bright = weight > 0.1
        error, shifted = (np.abs(x - labels)[..., bright].mean() for x in (again, np.roll(labels, 1, axis=-1)))
        assert error < 0.3 * shifted

    def test_batches_of_every_size_hold_the_same_pixels(self):
        config = small({"sizes": {"32": 1.0, "64": 1.0}}, batch_pixels=2 * 64**2)
        curriculum = Curriculum(config)
        sizes = {batch.x.shape for batch in (curriculum.at(step).batch for step in range(0, 40, 2))}
        assert sizes == {(8, 1, 32, 32), (2, 1, 64, 64)}

    def test_labels_reproduce_the_patterns(self):
        faultless = {"wrong_probes": 0.0, "wrong_positions": 1.0, "photons_per_pattern": [1e10, 1e10]}
        curriculum = Curriculum(
            small({**faultless, "detail_sigma_px": [1.2, 1.4], "sizes": {"64": 1.0}, "pixels": 4 * 64**2})
        )
        for step in range(8):
            batch, constants = curriculum.at(step)
            made = np.sqrt(forward.intensity(batch.labels[:, 0].astype(complex), constants.probe.astype(complex)))
            good = batch.mask > 0
            error = np.abs(made - batch.x[:, 0])[:, good].mean() / batch.x[:, 0][:, good].mean()
            assert error < 0.03
        counts = (batch.x / constants.amplitude_per_root_count) ** 2
        assert counts.sum() / len(batch) == pytest.approx(1e10, rel=0.3)

    def test_shifted_labels_do_not_reproduce_the_patterns(self):
        batch, constants = Curriculum(small({"wrong_probes": 0.0, "photons_per_pattern": [1e8, 1e8]})).at(0)
        right, wrong = batch.labels, np.roll(batch.labels, 1, axis=-1)
        patches = (right[:, 0].astype(complex), wrong[:, 0].astype(complex))
        amplitudes = [np.sqrt(forward.intensity(patch, constants.probe.astype(complex))) for patch in patches]
        near, far = (np.abs(amplitude - batch.x[:, 0]).mean() for amplitude in amplitudes)
        assert far > 2 * near
        assert losses.label_mae(right, right, constants.weight) < 1e-5


class TestLabels:
    def test_whole_positions_are_plain_slices(self):
        obj = np.random.default_rng(0).normal(size=(60, 60)) + 1j
        patch = sharp_patches(obj, (-10.0, -20.0), np.array([[16.0, 5.0]]), 32)[0]
        np.testing.assert_allclose(patch, obj[10 : 10 + 32, 9 : 9 + 32], rtol=1e-5)

    def test_half_pixel_shift_preserves_detail(self):
        frequency = 0.3  # cycles per pixel; bilinear interpolation would keep 59 %
        columns = np.arange(90.0)
        obj = np.broadcast_to(np.exp(2j * np.pi * frequency * columns), (90, 90))
        patch = sharp_patches(obj, (0.0, 0.0), np.array([[40.0, 40.5]]), 32)[0]
        expected = np.exp(2j * np.pi * frequency * (40.5 - 16 + np.arange(32)))
        np.testing.assert_allclose(patch[16], expected, atol=0.02)

    def test_rows_of_the_matrix_sum_to_one(self):
        matrix = sinc_matrix(np.array([0.0, 0.25, 0.99]), 16)
        assert matrix.shape == (3, 16, 16 + 2 * MARGIN_PX - 1)
        np.testing.assert_allclose(matrix.sum(axis=-1), 1.0)


class TestConfig:
    def test_shipped_config_is_valid_and_small(self):
        config = read_config(Path(pb.__file__).parent / "network" / "pretrained" / "config.yaml")
        assert parameter_count(config.training.model) * 2 < 2 * 2**20  # bytes as float16

    def test_config_file_is_read_back(self, tmp_path):
        config = PretrainingConfig(unrolled_steps=3, recipe=Recipe(sizes={"64": 1.0}))
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(to_dict(config)), encoding="utf-8")
        assert read_config(path) == config

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ({"stepz": 3}, "steps"),
            ({"recipe": {"object": {}}}, "objects"),
            ({"recipe": {"probes": {"disk": 1.0}}}, "disc"),
            ({"learning_rate": -1.0}, "learning_rate"),
            ({"data_loss": "l2"}, "data_loss"),
        ],
    )
    def test_mistakes_are_refused_by_name(self, wrong, words):
        with pytest.raises(ConfigError, match=words):
            config_from(wrong)

    def test_the_rate_rises_falls_and_ends(self):
        config = PretrainingConfig(steps=1000, warmup_steps=100, learning_rate=0.5, min_lr_ratio=0.1)
        rates = [config.rate(step) for step in range(1001)]
        assert rates[0] == pytest.approx(0.005)
        assert np.argmax(rates) in (99, 100)
        assert rates[550] == pytest.approx(0.5 * 0.55)
        assert rates[1000] == pytest.approx(0.05)
        assert (np.diff(rates[100:]) <= 0).all()

    def test_step_weights(self):
        assert PretrainingConfig(unrolled_steps=3).step_weights() == [0.0, 0.0, 1.0]
        np.testing.assert_allclose(
            PretrainingConfig(unrolled_steps=3, step_decay=0.5).step_weights(), [1 / 7, 2 / 7, 4 / 7]
        )

    def test_resumed_training_may_change_options_without_effect_on_weights(self):
        config = small()
        earlier = to_dict(config)
        check_same(dataclasses.replace(config, minutes=3.0, log_steps=7), earlier, "there")
        with pytest.raises(ConfigError, match="learning_rate"):
            check_same(dataclasses.replace(config, learning_rate=0.1), earlier, "there")

    def test_nominal_calibration_has_unit_scale(self):
        calibration = nominal_calibration()
        assert (np.abs(calibration.probe) ** 2).sum() == pytest.approx(32**2, rel=1e-5)
        energy = (np.abs(far_field(calibration.probe.astype(complex))) ** 2).sum()
        assert energy == pytest.approx(calibration.photons_per_pattern, rel=1e-5)
