"""``ptychopinn migrate`` and ``convert``: configurations and models of PtychoPINN."""

import pickle
import zipfile

import pytest
import yaml

from ptycho_backend.config import TrainingConfig, from_dict
from ptycho_backend.data.npz import write_npz
from ptycho_backend.simulation.simulate import simulate_scan

OLD = """\
N: 32
n_filters_scale: 1
probe.trainable: true
nepochs: 1
batch_size: 16
nphotons: 1e6
data_source: lines
backend: pytorch
model:
  gridsize: 1
  fno_width: 32
oddity: 3
"""


@pytest.fixture
def old_config(tmp_path):
    (tmp_path / "old.yaml").write_text(OLD)
    return tmp_path / "old.yaml"


def test_migrated_configuration_trains(old_config, ptychopinn, needs_pytorch, tmp_path):
    new = tmp_path / "new.yaml"
    outcome = ptychopinn("migrate", old_config, "--output", new)
    assert outcome.status == 0, outcome.err
    for words in (
        "probe.trainable",
        "training.probe_trainable = True",
        "data_source",
        "oddity",
        "unknown in both packages",
    ):
        assert words in outcome.out
    scan = write_npz(simulate_scan(N=32, n_positions=16, photons_per_pattern=1e5, seed=3), tmp_path / "scan.npz")
    quick = ("--training.probe_iterations=0", "--execution.precision=32-true", "--no-reconstruct")
    trained = ptychopinn("train", scan, "--config", new, "--output", tmp_path / "run", *quick)
    assert trained.status == 0, trained.err
    used = from_dict(TrainingConfig, yaml.safe_load((tmp_path / "run/config.yaml").read_text())["training"])
    assert (used.model.architecture, used.probe_trainable, used.nepochs) == ("cnn", True, 1)


def test_migrate_prints_without_output(old_config, ptychopinn):
    outcome = ptychopinn("migrate", old_config)
    assert outcome.status == 0
    values = yaml.safe_load(outcome.out)
    assert values["training"]["model"] == {"N": 32, "n_filters_scale": 1, "gridsize": 1, "architecture": "cnn"}
    assert values["training"]["nphotons"] == 1e6
    assert "# Not carried over: model.fno_width = 32" in outcome.out


def test_invalid_configurations(old_config, ptychopinn, fails_with, tmp_path):
    fails_with(ptychopinn("migrate"), 2, "OLD.yaml")
    fails_with(ptychopinn("migrate", tmp_path / "missing.yaml"), 2, "missing.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    fails_with(ptychopinn("migrate", tmp_path / "list.yaml"), 2, "a list")
    (tmp_path / "code.yaml").write_text("a: !!python/object/apply:os.system ['true']\n")
    fails_with(ptychopinn("migrate", tmp_path / "code.yaml"), 2, "not valid YAML")
    fails_with(ptychopinn("migrate", old_config, "--output", tmp_path / "new.txt"), 1, ".yaml")
    fails_with(ptychopinn("migrate", old_config, "--output", old_config), 1, "--overwrite")
    assert old_config.read_text() == OLD


def test_help(ptychopinn):
    for command, words in {
        "convert": ("OLD NEW", "--decoder-outputs", "--N"),
        "migrate": ("OLD.yaml", "--output"),
    }.items():
        outcome = ptychopinn(command, "--help")
        assert outcome.status == 0
        assert all(word in outcome.out for word in words)


def test_invalid_archives(scan_file, ptychopinn, fails_with, tmp_path):
    with zipfile.ZipFile(tmp_path / "half.zip", "w") as archive:
        archive.writestr("manifest.dill", pickle.dumps({"models": ["autoencoder"]}))
    (tmp_path / "model.pt").write_bytes(b"x")
    new = tmp_path / "new"
    fails_with(ptychopinn("convert", tmp_path / "half.zip", new), 1, "autoencoder/params.dill", "half.zip")
    fails_with(ptychopinn("convert", scan_file, new), 1, "manifest.dill", scan_file.name)
    fails_with(ptychopinn("convert", tmp_path / "missing.zip", new), 1, "no such file")
    fails_with(ptychopinn("convert", tmp_path / "model.pt", new), 1, "PyTorch")
    fails_with(ptychopinn("convert", tmp_path / "half.zip"), 2, "NEW")
    fails_with(ptychopinn("convert"), 2, "OLD")
    fails_with(ptychopinn("convert", tmp_path / "half.zip", new, "--decoder-outputs", "polar"), 2, "decoder-outputs")
    assert not new.exists()


def test_convert_rejects_a_model_of_this_package(trained, ptychopinn, fails_with, tmp_path):
    fails_with(ptychopinn("convert", trained[0], tmp_path / "new"), 1, "already", "--model")
