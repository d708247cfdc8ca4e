"""Scripts and clients of the earlier TensorFlow package, from data to image."""

from __future__ import annotations

import copy
import logging
import shutil
import threading
import zipfile

import numpy as np
import pytest

import ptycho_backend as pb
from ptycho import loader, model_manager, params, tf_helper
from ptycho.config.config import ModelConfig, TrainingConfig, update_legacy_dict
from ptycho.object_model import ObjectModel
from ptycho.raw_data import RawData
from ptycho.workflows.components import (
    create_ptycho_data_container,
    load_data,
    load_inference_bundle,
    reassemble_cdi_image,
    run_cdi_example,
    save_outputs,
    train_cdi_model,
)
from ptycho_backend.compat import legacy
from ptycho_backend.data.npz import write_npz
from ptycho_backend.engines.registry import missing_packages
from ptycho_backend.errors import ConfigError, DataError, ModelFileError, ShapeError
from ptycho_backend.quality.metrics import compare
from ptycho_backend.testing.assertions import assert_close, relative_error
from ptycho_backend.testing.tolerances import Tolerance

N = 32
REPEATED = Tolerance(1e-4, "the same float32 computation in another order of threads")
pytestmark = [
    pytest.mark.client,
    pytest.mark.skipif(bool(missing_packages("tensorflow")), reason="TensorFlow is not installed"),
]


@pytest.fixture(autouse=True)
def empty_settings(monkeypatch):
    """Start every test with an empty `params.cfg`."""
    monkeypatch.setattr(legacy, "cfg", {})
    monkeypatch.setattr(params, "cfg", legacy.cfg)


@pytest.fixture(scope="module")
def execution(device):
    return pb.ExecutionConfig(device=device, precision="32-true")


@pytest.fixture(scope="module")
def scan():
    return pb.simulate_scan(N=N, n_positions=100, photons_per_pattern=1e6, seed=1)


@pytest.fixture(scope="module")
def other():
    """Return a scan of another object with another probe and dose."""
    return pb.simulate_scan(
        N=N, n_positions=81, object_name="lines", probe_name="gaussian", photons_per_pattern=2e4, seed=6
    )


def small(backend="tensorflow", nepochs=1, n_groups=16, **model) -> TrainingConfig:
    fields = {"N": 0, "n_filters_scale": 1, **model}
    return TrainingConfig(model=ModelConfig(**fields), nepochs=nepochs, n_groups=n_groups, backend=backend)


class LogCollector(logging.Handler):
    """Log handler that stores messages."""

    def __init__(self):
        super().__init__(logging.INFO)
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


@pytest.fixture(scope="module")
def log_collector():
    return LogCollector()


@pytest.fixture(scope="module")
def trained(scan, execution, log_collector):
    """Return the results of one training for many tests."""
    raw, config = RawData.from_scan(scan), small(nepochs=2, n_groups=None)
    original = copy.deepcopy(config), raw.diff3d.copy()
    logging.getLogger().addHandler(log_collector)
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.INFO)
    amplitude, phase, results = run_cdi_example(raw, raw, config, execution=execution)
    logging.getLogger().removeHandler(log_collector)
    logging.getLogger().setLevel(level)
    assert amplitude is None
    assert phase is None
    assert config == original[0]
    np.testing.assert_array_equal(raw.diff3d, original[1])
    return results


def parts_of(data) -> tuple:
    """Return containers of the first 60 percent of patterns and of the rest."""
    raw = RawData.from_scan(data)
    dataset = raw.generate_grouped_data(N)
    return tuple(loader.load(lambda: (dataset, 0.6), raw.probeGuess, which, True) for which in ("train", "test"))


@pytest.fixture(scope="module")
def second(other, execution):
    """Return the results of a training on the other scan, from containers."""
    return train_cdi_model(*parts_of(other), small(), execution)


@pytest.fixture
def bundle(trained, tmp_path):
    return model_manager.save(tmp_path / "bundle", trained).parent


def as_client(model, raw, gridsize=None, scale=None):
    """Return the image as ptychodus computes it."""
    dataset = raw.generate_grouped_data(N, K=7, nsamples=1, **({} if gridsize is None else {"gridsize": gridsize}))
    container = loader.load(lambda: dataset, raw.probeGuess, which=None, create_split=False)
    scale = params.get("intensity_scale") if scale is None else scale
    patches = model.predict([container.X * scale, container.local_offsets])
    return np.squeeze(tf_helper.reassemble_position(patches, container.global_offsets, M=20))


def compared(image, scan):
    """Compare an image, centred on the scan's known object, with that object."""
    centre = np.array(scan.obj_origin_px) + (np.array(scan.obj.shape) - 1) / 2
    origin = centre - (np.array(image.shape) - 1) / 2
    return compare(image, tuple(origin), scan.obj, scan.obj_origin_px, scan.positions_px)


