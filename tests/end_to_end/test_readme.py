"""The README, as printed: every block of commands and of Python runs in order in a fresh folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ptycho_backend.engines.registry import missing_packages

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BLOCKS = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
INSTALLATION = "pip install"  # such a block runs in the folder of the repository, as the text says
NOT_COPIED = shutil.ignore_patterns(
    *(".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info", "build", "dist", "demo", "runs")
)
FILES = (
    *("image.h5", "image.png", "scan.npz", "scan.h5", "images/scan/object.png", "images/scan/evaluation.json"),
    *("runs/first/wts.h5.zip", "runs/second/wts.h5.zip", "images/other/reconstruction.h5"),
    *("images/scan/report.html", "comparison.html"),
)


def run_block(language: str, code: str, folder: Path, environment: dict[str, str]) -> str:
    """Run a block in a process of its own and return its output; every failing line is a failure."""
    command = [sys.executable, "-c", code] if language == "python" else ["bash", "-euo", "pipefail", "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{code}\nexit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def environment_of(target: Path) -> dict[str, str]:
    """Return an environment in which pip installs this package alone into `target`, without a network."""
    paths = [str(target / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    pip = {"NO_INDEX": "1", "NO_DEPS": "1", "NO_BUILD_ISOLATION": "0", "TARGET": str(target), "QUIET": "1"}
    own = {"PATH": os.pathsep.join(paths), "PYTHONPATH": str(target), "MPLBACKEND": "agg"}
    threads = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"}
    return {**os.environ, **own, **threads, **{f"PIP_{name}": value for name, value in pip.items()}}


def test_every_block_is_run():
    """No block hides behind another language, and the page has both."""
    assert {language for language, _ in BLOCKS} == {"sh", "python"}
    assert len(BLOCKS) >= 6
    assert sum(code.startswith(INSTALLATION) for _, code in BLOCKS) == 1
    assert BLOCKS[0][1].startswith(INSTALLATION)


@pytest.mark.parametrize(("language", "code"), [("sh", "false\ntrue"), ("sh", "false | true"), ("python", "1 / 0")])
def test_a_failing_line_is_found(tmp_path, language, code):
    with pytest.raises(AssertionError, match="exit status 1"):
        run_block(language, code, tmp_path, dict(os.environ))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(bool(missing_packages("pytorch")), reason="the page trains with PyTorch")
def test_the_page_runs_line_by_line(tmp_path):
    source, target, folder = tmp_path / "source", tmp_path / "installed", tmp_path / "fresh"
    shutil.copytree(ROOT, source, ignore=NOT_COPIED)
    folder.mkdir()
    environment = environment_of(target)
    shown = ""
    for language, code in BLOCKS:
        shown += run_block(language, code, source if code.startswith(INSTALLATION) else folder, environment)
    place = run_block("python", "import ptychopinn; print(ptychopinn.__file__)", folder, environment)
    assert str(target) in place, "the installed copy ran, not this checkout"
    assert [name for name in FILES if not (folder / name).is_file()] == []
    assert re.search(r"phase: \d+\.\d dB, resolved to 0\.\d+ of Nyquist", shown)
