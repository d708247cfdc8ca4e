"""
Names of the earlier TensorFlow package, without training.

``python tests/clients/test_tensorflow_names.py`` writes the table of ``specs/ptychodus_api_spec.md``.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import os
import pickle
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import ptycho_backend as pb
from ptycho import loader, params, probe, tf_helper
from ptycho.config import translation
from ptycho.config.config import InferenceConfig, ModelConfig, TrainingConfig, update_legacy_dict
from ptycho.grouped_data import GroupedData
from ptycho.object_model import ObjectModel
from ptycho.raw_data import RawData
from ptycho.scan_array import ScanArray, context_of
from ptycho_backend.compat import legacy
from ptycho_backend.data.npz import write_npz
from ptycho_backend.engines.registry import get_backend, missing_packages
from ptycho_backend.errors import ConfigError, DataError, ShapeError
from ptycho_backend.physics.calibration import calibrate
from ptycho_backend.testing.assertions import assert_close
from ptycho_backend.testing.tolerances import Tolerance

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "specs/ptychodus_api_spec.md"
N = 32
SAME_INPUT = Tolerance(2e-4, "the same float32 network and stitching, the input scaled in another order")

# Keywords of ptychodus 1.7, with the values of its settings.
MODEL_KEYWORDS = {
    "N": 0,
    "gridsize": 1,
    "n_filters_scale": 2,
    "model_type": "pinn",
    "amp_activation": "sigmoid",
    "object_big": True,
    "probe_big": True,
    "probe_mask": False,
    "pad_object": True,
    "probe_scale": 4.0,
    "gaussian_smoothing_sigma": 0.0,
}
TRAINING_KEYWORDS = {
    "train_data_file": Path(),
    "test_data_file": None,
    "batch_size": 16,
    "nepochs": 50,
    "mae_weight": 0.0,
    "nll_weight": 1.0,
    "realspace_mae_weight": 0.0,
    "realspace_weight": 0.0,
    "nphotons": 1e6,
    "positions_provided": True,
    "probe_trainable": False,
    "intensity_scale_trainable": True,
    "output_dir": Path(),
}


@pytest.fixture(autouse=True)
def empty_settings(monkeypatch):
    """Start every test with an empty `params.cfg`."""
    monkeypatch.setattr(legacy, "cfg", {})
    monkeypatch.setattr(params, "cfg", legacy.cfg)


@pytest.fixture(scope="module")
def scan():
    """Return a scan of 100 patterns with bad pixels and a known object whose origin is not (0, 0)."""
    return pb.simulate_scan(N=N, n_positions=100, bad_pixels=0.01, photons_per_pattern=3e5, seed=4)


@pytest.fixture
def raw(scan):
    return RawData.from_scan(scan)


@pytest.fixture(scope="module")
def model(scan, device):
    """Return an untrained model of the scan; it returns the physics estimate."""
    if missing_packages("tensorflow"):
        pytest.skip("TensorFlow is not installed")
    config = pb.ModelConfig(N=N, n_filters_scale=1, unrolled_steps=1)
    execution = pb.ExecutionConfig(device=device, precision="32-true")
    training = pb.TrainingConfig(model=config)
    return ObjectModel(get_backend("tensorflow").create_model(training, calibrate(scan, config), execution))


def container_of(raw, gridsize=1, **options):
    dataset = raw.generate_grouped_data(N, K=7, nsamples=1, gridsize=gridsize, **options)
    return loader.load(lambda: dataset, raw.probeGuess, which=None, create_split=False)


def pickled(value):
    """Return a value after pickling and unpickling."""
    return pickle.loads(pickle.dumps(value))  # noqa: S301


# --- configuration -------------------------------------------------------------------------------------------------


class TestConfiguration:
    """Plain classes with fields that clients set."""

    def test_keywords_of_clients_with_a_side_of_zero(self):
        """S1: clients set the side in another process."""
        config = TrainingConfig(model=ModelConfig(**MODEL_KEYWORDS), **TRAINING_KEYWORDS)
        received = pickled(config)
        assert received == config
        received.model.N = 64
        assert (received.model.N, config.model.N) == (64, 0)
        inference = InferenceConfig(
            model=config.model, model_path=Path(), test_data_file=Path(), debug=True, output_dir=Path()
        )
        assert pickled(inference) == inference

    def test_text_becomes_a_path(self):
        config = TrainingConfig(train_data_file="a.npz", output_dir="out")
        assert (config.train_data_file, config.output_dir, config.test_data_file) == (Path("a.npz"), Path("out"), None)
        assert InferenceConfig(model_path="m").model_path == Path("m")

    def test_configurations_are_written_under_old_keys(self):
        update_legacy_dict(params.cfg, TrainingConfig(model=ModelConfig(gridsize=3, object_big=False), output_dir="o"))
        assert (params.get("gridsize"), params.get("object.big"), params.get("output_prefix")) == (3, False, "o")
        assert "nphotons" not in params.cfg
        update_legacy_dict(params.cfg, InferenceConfig(model=ModelConfig(gridsize=2)))
        assert params.get("gridsize") == 2

    def test_the_table_of_the_specification_is_current(self):
        text = SPEC.read_text(encoding="utf-8")
        assert text == with_table(text), "python tests/clients/test_tensorflow_names.py writes the table"

    @pytest.mark.parametrize("name", [*translation.MODEL_FIELDS, *translation.TRAINING_FIELDS])
    def test_every_keyword_with_a_counterpart_is_translated(self, name, scan, caplog):
        changed = {
            "architecture": "cnn",
            "model_type": "supervised",
            "amp_activation": "swish",
            "backend": "pytorch",
            "nphotons": 123.0,
        }
        config = TrainingConfig(model=ModelConfig(architecture="cnn", gridsize=2))
        owner = config.model if name in translation.MODEL_FIELDS else config
        old = getattr(owner, name)
        value = changed.get(name) or (not old if isinstance(old, bool) else (old or 0) + 1)
        setattr(owner, name, value)
        if name == "probe_big":
            config.model.pad_object = True
        amplitudes = dataclasses.replace(scan, patterns=np.sqrt(scan.patterns.astype(np.float64)), measurement=None)
        training = translation.to_training(config, amplitudes)
        assert getattr(training.model if owner is config.model else training, name) == value
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert getattr(config, "n_images", None) is None

    def test_keywords_without_counterpart_are_reported_once(self, scan, caplog):
        translation.to_training(TrainingConfig(model=ModelConfig(**MODEL_KEYWORDS), **TRAINING_KEYWORDS), scan)
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
        model = ModelConfig(probe_scale=2.0, amp_activation="swish", object_big=False)
        config = TrainingConfig(model=model, positions_provided=False, debug=True)
        original = copy.deepcopy(config)
        training = translation.to_training(config, scan)
        (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
        for name in (*translation.WITHOUT_EFFECT, "amp_activation", "object_big"):
            assert record.getMessage().count(f"{name}") == 1, name
        assert training.model.amp_activation == "sigmoid"
        assert config == original

    def test_numbers_of_groups(self, scan):
        """S6: all positions by default."""
        for fields, expected in (({}, None), ({"n_groups": 5}, 5), ({"n_images": 6}, 6), ({"n_groups": 512}, None)):
            assert translation.to_training(TrainingConfig(**fields), scan).n_groups == expected

    def test_nphotons_has_no_effect_on_counts(self, scan, caplog):
        with caplog.at_level(logging.INFO):
            assert translation.to_training(TrainingConfig(nphotons=1e6), scan).nphotons is None
        assert "nphotons" in caplog.text


class TestParams:
    """Global settings."""

    def test_missing_settings_raise_a_key_error(self):
        with pytest.raises(KeyError) as error:
            params.get("intensity_scale")
        assert "load_inference_bundle" in str(error.value)
        assert "\n" in str(error.value)
        params.set("intensity_scale", 2.5)
        assert params.get("intensity_scale") == params.params()["intensity_scale"] == 2.5
        assert params.get("other", 7) == 7
        params.params()["intensity_scale"] = 0
        assert params.get("intensity_scale") == 2.5

    def test_one_error_lists_all_violations(self):
        update_legacy_dict(params.cfg, TrainingConfig(model=ModelConfig(N=33, gridsize=0), batch_size=0))
        with pytest.raises(ConfigError, match=r"model\.N(.|\n)*model\.gridsize(.|\n)*batch_size(.|\n)*params\.cfg"):
            params.validate()

    def test_real_space_weights_are_independent(self, caplog):
        """S24: a log line instead of an assertion."""
        update_legacy_dict(params.cfg, TrainingConfig(model=ModelConfig(N=0), realspace_mae_weight=1.0))
        with caplog.at_level(logging.INFO):
            params.validate()
        assert "realspace_mae_weight" in caplog.text


# --- data ----------------------------------------------------------------------------------------------------------


def rectangle(**fields) -> RawData:
    """Return four patterns on a rectangle of 10 px in x and 4 px in y."""
    x, y = np.array([50.5, 60.5, 50.5, 60.5]), np.array([21.0, 21.0, 25.0, 25.0])
    patterns = np.arange(4, dtype=np.uint16)[:, None, None] + np.ones((4, N, N), np.uint16)
    values = {"xcoords": x, "ycoords": y, "diff3d": patterns, "probeGuess": np.ones((1, N, N), complex)}
    return RawData.from_coords_without_pc(**{**values, "scan_index": np.zeros(4, int), **fields})


class TestRawData:
    """Input arrays of clients, and output arrays of groups."""

    def test_order_of_coordinates_and_sign_of_offsets(self):
        """S9, on a rectangle whose sides differ."""
        data = rectangle().generate_grouped_data(N, K=7, nsamples=1, gridsize=2)
        assert data["coords_offsets"].shape == (4, 1, 2, 1)
        assert data["coords_relative"].shape == data["coords_nn"].shape == (4, 1, 2, 4)
        np.testing.assert_array_equal(data["coords_offsets"][0, 0, :, 0], [55.5, 23.0])
        np.testing.assert_array_equal(data["nn_indices"][0], [0, 1, 2, 3])
        np.testing.assert_array_equal(data["coords_nn"][0, 0], [[50.5, 60.5, 50.5, 60.5], [21, 21, 25, 25]])
        np.testing.assert_array_equal(data["coords_relative"][0, 0], [[5, -5, 5, -5], [2, 2, -2, -2]])

    def test_shapes_of_all_arrays(self, raw, scan):
        data = raw.generate_grouped_data(N, K=7, nsamples=1, gridsize=2)
        shapes = {key: np.shape(value) for key, value in data.items()}
        assert shapes == {
            **dict.fromkeys(("diffraction", "X_full", "Y"), (100, N, N, 4)),
            **dict.fromkeys(("coords_offsets", "coords_start_offsets"), (100, 1, 2, 1)),
            **dict.fromkeys(
                ("coords_relative", "coords_start_relative", "coords_nn", "coords_start_nn"), (100, 1, 2, 4)
            ),
            "nn_indices": (100, 4),
            "objectGuess": scan.obj.shape,
        }
        first = data["nn_indices"][3, 2]
        np.testing.assert_array_equal(data["diffraction"][3, :, :, 2], scan.patterns[first])
        assert data["diffraction"].dtype == scan.patterns.dtype
        assert data.get("nothing", 5) == 5
        assert isinstance(data, dict)
        assert set(pickled(data)) == set(data)

    def test_energy_of_normalised_amplitude(self, raw, scan):
        data = raw.generate_grouped_data(N)
        assert data["X_full"].dtype == np.float32
        clean = dataclasses.replace(scan, mask=None)
        energy = np.square(RawData.from_scan(clean).generate_grouped_data(N)["X_full"]).sum(axis=(1, 2, 3)).mean()
        assert energy == pytest.approx((N / 2) ** 2, rel=1e-5)

    @pytest.mark.parametrize("shape", [(N, N), (N, N, 1), (1, N, N), (3, N, N)])
    def test_probe_shapes(self, shape, rng):
        """S3, S25."""
        guess = rng.normal(size=shape) + 1j
        modes = shape[0] if len(shape) == 3 and shape[-1] == N else 1
        assert rectangle(probeGuess=guess).to_scan().probe.shape == (modes, N, N)
        assert probe.set_probe_guess(None, guess).shape == (modes, N, N)
        with pytest.raises(ShapeError):
            probe.set_probe_guess(None, np.ones((2, 3, 4, 5)))

    def test_counts_or_amplitude_by_values(self):
        """S4: integer values are counts; others are amplitudes unless `measurement` is "counts"."""
        whole, plane = rectangle().diff3d, np.ones((N, N), complex)
        for dtype in (np.uint16, np.int32, np.float32, ">u4"):
            assert rectangle(diff3d=whole.astype(dtype)).to_scan().measurement == "counts"
        fractional = rectangle(diff3d=whole + 0.25, probeGuess=plane)
        assert fractional.to_scan().measurement == "amplitude"
        fractional.measurement = "counts"
        assert fractional.to_scan().measurement == "counts"

    def test_patterns_of_ptychodus_are_counts(self, tmp_path):
        """S4: also fractional ones; stacks of probe modes and "bad_pixels" in a file identify ptychodus."""
        fractional = rectangle().diff3d + 0.25
        assert rectangle(diff3d=fractional, probeGuess=np.ones((1, N, N), complex)).to_scan().measurement == "counts"
        fields = {
            "xcoords": np.arange(len(fractional)),
            "ycoords": np.zeros(len(fractional)),
            "diff3d": fractional,
            "probeGuess": np.ones((1, N, N), complex),
        }
        np.savez(tmp_path / "old.npz", **fields)
        np.savez(tmp_path / "new.npz", **fields, bad_pixels=np.zeros((N, N), bool))
        found = [RawData.from_file(tmp_path / name).to_scan().measurement for name in ("old.npz", "new.npz")]
        assert found == ["amplitude", "counts"]

    @pytest.mark.parametrize(
        ("gridsize", "nsamples", "expected"),
        [(1, 1, 100), (1, 3, 100), (2, 1, 100), (2, 3, 300), (2, 30, 30), (1, 17, 17)],
    )
    def test_numbers_of_samples(self, raw, gridsize, nsamples, expected):
        """S5: one sample per position covers the scan; more than sixteen are a total number of groups."""
        data = raw.generate_grouped_data(N, K=7, nsamples=nsamples, gridsize=gridsize)
        assert data["nn_indices"].shape == (expected, gridsize**2)
        if nsamples <= 16:
            assert set(data["nn_indices"].ravel()) == set(range(100))
            assert len({tuple(row) for row in data["nn_indices"]}) > 0.7 * expected

    @pytest.mark.parametrize("K", [0, 7])
    def test_groups_of_twenty_five_from_few_neighbours(self, raw, K, caplog):
        """S7."""
        with caplog.at_level(logging.INFO):
            data = raw.generate_grouped_data(N, K=K, nsamples=1, gridsize=5)
        assert data["nn_indices"].shape == (100, 25)
        assert f"raised from {K} to 24" in caplog.text

    def test_the_default_gridsize_is_that_of_the_settings(self, raw):
        """S25; an argument takes precedence."""
        assert raw.generate_grouped_data(N)["nn_indices"].shape == (100, 1)
        params.cfg["gridsize"] = 2
        assert raw.generate_grouped_data(N)["nn_indices"].shape == (100, 4)
        assert raw.generate_grouped_data(N, gridsize=1)["nn_indices"].shape == (100, 1)

    def test_seeds(self, raw):
        first, again, other = (raw.generate_grouped_data(N, gridsize=2, seed=seed)["nn_indices"] for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()

    def test_reading_a_file(self, raw, scan, tmp_path):
        path = write_npz(scan, tmp_path / "train_data.npz")
        read = RawData.from_file(path)
        np.testing.assert_array_equal(read.diff3d, scan.patterns)
        assert read.diff3d.dtype == scan.patterns.dtype
        np.testing.assert_array_equal([read.ycoords, read.xcoords], scan.positions_px.T)
        assert read.to_scan().data_hash() == scan.data_hash()
        assert read.source == str(path)

    def test_reference_point_of_coordinates(self, scan, tmp_path):
        """ptychodus uses the middle, (N - 1)/2, half a pixel before pixel N//2; files of this package use the pixel."""
        raw = rectangle()
        np.testing.assert_array_equal(raw.to_scan().positions_px[0], [21.5, 51.0])
        raw.middles = False
        np.testing.assert_array_equal(raw.to_scan().positions_px[0], [21.0, 50.5])
        assert not RawData.from_file(write_npz(scan, tmp_path / "own.npz")).middles
        arrays = {"diff3d": raw.diff3d, "probeGuess": raw.probeGuess, "bad_pixels": np.zeros((N, N), bool)}
        np.savez(tmp_path / "client.npz", xcoords=raw.xcoords, ycoords=raw.ycoords, **arrays)
        read = RawData.from_file(tmp_path / "client.npz")
        np.testing.assert_array_equal([read.ycoords[0], read.xcoords[0]], [21.0, 50.5])
        np.testing.assert_array_equal(read.to_scan().positions_px[0], [21.5, 51.0])

    def test_start_coordinates(self, scan, tmp_path):
        path = tmp_path / "scan.npz"
        y, x = scan.positions_px.T
        arrays = {"xcoords": x, "ycoords": y, "diff3d": scan.patterns, "probeGuess": scan.probe}
        np.savez(path, **arrays)
        read = RawData.from_file(str(path))
        np.testing.assert_array_equal(read.xcoords_start, x)
        np.testing.assert_array_equal(read.scan_index, np.zeros(100))
        np.savez(path, **arrays, xcoords_start=x + 1, ycoords_start=y - 2)
        data = RawData.from_file(path).generate_grouped_data(N, gridsize=2)
        shift = data["coords_start_offsets"] - data["coords_offsets"]
        np.testing.assert_allclose(shift[:, 0, :, 0], np.broadcast_to([1.0, -2.0], (100, 2)), atol=1e-9)
        np.testing.assert_allclose(data["coords_start_relative"], data["coords_relative"], atol=1e-9)

    def test_object_shapes(self):
        """S20: an empty object is None, one layer is the object, several are an error."""
        assert rectangle(objectGuess=np.zeros((0, 0), complex)).to_scan().obj is None
        assert rectangle(objectGuess=np.ones((1, 60, 50), complex)).to_scan().obj.shape == (60, 50)
        with pytest.raises(ShapeError, match="2 layers"):
            rectangle(objectGuess=np.ones((2, 60, 50), complex)).to_scan()

    def test_invalid_input(self, raw):
        with pytest.raises(ShapeError, match="N=64"):
            raw.generate_grouped_data(64)
        with pytest.raises(ConfigError, match="nsample"):
            raw.generate_grouped_data(N, nsample=1)
        raw.generate_grouped_data(N, dataset_path="x", sequential_sampling=True)
        with pytest.raises(DataError, match="missing"):
            RawData.from_file("missing.npz")


