"""Names of the earlier PyTorch package, in one process (ptychodus_api_spec 4.11 and 4.12)."""

from __future__ import annotations

import dataclasses
import json
import logging
import zipfile

import numpy as np
import pytest

import ptycho_backend as pb
from ptycho_backend.errors import ConfigError, DataError, ModelFileError, TrainingError
from ptycho_backend.model_file.bundle import read_bundle
from ptycho_torch.config_params import DataConfig, DatagenConfig, InferenceConfig, ModelConfig, TrainingConfig
from ptycho_torch.lightning_utils import find_best_checkpoint

pytestmark = pytest.mark.client
torch = pytest.importorskip("torch")
pl = pytest.importorskip("lightning.pytorch")

from ptycho_torch.api.base_api import (  # noqa: E402 - after the check for the frameworks
    ConfigManager,
    DataloaderFormats,
    InferenceEngine,
    PtychoDataLoader,
    PtychoModel,
    Trainer,
)
from ptycho_torch.model import PtychoPINN_Lightning  # noqa: E402

HALF_PX = 0.5  # clients use the middle of a window as its position


@pytest.fixture(scope="module")
def scan():
    """Return an asymmetric scan: wider than high and without a corner, so that midpoint and mean differ."""
    full = pb.simulate_scan(N=32, n_positions=144, object_name="lines", photons_per_pattern=1e5, seed=3)
    low, high = full.positions_px.min(axis=0), full.positions_px.max(axis=0)
    y, x = ((full.positions_px - low) / (high - low)).T
    return full.subset(np.flatnonzero((y < 0.85) & ~((y < 0.3) & (x < 0.3))))


def export(scan, path, **fields):
    """Write a scan in the format of ptychodus: big-endian counts, positions of windows' middles."""
    y, x = (scan.positions_px - HALF_PX).T
    arrays = {
        "xcoords": x - scan.obj_origin_px[1],
        "ycoords": y - scan.obj_origin_px[0],
        "diff3d": np.asarray(scan.patterns).astype(">u4"),
        "bad_pixels": ~scan.mask,
        "probeGuess": scan.probe.astype(np.complex128),
        "objectGuess": scan.obj,
        "scan_index": np.zeros(len(scan), int),
    }
    np.savez(path, **{**arrays, **fields})


def manager(training=None, model=None, **data):
    """Return the configuration of a small, short training."""
    return ConfigManager(
        data_config=DataConfig(N=32, **data),
        model_config=ModelConfig(n_filters_scale=1, **(model or {})),
        training_config=TrainingConfig(**{"epochs": 2, **(training or {})}),
        inference_config=InferenceConfig(),
        datagen_config=DatagenConfig(),
    )


ALONE = {"C": 1, "grid_size": (1, 1)}


def client_run(folder, configs, callbacks=(), out=None):
    """Train as the client's child process does."""
    loader = PtychoDataLoader(
        data_dir=folder,
        config_manager=configs,
        data_format=DataloaderFormats("lightning_only_module"),
        output_dir=out or folder / "out",
    )
    model = PtychoModel._new_model(model=PtychoPINN_Lightning, config_manager=configs)
    trainer = Trainer._from_lightning(model=model, dataloader=loader, orchestration="lightning", config_manager=configs)
    trainer._trainer.callbacks.extend(callbacks)
    trainer.train(orchestration="lightning", experiment_name="")
    return loader, model


def loaded(path):
    """Load a model as the client's child process does."""
    data, model, training, inference = PtychoModel._extract_configs_from_checkpoint(str(path))
    parts = {"model_config": model, "data_config": data, "training_config": training, "inference_config": inference}
    ptycho_model = PtychoModel(**parts)
    ptycho_model.model = PtychoPINN_Lightning.load_from_checkpoint(path, **parts)
    configs = ConfigManager.from_loaded_model(ptycho_model)
    configs.validate_arch_compatibility(ptycho_model)
    return ptycho_model, configs


