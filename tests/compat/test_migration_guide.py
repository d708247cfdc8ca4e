"""Every step of the guide from the earlier package runs, in its order, as it is printed."""

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
    """Return a folder with the files that the guide starts from."""
    place = tmp_path_factory.mktemp("guide")
    scan = pb.simulate_scan(N=64, n_positions=48, photons_per_pattern=1e5, seed=2)
    pb.write_npz(scan, place / "train_data.npz")
    pb.write_npz(scan.subset(slice(0, 8)), place / "test_data.npz")
    (place / "old_config.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    return place


@pytest.fixture
def at_home(folder, monkeypatch):
    """Stand in that folder, with globals of one's own."""
    pytest.importorskip("tensorflow")
    pytest.importorskip("lightning")
    monkeypatch.chdir(folder)
    import ptycho.params

    monkeypatch.setattr(legacy, "cfg", {})
    monkeypatch.setattr(ptycho.params, "cfg", legacy.cfg)
    return folder


def test_scripts_run_step_by_step(at_home):
    names: dict[str, object] = {}
    for number, block in enumerate(blocks("python"), start=1):
        exec(compile(block, f"migration.md, block {number}", "exec"), names)
    assert np.shape(names["amplitude"]) == np.shape(names["phase"])
    assert (at_home / "old_way/wts.h5.zip").is_file()
    image, same = names["image"].obj, names["same"].obj
    assert np.abs(same - image).max() < 1e-2 * np.abs(image).max(), "the other engine gives the same image"
    assert names["model"].backend == "pytorch"


def test_commands_run_step_by_step(at_home, published, ptychopinn):
    (at_home / "predecessor.h5.zip").write_bytes(published().archive)
    for line in "".join(blocks("sh")).splitlines():
        program, *arguments = shlex.split(line)
        assert program == "ptychopinn"
        outcome = ptychopinn(*arguments)
        assert outcome.status == 0, outcome.err
    assert "data_source" in (at_home / "new.yaml").read_text(encoding="utf-8")
    assert (at_home / "trained/wts.h5.zip").is_file()


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