class TestLoader:
    """Containers of groups."""

    def test_labels_are_patches_of_the_object(self, raw, scan):
        container = container_of(raw, gridsize=2)
        corner = scan.positions_px[container.nn_indices[5, 3]] - N // 2 - np.array(scan.obj_origin_px)
        y, x = np.round(corner).astype(int)
        nearest = scan.obj[y : y + N, x : x + N]
        inside = container.Y[5, :, :, 3][: nearest.shape[0], : nearest.shape[1]]
        assert np.corrcoef(np.abs(inside).ravel(), np.abs(nearest).ravel())[0, 1] > 0.9
        assert_close(container.Y_I * np.exp(1j * container.Y_phi), container.Y, SAME_INPUT)

    def test_a_split_has_two_parts(self, raw):
        data = raw.generate_grouped_data(N, gridsize=2)
        parts = {name: loader.load(lambda: (data, 0.75), raw.probeGuess, name, True) for name in ("train", "test")}
        assert [len(part.X) for part in parts.values()] == [75, 25]
        np.testing.assert_array_equal(parts["test"].global_offsets, data["coords_offsets"][75:])
        np.testing.assert_array_equal(context_of(parts["test"].X).groups.indices, data["nn_indices"][75:])
        assert len(parts["test"].to_scan()) == len(np.unique(data["nn_indices"][75:]))
        with pytest.raises(DataError, match="which"):
            loader.load(lambda: (data, 0.75), raw.probeGuess, None, True)

    def test_an_explicit_probe_takes_precedence(self, raw, scan):
        data = raw.generate_grouped_data(N)
        other = np.roll(scan.probe, 3, axis=-1)
        np.testing.assert_array_equal(context_of(loader.load(lambda: data, other).X).scan.probe, other)
        np.testing.assert_array_equal(context_of(data["X_full"]).scan.probe, scan.probe)

    def test_arrays_without_a_scan_are_an_error(self, raw):
        data = GroupedData(raw.generate_grouped_data(N))
        data["X_full"] = np.asarray(data["X_full"])
        with pytest.raises(DataError, match="loader"):
            loader.load(lambda: data, raw.probeGuess).to_scan()