def in_memory(scan, configs, dtype=None, order=""):
    patterns = np.asarray(scan.patterns)
    return PtychoDataLoader.from_np(
        diff_patterns=patterns.astype(dtype or patterns.dtype),
        probe=scan.probe,
        positions=(scan.positions_px - HALF_PX).astype(f"{order}f8"),
        config_manager=configs,
    )


def make_collector(names):
    """Return a callback of a local class, which cannot be pickled, as the client's."""

    class Collector(pl.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.train, self.validation = [], []

        def on_train_epoch_end(self, trainer, pl_module):
            self.train.append((trainer.current_epoch, float(trainer.callback_metrics[names[0]])))

        def on_validation_epoch_end(self, trainer, pl_module):
            assert not trainer.sanity_checking
            self.validation.append((trainer.current_epoch, float(trainer.callback_metrics[names[1]])))

    return Collector()


@dataclasses.dataclass
class Trained:
    """A finished training of a client."""

    loader: PtychoDataLoader
    model: PtychoModel
    collector: pl.callbacks.Callback
    messages: list

    @property
    def history(self):
        return json.loads((zipfile.ZipFile(self.loader.output_dir / "wts.h5.zip")).read("history.json"))


@pytest.fixture(scope="module")
def trained(scan, tmp_path_factory):
    """Train once, with a training file and a validation file."""
    folder = tmp_path_factory.mktemp("client")
    export(scan, folder / "train_data.npz")
    export(scan.subset(np.arange(0, len(scan), 6)), folder / "test_data.npz")
    collector = make_collector(("poisson_train_loss", "poisson_val_loss"))
    messages = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: messages.append(record.getMessage())
    root, level = logging.getLogger(), logging.getLogger().level
    handlers = list(root.handlers)
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        loader, model = client_run(folder, manager({"epochs": 3, "learning_rate": 0.01}), [collector])
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    assert root.handlers == handlers
    return Trained(loader, model, collector, messages)


# --- training -------------------------------------------------------------------------------------------------------


def test_callbacks_receive_every_epoch(trained):
    assert (trained.model.model.loss_name, trained.model.model.val_loss_name) == (
        "poisson_train_loss",
        "poisson_val_loss",
    )
    for name, epochs in (("train", trained.collector.train), ("val", trained.collector.validation)):
        assert [epoch for epoch, _ in epochs] == [0, 1, 2]
        assert [value for _, value in epochs] == pytest.approx([row[f"poisson_{name}_loss"] for row in trained.history])


def test_log_of_epochs_and_keywords(trained):
    assert [message.split(":")[0] for message in trained.messages if message.startswith("epoch ")] == [
        "epoch 1/3",
        "epoch 2/3",
        "epoch 3/3",
    ]
    assert sum("cbam_encoder=True" in message for message in trained.messages) == 1


def test_the_validation_file(trained, scan):
    positions = len(trained.loader.scan)
    assert 0 < positions < len(scan), "one file, within the bounds"
    assert len(trained.loader.validation) == len(range(0, len(scan), 6)), "whole"
    provenance = read_bundle(trained.loader.output_dir).provenance
    assert provenance["data_sha256"] == trained.loader.scan.data_hash()
    assert provenance["validation_sha256"] == trained.loader.validation.data_hash()


def test_the_trainer_is_that_of_lightning(scan, tmp_path):
    export(scan, tmp_path / "scan.npz")
    configs = manager()
    loader = PtychoDataLoader(data_dir=tmp_path, config_manager=configs, output_dir=tmp_path / "out")
    model = PtychoModel._new_model(model=PtychoPINN_Lightning, config_manager=configs)
    trainer = Trainer._from_lightning(model=model, dataloader=loader, config_manager=configs)
    assert isinstance(trainer._trainer, pl.Trainer)
    assert isinstance(model.model, pl.LightningModule)
    assert trainer._trainer.callbacks == []
    with pytest.raises(ConfigError, match="mlflow"):
        trainer.train(orchestration="mlflow")


def test_files_of_the_run_folder(trained, scan):
    run = trained.loader.output_dir
    assert run.parent.name == "out"
    assert run.name.startswith("run_2")
    names = {path.name for path in run.iterdir()}
    assert {"wts.h5.zip", "config.yaml", "metrics.csv", "summary.json", "checkpoints"} <= names
    assert not list(run.rglob("*.tmp"))


def test_runs_of_the_same_second_have_different_folders(scan, tmp_path):
    export(scan, tmp_path / "scan.npz")
    folders = {PtychoDataLoader(tmp_path, manager(), output_dir=tmp_path / "out").output_dir for _ in range(3)}
    assert len(folders) == 3
    assert all(folder.is_dir() for folder in folders)


def test_bounds_apply_to_training_along_their_axes(scan, tmp_path):
    export(scan, tmp_path / "scan.npz")
    configs = manager(x_bounds=(0.0, 0.4), y_bounds=(0.25, 1.0))
    inside = PtychoDataLoader(tmp_path, configs, output_dir=tmp_path / "out").scan.positions_px
    # Positions in the file are relative to the object's corner.
    whole = scan.positions_px - scan.obj_origin_px
    y, x = ((whole - whole.min(axis=0)) / np.ptp(whole, axis=0)).T
    expected = whole[(y >= 0.25) & (x <= 0.4)]
    assert 9 < len(expected) < len(whole) / 2
    np.testing.assert_allclose(inside, expected, atol=1e-9)
    assert len(in_memory(scan, configs).scan) == len(scan), "images show the whole field"


@pytest.mark.parametrize(
    ("bounds", "error", "words"),
    [
        ({"x_bounds": (0.9, 0.1)}, ConfigError, "x_bounds=.0.9, 0.1"),
        ({"y_bounds": (0.0, 1.5)}, ConfigError, "y_bounds"),
        ({"x_bounds": (0.0, 1e-6), "y_bounds": (0.0, 1e-6)}, DataError, "x_bounds"),
    ],
)
def test_invalid_bounds(scan, tmp_path, bounds, error, words):
    export(scan, tmp_path / "scan.npz")
    with pytest.raises(error, match=words):
        PtychoDataLoader(tmp_path, manager(**bounds), output_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folders_without_training_data(scan, tmp_path):
    export(scan, tmp_path / "test_data.npz")
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match=r"train_data\.npz"):
            PtychoDataLoader(folder, manager(), output_dir=tmp_path / "out")


def test_several_training_files(scan, tmp_path):
    export(scan, tmp_path / "a.npz")
    export(scan.subset(np.arange(40)), tmp_path / "b.npz")
    whole = {"x_bounds": (0.0, 1.0), "y_bounds": (0.0, 1.0)}
    loader = PtychoDataLoader(tmp_path, manager(**whole), output_dir=tmp_path / "out")
    assert len(loader.scan) == len(scan) + 40
    export(scan.subset(np.arange(5)), tmp_path / "c.npz")
    with pytest.raises(DataError, match=r"5 in '.*c\.npz'"):
        PtychoDataLoader(tmp_path, manager(**whole), output_dir=tmp_path / "out")


def test_fractional_patterns_are_counts_by_default(scan, tmp_path):
    counts = np.asarray(scan.patterns)
    export(scan, tmp_path / "scan.npz", diff3d=(counts * 1.01).astype(np.float32))
    assert PtychoDataLoader(tmp_path, manager(), output_dir=tmp_path / "out").scan.measurement == "counts"
    amplitude = {"diff3d": np.sqrt(counts).astype(np.float32), "measurement": np.array("amplitude")}
    export(scan, tmp_path / "scan.npz", **amplitude)
    assert PtychoDataLoader(tmp_path, manager(), output_dir=tmp_path / "out").scan.measurement == "amplitude"


def test_labels_of_supervised_training(scan, tmp_path):
    """Patches of the file's object at the scan's positions equal those of the true object."""
    from ptycho_backend.physics.translation import extract_patches_at

    export(scan, tmp_path / "train_data.npz")
    configs = manager({"epochs": 1}, {"mode": "Supervised"}, **ALONE)
    loader, model = client_run(tmp_path, configs)
    assert model.model.loss_name == "supervised_train_loss"
    read = loader.scan
    labels = extract_patches_at(read.obj, read.positions_px, read.N, read.obj_origin_px)
    truth = extract_patches_at(scan.obj, read.positions_px + scan.obj_origin_px, scan.N, scan.obj_origin_px)
    np.testing.assert_allclose(labels, truth, atol=1e-5)


# --- checkpoints ----------------------------------------------------------------------------------------------------


def test_the_best_checkpoint_holds_plain_values(trained):
    path = find_best_checkpoint(trained.loader.output_dir)
    assert path == trained.loader.output_dir / "checkpoints" / "best-checkpoint.ckpt"
    content = torch.load(path, weights_only=True)
    best = min(range(3), key=lambda epoch: trained.history[epoch]["poisson_val_loss"])
    batches = -(-len(trained.loader.scan) // 16)
    assert (content["epoch"], content["global_step"]) == (best, (best + 1) * batches)
    parts = content["hyper_parameters"]
    assert set(parts) == {"data_config", "model_config", "training_config", "inference_config"}
    assert json.loads(json.dumps(parts)) == parts
    assert parts["inference_config"] == dataclasses.asdict(InferenceConfig())
    assert all(isinstance(value, torch.Tensor) for value in content["state_dict"].values())
    assert "pytorch-lightning_version" in content


def test_the_last_checkpoint_holds_the_last_epoch(trained):
    folder = trained.loader.output_dir / "checkpoints"
    last, _ = loaded(folder / "last.ckpt")
    expected = read_bundle(folder / "last.h5.zip").weights
    for name, value in last.model.trained.get_weights().items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    best = read_bundle(trained.loader.output_dir).weights
    for name, value in trained.model.model.trained.get_weights().items():
        np.testing.assert_array_equal(value, best[name], err_msg=f"{name} of the model itself")


def test_precedence_of_checkpoints(tmp_path):
    assert find_best_checkpoint(tmp_path) is None
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "last.h5.zip").touch()
    assert find_best_checkpoint(tmp_path) is None
    for name in ("epoch=3.ckpt", "last.ckpt", "best-checkpoint.ckpt"):
        (folder / name).touch()
        assert find_best_checkpoint(tmp_path) == folder / name


def test_a_copied_checkpoint_restores_the_model(trained, tmp_path):
    copy = tmp_path / "saved.ckpt"
    copy.write_bytes(find_best_checkpoint(trained.loader.output_dir).read_bytes())
    model, configs = loaded(copy)
    state, expected = model.model.state_dict(), trained.model.model.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in state)
    assert configs.data_config == DataConfig(N=32)
    assert configs.data_config.grid_size == (2, 2)
    assert model.model.trained.execution.device == "auto", "independent of the training device"