class TestOneProcess:
    """Older client that runs everything in one process."""

    def test_train_save_load_and_reconstruct(self, scan, execution, tmp_path):
        """S25: a 2-D probe, the grid size in the settings alone, save(path), load_inference_bundle(file.parent)."""
        y, x = scan.positions_px.T - np.array(scan.obj_origin_px)[:, None] - 0.5  # positions of the windows' middles
        arrays = {"xcoords": x, "ycoords": y, "diff3d": scan.patterns, "scan_index": np.zeros(len(x), int)}
        raw = RawData.from_coords_without_pc(**arrays, probeGuess=scan.probe[0], objectGuess=scan.obj)
        config = small(n_groups=48, gridsize=2)
        config.model.N = raw.diff3d.shape[-1]
        update_legacy_dict(params.cfg, config)
        images = run_cdi_example(raw, raw, config, do_stitching=True, execution=execution)
        file = tmp_path / "out" / "wts.h5.zip"
        assert model_manager.save(str(file.parent)) == file
        save_outputs(*images, str(file.parent))
        pictures = {"reconstructed_amplitude.png", "reconstructed_phase.png"}
        assert {path.name for path in file.parent.iterdir()} == {"metrics.csv", "summary.json", file.name, *pictures}
        assert (file.parent / "reconstructed_phase.png").read_bytes().startswith(b"\x89PNG")
        params.cfg.clear()
        model, settings = load_inference_bundle(file.parent, execution=execution)
        assert params.get("intensity_scale") == settings["intensity_scale"] == model.intensity_scale
        assert model.intensity_scale == pytest.approx(np.sqrt(1e6) / (N / 2), rel=1e-2)
        assert params.get("gridsize") == settings["gridsize"] == 2
        image = as_client(model, raw)
        assert_close(images[0] * np.exp(1j * images[1]), image, REPEATED)
        assert images[2]["obj_tensor_full"].shape == (100, N, N, 4)
        assert images[2]["global_offsets"].shape == (100, 1, 2, 1)
        found = compare(
            image, tuple((np.array(scan.obj.shape) - image.shape) / 2), scan.obj, (0.0, 0.0), raw.to_scan().positions_px
        )
        assert found.phase_correlation > 0.95
        assert found.amplitude_correlation > 0.9
        assert np.abs(found.shift_px).max() < 0.5

    def test_results(self, trained):
        assert set(trained["history"]) >= {"train_loss", "val_loss", "poisson_train_loss", "lr"}
        assert trained["history"]["val_loss"] == trained["history"]["poisson_val_loss"]
        assert trained["history_epochs"] == [1, 2]
        assert trained["backend"] == "tensorflow"
        assert trained["run"].training.n_groups is None
        assert trained["intensity_scale"] == trained["model"].intensity_scale

    def test_every_epoch_is_in_the_log(self, trained, log_collector):
        """S21."""
        assert len([message for message in log_collector.messages if message.startswith("epoch ")]) == 2

    def test_validation_data(self, trained, scan):
        assert trained["run"].provenance["validation_sha256"] == RawData.from_scan(scan).to_scan().data_hash()

    def test_training_on_containers(self, second, other):
        provenance = second["run"].provenance
        assert provenance["data_sha256"] == other.subset(slice(0, 48)).data_hash()
        assert provenance["validation_sha256"] == other.subset(slice(48, None)).data_hash()

    def test_labels_of_supervised_training(self, scan, execution):
        """S15, S16."""
        raw = RawData.from_scan(scan)
        results = train_cdi_model(raw, None, small(model_type="supervised"), execution)
        assert "supervised_train_loss" in results["history"]
        raw.objectGuess = np.zeros((0, 0), complex)
        with pytest.raises(DataError, match="objectGuess"):
            train_cdi_model(raw, None, small(model_type="supervised"), execution)

    @pytest.mark.slow
    def test_the_cnn(self, scan, execution):
        raw = RawData.from_scan(scan)
        config = small(architecture="cnn", N=64)
        with pytest.raises(ShapeError, match="N=64"):
            train_cdi_model(raw, None, config, execution)
        config = small(architecture="cnn", amp_activation="swish", gridsize=2)
        results = train_cdi_model(raw, None, config, execution)
        assert results["run"].training.model.amp_activation == "swish"
        assert as_client(results["model"], raw, gridsize=2).ndim == 2
        with pytest.raises(ShapeError, match=r"\(B, 32, 32, 4\)"):
            as_client(results["model"], raw, gridsize=1)

    def test_the_other_engine(self, second, other, execution):
        if missing_packages("pytorch"):
            pytest.skip("PyTorch is not installed")
        amplitude, _, results = run_cdi_example(*parts_of(other), small("pytorch"), execution=execution)
        assert amplitude is None
        assert (results["backend"], second["backend"]) == ("pytorch", "tensorflow")
        assert set(results) == set(second)
        assert results["history"]["val_loss"] == pytest.approx(second["history"]["val_loss"], rel=1e-2)
        raw = RawData.from_scan(other)
        images = [as_client(found["model"], raw, gridsize=1) for found in (results, second)]
        assert relative_error(*images) < 1e-2