class TestScanArray:
    """Operations that preserve the scan context, and others."""

    def test_arithmetic_pickling_and_rows_preserve_it(self, raw):
        X = container_of(raw, gridsize=2).X
        for result in (X * 2.5, np.float64(3) * X, X + X, np.sqrt(X), X.copy(), copy.deepcopy(X)):
            assert context_of(result) is context_of(X) or len(context_of(result).groups) == 100
        received = pickled(X)
        np.testing.assert_array_equal(received, X)
        np.testing.assert_array_equal(context_of(received).groups.indices, context_of(X).groups.indices)
        rows = np.array([4, 1, 1])
        for key in (slice(3, 9, 2), rows, rows.tolist(), np.arange(100) % 3 == 0):
            part = X[key]
            np.testing.assert_array_equal(context_of(part).groups.indices, context_of(X).groups.indices[key])
            assert context_of(part).describes(part.shape)

    def test_other_selections_drop_it(self, raw):
        X = container_of(raw, gridsize=2).X
        for result in (
            np.asarray(X),
            X[0],
            X[..., 0],
            X[:, 3:, 3:],
            X[:, :, :, :1],
            np.concatenate([np.asarray(X)] * 2),
        ):
            assert context_of(result) is None
        assert not context_of(X).describes(X[:, 3:, 3:].shape)
        assert not context_of(X.reshape(50, 2, N, N, 4)).describes((50, 2, N, N, 4))
        assert context_of(X.sum(axis=0, keepdims=True)) is None
        assert isinstance(X.mean(), np.float32)
        assert isinstance(X.max(), np.float32)