def test_another_configuration_is_a_value_error(trained):
    model, configs = loaded(find_best_checkpoint(trained.loader.output_dir))
    configs.model_config.n_filters_scale = 3
    with pytest.raises(ValueError, match="n_filters_scale=3"):
        configs.validate_arch_compatibility(model)


class Malicious:
    """Object that executes code when it is unpickled."""

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_invalid_checkpoints_are_errors_and_execute_nothing(trained, tmp_path):
    good = find_best_checkpoint(trained.loader.output_dir)
    content = torch.load(good, weights_only=True)
    malicious = Malicious()
    malicious.path = tmp_path / "ran"
    files = {
        "malicious": {**content, "callbacks": malicious},
        "foreign": {"state_dict": {}, "hyper_parameters": {}, "epoch": 1},
        "newer": {**content, "ptychopinn": {**content["ptychopinn"], "format_version": 99}},
        "without settings": {**content, "hyper_parameters": {}},
        "other weights": {**content, "state_dict": {"network.log_scale": torch.zeros(())}},
        "a list": [1, 2],
    }
    for name, value in files.items():
        torch.save(value, tmp_path / f"{name}.ckpt")
    (tmp_path / "cut.ckpt").write_bytes(good.read_bytes()[:5000])
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    for name in (*files, "cut", "text", "missing"):
        with pytest.raises(ModelFileError, match=f"{name}.ckpt"):
            PtychoPINN_Lightning.load_from_checkpoint(tmp_path / f"{name}.ckpt")
    assert not malicious.path.exists()