class TestBundles:
    """Saving and loading."""

    def test_all_paths_to_a_bundle(self, bundle, trained, scan, tmp_path):
        """S2: a folder, a folder with the unpacked content, a renamed file, the file."""
        renamed = shutil.copyfile(bundle / "wts.h5.zip", tmp_path / "model.zip")
        unpacked = tmp_path / "unpacked"
        with zipfile.ZipFile(renamed) as archive:
            archive.extractall(unpacked)
        reference = trained["model"].model.get_weights()
        for path in (bundle, str(bundle), unpacked, renamed, bundle / "wts.h5.zip"):
            model, _ = load_inference_bundle(path)
            for name, value in model.model.get_weights().items():
                np.testing.assert_array_equal(value, reference[name], name)
        with pytest.raises(ModelFileError):
            load_inference_bundle(tmp_path / "nothing")

    def test_loaded_and_trained_models_give_the_same_image(self, bundle, trained, scan, execution):
        raw = RawData.from_scan(scan)
        model, _ = load_inference_bundle(bundle, execution=execution)
        image = as_client(model, raw, gridsize=1)
        assert_close(image, as_client(trained["model"], raw, gridsize=1), REPEATED)
        found = compared(image, scan)
        assert found.phase_correlation > 0.97
        assert np.abs(found.shift_px).max() < 0.5

    def test_all_types_of_models_are_saved(self, trained, tmp_path):
        models = (trained, trained["run"], trained["model"], trained["model"].model)
        for number, model in enumerate(models):
            file = model_manager.save(tmp_path / str(number) / "deep", model)
            assert pb.load_model(file).config == trained["run"].training.model

    def test_saving_without_a_model_is_an_error(self, tmp_path):
        with pytest.raises(ConfigError, match="a int"):
            model_manager.save(tmp_path, 5)
        errors = []

        def in_a_new_thread():
            for action in (lambda: model_manager.save(tmp_path), lambda: model_manager.last_run()):
                try:
                    action()
                except ConfigError as error:
                    errors.append(str(error))

        thread = threading.Thread(target=in_a_new_thread)
        thread.start()
        thread.join()
        assert len(errors) == 2
        assert "run_cdi_example" in errors[0]
        assert not list(tmp_path.iterdir())