# --- prediction and stitching --------------------------------------------------------------------------------------


class TestPredict:
    """Patches are those of `ptycho_backend`, whatever operations the arrays went through."""

    @pytest.mark.parametrize("gridsize", [1, 2])
    def test_the_image_is_that_of_reconstruct(self, model, raw, scan, gridsize):
        """Same pixels, on the canvas that a client expects."""
        container = container_of(raw, gridsize)
        patches = model.predict([container.X * model.intensity_scale, container.local_offsets])
        assert patches.shape == (100, N, N, gridsize**2)
        assert patches.dtype == np.complex64
        image = tf_helper.reassemble_position(patches, container.global_offsets, M=20)
        assert type(image) is np.ndarray
        assert image.dtype == np.complex64
        unknown = dataclasses.replace(scan, obj=None)
        container = container_of(RawData.from_scan(unknown), gridsize)
        patches = model.predict([container.X * model.intensity_scale, container.local_offsets])
        image = np.squeeze(tf_helper.reassemble_position(patches, container.global_offsets, M=20))
        reference = model._fitted[1]
        assert_close(image, pb.reconstruct(unknown, reference, iterations=0).obj, SAME_INPUT)

    def test_a_factor_has_no_effect_on_scan_arrays(self, model, raw):
        container = container_of(raw)
        one = model.predict([container.X * 17.0, container.local_offsets])
        two = model.predict([container.X * model.intensity_scale, container.local_offsets])
        assert_close(one, two, SAME_INPUT)
        half = model.predict([container.X[::2] * 3.0, container.local_offsets[::2]])
        assert_close(half, two[::2], SAME_INPUT)

    def test_values_come_from_the_array(self, model, raw):
        """Other patterns in the same rows give other patches."""
        container = container_of(raw)
        order = np.arange(100)[::-1]
        swapped = np.take(container.X, order, axis=0)
        one = model.predict([swapped, container.local_offsets])
        two = model.predict([container.X, container.local_offsets])
        assert_close(one, two[::-1], SAME_INPUT)

    def test_the_context_of_the_offsets(self, model, raw):
        container = container_of(raw)
        plain = np.asarray(container.X * model.intensity_scale)
        one = model.predict([plain, container.local_offsets])
        assert context_of(one) is not None
        assert_close(one, model.predict([container.X, container.local_offsets]), SAME_INPUT)

    def test_plain_arrays_use_the_calibration_of_the_model(self, model, scan):
        """Both calibrations are equal for the scan of the model, without bad pixels."""
        clean = RawData.from_scan(dataclasses.replace(scan, mask=None))
        config = model.model.config
        built = get_backend("tensorflow").create_model(
            model.model.training, calibrate(clean.to_scan(), config), model.model.execution
        )
        plain_model, container = ObjectModel(built), container_of(clean)
        arrays = [np.asarray(container.X) * plain_model.intensity_scale, np.asarray(container.local_offsets)]
        patches = plain_model.predict(arrays)
        assert context_of(patches) is None
        assert_close(patches, plain_model.predict([container.X, container.local_offsets]), SAME_INPUT)
        amplitude = np.sqrt(scan.patterns.astype(float))[..., None]
        assert_close(np.asarray(arrays[0], float), amplitude, SAME_INPUT, "X · intensity_scale is measured amplitude")

    def test_probe_and_dose_of_another_scan(self, model):
        other = pb.simulate_scan(N=N, n_positions=100, probe_name="gaussian", photons_per_pattern=2e4, seed=9)
        container = container_of(RawData.from_scan(other))
        patches = model.predict([container.X * model.intensity_scale, container.local_offsets])
        image = tf_helper.reassemble_position(patches, container.global_offsets)[..., 0]
        np.testing.assert_array_equal(context_of(patches).scan.probe, other.probe)
        assert pb.evaluate(framed(image, other), other).phase_correlation > 0.85

    def test_groups_larger_than_in_training(self, model, raw):
        container = container_of(raw, gridsize=3)
        patches = model.predict([container.X, container.local_offsets])
        assert patches.shape == (100, N, N, 9)
        assert model._fitted[1].config.gridsize == 3
        assert model.model.config.gridsize == 1

    def test_invalid_input(self, model, raw):
        container = container_of(raw)
        with pytest.raises(ShapeError, match=r"local_offsets"):
            model.predict([container.X, container.global_offsets[:5]])
        with pytest.raises(ShapeError, match=r"\(B, 32, 32, 1\)"):
            model.predict([np.ones((3, 48, 48, 1)), np.zeros((3, 1, 2, 1))])
        with pytest.raises(ShapeError, match="diffraction and offsets"):
            model.predict([container.X])