def test_untrained_models(scan):
    configs = manager()
    model = PtychoModel._new_model(model=PtychoPINN_Lightning, config_manager=configs)
    engine = InferenceEngine(config_manager=configs, ptycho_model=model)
    with pytest.raises(TrainingError, match="trained or loaded"):
        engine.predict_and_stitch(in_memory(scan, configs))


# --- reconstruction -------------------------------------------------------------------------------------------------


def test_position_of_the_image(trained, scan):
    """The array's centre is the midpoint of the bounding box of windows' middles; bounds do not crop the field."""
    model, configs = loaded(find_best_checkpoint(trained.loader.output_dir))
    obj = InferenceEngine(config_manager=configs, ptycho_model=model).predict_and_stitch(in_memory(scan, configs))
    assert isinstance(obj, np.ndarray)
    assert (obj.dtype, obj.ndim) == (np.complex64, 2)
    low, high = scan.positions_px.min(axis=0) - HALF_PX, scan.positions_px.max(axis=0) - HALF_PX
    assert (np.array(obj.shape) >= high - low + scan.N).all()
    origin = (low + high) / 2 - (np.array(obj.shape) - 1) / 2
    full = pb.reconstruct(scan, model.model.trained, neighbor_count=configs.data_config.K, batch_size=256)
    coverage = full.coverage[:-1, :-1]
    found = pb.evaluate(pb.Image(obj, coverage, tuple(origin)), scan)
    assert np.abs(found.shift_px).max() < 0.15
    assert min(found.amplitude_correlation, found.phase_correlation) > 0.9
    # No window reaches the last row and column.
    assert not full.coverage[-1].any()
    assert not full.coverage[:, -1].any()


@pytest.mark.parametrize("dtype", [">u2", "<i4"])
def test_dtypes_and_byte_orders_give_one_image(trained, scan, dtype):
    model, configs = loaded(find_best_checkpoint(trained.loader.output_dir))
    engine = InferenceEngine(config_manager=configs, ptycho_model=model)
    expected = engine.predict_and_stitch(in_memory(scan, configs))
    found = engine.predict_and_stitch(in_memory(scan, configs, dtype=dtype, order=">"))
    np.testing.assert_array_equal(found, expected)


# --- several devices ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_callbacks_with_two_processes(scan, tmp_path):
    export(scan, tmp_path / "train_data.npz")
    collector = make_collector(("poisson_train_loss", "poisson_val_loss"))
    training = {"n_devices": 2, "device": "cpu", "strategy": "ddp_spawn"}
    loader, _ = client_run(tmp_path, manager(training, **ALONE), [collector])
    assert [epoch for epoch, _ in collector.train] == [epoch for epoch, _ in collector.validation] == [0, 1]
    model, configs = loaded(find_best_checkpoint(loader.output_dir))
    obj = InferenceEngine(config_manager=configs, ptycho_model=model).predict_and_stitch(in_memory(scan, configs))
    assert np.isfinite(obj).all()