class TestIndependence:
    """Models and trainings do not affect each other."""

    def test_two_models_at_once(self, trained, second, scan, other, execution, tmp_path):
        """The global settings are those of the last loaded model, and wrong for the other one."""
        models = {}
        for name, results in (("first", trained), ("second", second)):
            models[name], _ = load_inference_bundle(model_manager.save(tmp_path / name, results), execution=execution)
        assert models["first"].intensity_scale > 5 * models["second"].intensity_scale
        assert params.get("intensity_scale") == models["second"].intensity_scale
        raws = {"first": RawData.from_scan(scan), "second": RawData.from_scan(other)}
        images = {name: as_client(models[name], raws[name], gridsize=1) for name in models}
        for name, known in (("first", scan), ("second", other)):
            alone = as_client(models[name], raws[name], gridsize=1, scale=models[name].intensity_scale)
            assert_close(images[name], alone, REPEATED)
            assert compared(images[name], known).phase_correlation > 0.8

    def test_one_model_on_two_scans_in_turn(self, trained, scan, other):
        raws = [RawData.from_scan(scan), RawData.from_scan(other)]
        first = [as_client(trained["model"], raw, gridsize=1, scale=1.0) for raw in raws]
        again = [as_client(trained["model"], raw, gridsize=1, scale=1.0) for raw in reversed(raws)]
        for one, two in zip(first, reversed(again), strict=True):
            assert_close(one, two, REPEATED)
        assert compared(first[1], other).phase_correlation > 0.8

    def test_repeated_training_and_saving_in_threads(self, second, scan, other, execution, tmp_path):
        """One of two simultaneous threads repeats an earlier training."""
        work = {"again": (parts_of(other), small()), "other": ((RawData.from_scan(scan), None), small(gridsize=2))}
        both, found = threading.Barrier(2), {}

        def train(name, data, config):
            results = train_cdi_model(*data, config, execution)
            both.wait(timeout=120)
            model_manager.save(tmp_path / name)
            found[name] = results

        threads = [threading.Thread(target=train, args=(name, *item)) for name, item in work.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(found) == set(work)
        for name, value in second["history"].items():
            assert found["again"]["history"][name] == pytest.approx(value, rel=1e-4), name
        assert found["again"]["intensity_scale"] == second["intensity_scale"]
        for name, results in found.items():
            saved = pb.load_model(tmp_path / name, execution=execution).get_weights()
            for key, value in results["run"].model.get_weights().items():
                np.testing.assert_array_equal(saved[key], value, key)


class TestImages:
    """Stitched images and output files."""

    def test_flipped_coordinates(self, trained, scan):
        """Data with the wrong sign of x and flip_x give the correct image."""
        original = RawData.from_scan(scan)
        flipped = RawData.from_scan(scan)
        flipped.xcoords = -flipped.xcoords
        options = {"model": trained["model"]}
        amplitude, phase, _ = reassemble_cdi_image(flipped, small(), flip_x=True, **options)
        found = amplitude * np.exp(1j * phase)
        low, high = scan.positions_px.min(axis=0), scan.positions_px.max(axis=0)
        origin = (low + high) / 2 - (np.array(found.shape) - 1) / 2
        assert compare(found, tuple(origin), scan.obj, scan.obj_origin_px, scan.positions_px).phase_correlation > 0.97
        doubled, _, _ = reassemble_cdi_image(original, small(), coord_scale=2.0, **options)
        assert doubled.shape[0] - N == pytest.approx(2 * (found.shape[0] - N), abs=3)

    def test_transposed_patches(self, trained, scan):
        """Transposed patterns."""
        transposed = RawData.from_scan(scan)
        transposed.diff3d = transposed.diff3d.swapaxes(1, 2)
        transposed.probeGuess = transposed.probeGuess.swapaxes(1, 2)
        amplitude, phase, _ = reassemble_cdi_image(transposed, small(), transpose=True, model=trained["model"])
        assert compared(amplitude * np.exp(1j * phase), scan).phase_correlation > 0.95

    def test_the_default_model_is_that_of_the_last_training(self, trained, scan):
        raw = RawData.from_scan(scan)
        model_manager.remember(trained["run"])
        one, _, _ = reassemble_cdi_image(raw, small())
        two, _, _ = reassemble_cdi_image(raw, small(), model=ObjectModel(trained["run"].model))
        assert_close(one, two, REPEATED)

    def test_outputs_without_images(self, trained, tmp_path):
        save_outputs(None, None, trained, tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {"metrics.csv", "summary.json"}


class TestData:
    """Loading and containers."""

    def test_coordinate_options(self, scan, tmp_path):
        path = write_npz(scan, tmp_path / "scan.npz")
        y, x = scan.positions_px.T
        raw = load_data(path, flip_x=True, swap_xy=True, coord_scale=2.0)
        np.testing.assert_array_equal([raw.xcoords, raw.ycoords], [2 * y, -2 * x])
        np.testing.assert_array_equal([raw.xcoords_start, raw.ycoords_start], [2 * y, -2 * x])
        part = load_data(path, n_images=20, subsample_seed=3)
        again = load_data(path, n_images=50, n_subsample=20, subsample_seed=3)
        assert len(part.xcoords) == len(set(part.xcoords)) == 20
        np.testing.assert_array_equal(part.xcoords, again.xcoords)
        assert len(load_data(path, n_images=500).xcoords) == 100

    def test_both_readers_of_a_file_agree(self, scan, tmp_path):
        """A file of ptychodus: middles of windows, fractional counts, start coordinates."""
        y, x = scan.positions_px.T
        np.savez(
            tmp_path / "theirs.npz",
            **{"xcoords": x, "ycoords": y, "xcoords_start": x + 1, "ycoords_start": y - 1, "probeGuess": scan.probe},
            diff3d=scan.patterns + 0.25,
            bad_pixels=~scan.mask,
        )
        found, expected = load_data(tmp_path / "theirs.npz"), RawData.from_file(tmp_path / "theirs.npz")
        np.testing.assert_array_equal(found.xcoords_start, x + 1)
        for name in ("positions_px", "patterns", "measurement"):
            np.testing.assert_array_equal(getattr(found.to_scan(), name), getattr(expected.to_scan(), name))
        part = load_data(tmp_path / "theirs.npz", n_images=20, subsample_seed=3)
        rows = [int(np.flatnonzero(x == each)[0]) for each in part.xcoords]
        np.testing.assert_array_equal(part.to_scan().patterns, expected.to_scan().patterns[rows])
        np.testing.assert_array_equal(part.ycoords_start, y[rows] - 1)

    def test_containers_use_the_configuration(self, scan):
        raw = RawData.from_scan(scan)
        container = create_ptycho_data_container(raw, small(gridsize=2))
        assert container.X.shape == (100, N, N, 4)
        assert create_ptycho_data_container(container, small()) is container
        with pytest.raises(DataError, match="a Scan"):
            create_ptycho_data_container(scan, small())