def framed(image, scan) -> pb.Image:
    """Return an image with its centre at the centre of the known object, as clients place it."""
    centre = np.array(scan.obj_origin_px) + (np.array(scan.obj.shape) - 1) / 2
    origin = centre - (np.array(image.shape) - 1) / 2
    return pb.Image(np.asarray(image), (np.abs(image) > 0).astype(np.float32), (float(origin[0]), float(origin[1])))


class TestReassemblePosition:
    """Positions of pixels."""

    def test_positions_of_plain_patches(self):
        """Two single bright pixels: x before y, centre of the canvas at the bounding box's midpoint."""
        patches = np.zeros((2, 16, 16, 1), np.complex64)
        patches[0, 8, 8, 0], patches[1, 9, 7, 0] = 1.0, 2.0j
        offsets = np.array([[100.0, 50.0], [110.0, 54.0]])[:, None, :, None]  # x, y
        image = tf_helper.reassemble_position(patches, offsets, M=8)
        assert image.shape == (5 + 8 + 1, 11 + 8 + 1, 1)
        origin = np.array([52.0, 105.0]) - (np.array(image.shape[:2]) - 1) / 2  # y, x
        # A window's middle is at 7.5, half a pixel before its pixel 8.
        for (y, x), value in (((50.5, 100.5), 1.0), ((55.5, 109.5), 2.0j)):
            row, column = np.array([y, x]) - origin
            assert image[int(row), int(column), 0] == pytest.approx(value)
        assert np.count_nonzero(np.abs(image) > 1e-6) == 2

    def test_only_the_centre_of_plain_patches_is_used(self):
        patches = np.ones((1, 16, 16, 1), np.complex64)
        patches[0, 6:10, 6:10] = 3.0
        image = tf_helper.reassemble_position(patches, np.zeros((1, 1, 2, 1)), M=4)
        assert image.shape == (6, 6, 1)
        np.testing.assert_array_equal(np.abs(image[1:5, 1:5, 0]), 3.0)
        assert np.count_nonzero(image) == 16
        assert tf_helper.reassemble_position(patches, np.zeros((1, 1, 2, 1)), M=99).shape == (18, 18, 1)

    @pytest.mark.parametrize(
        ("size", "gridsize", "middles"),
        [((81, 90), 1, False), ((80, 91), 2, False), ((81, 91), 1, True), ((80, 90), 2, True)],
    )
    def test_the_canvas_is_centred_on_the_known_object(self, scan, size, gridsize, middles):
        """S8: clients place the image at the centre of the object that they passed."""
        height, width = size
        shift = np.array([40.0, 44.0])
        obj = np.zeros(size, np.complex64)
        moved = dataclasses.replace(scan, positions_px=scan.positions_px + shift, obj_origin_px=(0.0, 0.0))
        top, left = (np.array(scan.obj_origin_px) + shift).astype(int)
        part = scan.obj[: height - top, : width - left]
        obj[top : top + part.shape[0], left : left + part.shape[1]] = part
        known = dataclasses.replace(moved, obj=obj)
        raw = RawData.from_scan(known)
        if middles:
            raw.middles, raw.xcoords, raw.ycoords = True, raw.xcoords - 0.5, raw.ycoords - 0.5
        container = container_of(raw, gridsize)
        truth = np.asarray(container.Y)
        image = tf_helper.reassemble_position(ScanArray(truth, context_of(container.X)), container.global_offsets)
        result = framed(image[..., 0], known)
        compared = pb.evaluate(result, known)
        assert np.abs(compared.shift_px).max() < 0.1
        assert compared.amplitude_correlation > 0.97

    def test_without_an_object_the_canvas_follows_the_bounding_box(self):
        raw = rectangle()
        raw.xcoords_start = raw.ycoords_start = raw.xcoords
        container = container_of(raw)
        ones = ScanArray(np.ones_like(container.X, dtype=np.complex64), context_of(container.X))
        image = tf_helper.reassemble_position(ones, container.global_offsets)
        assert image.shape == (5 + N + 1, 11 + N + 1, 1)
        covered = np.abs(image[..., 0]) > 0
        assert covered.any()
        np.testing.assert_array_equal(covered, covered[::-1, ::-1], "windows are symmetric about the midpoint")

    def test_changed_positions_of_patterns(self, model, raw):
        container = container_of(raw)
        patches = model.predict([container.X, container.local_offsets])
        straight = tf_helper.reassemble_position(patches, container.global_offsets)
        mirrored = tf_helper.reassemble_position(patches, container.global_offsets * np.array([[-1.0], [1.0]]))
        assert straight.shape[0] >= mirrored.shape[0]
        some = tf_helper.reassemble_position(patches[:5], container.global_offsets[:5])
        assert some.size <= straight.size

    def test_changed_positions_of_groups_are_an_error(self, model, raw):
        container = container_of(raw, gridsize=2)
        patches = model.predict([container.X, container.local_offsets])
        for offsets in (-container.global_offsets, container.global_offsets[::-1]):
            with pytest.raises(ShapeError, match="same container"):
                tf_helper.reassemble_position(patches, offsets)
        for wrong in (container.global_offsets, container.local_offsets):
            with pytest.raises(ShapeError, match="without a scan context"):
                tf_helper.reassemble_position(np.asarray(patches), wrong)
        tf_helper.reassemble_position(patches[10:20], container.global_offsets[10:20])


