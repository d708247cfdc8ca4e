"""All code blocks and commands of the migration guide run in order, as printed."""

from __future__ import annotations

import re
import shlex
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

import ptycho_backend as pb
from ptycho_backend.compat import legacy

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/workflows/migration.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with the input files of the guide."""
    path = tmp_path_factory.mktemp("guide")
    scan = pb.simulate_scan(N=64, n_positions=48, photons_per_pattern=1e5, seed=2)
    pb.write_npz(scan, path / "train_data.npz")
    pb.write_npz(scan.subset(slice(0, 8)), path / "test_data.npz")
    (path / "old_config.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    return path


@pytest.fixture
def in_folder(folder, monkeypatch):
    """Change to the folder, with an empty `params.cfg`."""
    pytest.importorskip("tensorflow")
    pytest.importorskip("lightning")
    monkeypatch.chdir(folder)
    import ptycho.params

    monkeypatch.setattr(legacy, "cfg", {})
    monkeypatch.setattr(ptycho.params, "cfg", legacy.cfg)
    return folder


@pytest.mark.slow
def test_scripts(in_folder):
    names: dict[str, object] = {}
    for number, block in enumerate(blocks("python"), start=1):
        exec(compile(block, f"migration.md, block {number}", "exec"), names)
    assert np.shape(names["amplitude"]) == np.shape(names["phase"])
    assert (in_folder / "old_way/wts.h5.zip").is_file()
    image, same = names["image"].obj, names["same"].obj
    assert np.abs(same - image).max() < 1e-2 * np.abs(image).max(), "the other engine gives the same image"
    assert names["model"].backend == "pytorch"


@pytest.mark.slow
def test_commands(in_folder, old_model, ptychopinn):
    (in_folder / "predecessor.h5.zip").write_bytes(old_model().archive)
    for line in "".join(blocks("sh")).splitlines():
        program, *arguments = shlex.split(line)
        assert program == "ptychopinn"
        outcome = ptychopinn(*arguments)
        assert outcome.status == 0, outcome.err
    assert "data_source" in (in_folder / "new.yaml").read_text(encoding="utf-8")
    assert (in_folder / "trained/wts.h5.zip").is_file()


def test_every_name_in_the_tables_exists():
    names = re.findall(r"`((?:ptycho|ptycho_torch|ptycho_backend)\.[\w.]+)`", TEXT)
    assert len(names) > 15
    for name in names:
        module, _, attribute = name.rpartition(".")
        try:
            found = import_module(name)
        except ModuleNotFoundError:
            owner, _, cls = module.rpartition(".")
            holder = import_module(module) if not cls[:1].isupper() else getattr(import_module(owner), cls)
            found = getattr(holder, attribute)
        assert found is not None