# --- imports, and the table ----------------------------------------------------------------------------------------


def test_imports_load_no_framework(tmp_path):
    """A client's parent process imports the configuration and must not use a GPU."""
    code = """
        import json, sys
        import ptycho.config, ptycho.config.config, ptycho.params, ptycho.raw_data, ptycho.loader, ptycho.probe
        import ptycho.tf_helper, ptycho.model_manager, ptycho.workflows.components
        frameworks = {"tensorflow", "keras", "torch", "lightning", "matplotlib"}
        print(json.dumps(sorted(frameworks & set(sys.modules))))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert json.loads(done.stdout) == []


def meaning(owner: type, name: str) -> str:
    """Return the description of a keyword's translation."""
    same = {ModelConfig: translation.MODEL_FIELDS, TrainingConfig: translation.TRAINING_FIELDS}.get(owner, ())
    if name in same:
        return f"`{name}` of `ptycho_backend.{owner.__name__}`"
    if name in translation.OLD_NAMES:
        return f"`{translation.OLD_NAMES[name]}`, which takes precedence"
    if name in translation.WITHOUT_EFFECT:
        return f"none: {translation.WITHOUT_EFFECT[name]}"
    if name in translation.STORED_ONLY:
        return "stored for scripts that read it"
    return "the keywords above" if owner is TrainingConfig else "none: the settings come from the model file"


def table() -> str:
    rows = ["| class | keyword | default | what becomes of it |", "|---|---|---|---|"]
    for owner in (ModelConfig, TrainingConfig, InferenceConfig):
        for field in dataclasses.fields(owner):
            default = getattr(owner(), field.name)
            shown = "its defaults" if dataclasses.is_dataclass(default) else json.dumps(default, default=str)
            shown = "none" if default is None else shown
            rows.append(f"| `{owner.__name__}` | `{field.name}` | {shown} | {meaning(owner, field.name)} |")
    return "\n".join(rows)


def with_table(text: str) -> str:
    pattern = re.compile(r"(<!-- keywords: tensorflow -->\n).*?(<!-- end keywords -->)", re.DOTALL)
    assert len(pattern.findall(text)) == 1
    return pattern.sub(lambda found: f"{found[1]}{table()}\n{found[2]}", text)


if __name__ == "__main__":
    SPEC.write_text(with_table(SPEC.read_text(encoding="utf-8")), encoding="utf-8")
