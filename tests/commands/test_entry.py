"""Start of the command: import time, and no framework before its first use."""

import subprocess
import sys

import pytest

FRAMEWORKS = ("torch", "lightning", "tensorflow", "keras")
HEAVY = ("matplotlib", "scipy", "h5py", "skimage", "pydantic", "jsonargparse")


def python(*argv):
    return subprocess.run([sys.executable, *argv], capture_output=True, text=True, timeout=120, check=False)


def loaded_after(code):
    """Return the duration of some code in seconds, and the packages it loads."""
    script = f"import sys, time; start = time.perf_counter(); {code}; duration = time.perf_counter() - start"
    result = python("-c", f"{script}; print(duration, *sorted(sys.modules), file=sys.stderr)")
    assert result.returncode == 0, result.stderr
    duration, *modules = result.stderr.split()
    return float(duration), {name.partition(".")[0] for name in modules}


def test_import_is_fast_and_small():
    duration, loaded = loaded_after("import ptycho_backend.cli")
    assert not loaded & {*FRAMEWORKS, *HEAVY, "rich"}
    assert duration < 1.0


@pytest.mark.parametrize("argv", [["--help"], ["train", "--help"], ["train", "--print_config"], ["simulate", "--help"]])
def test_help_loads_no_framework(argv):
    _, loaded = loaded_after(f"from ptycho_backend.cli import main; main({argv!r})")
    assert not loaded & {*FRAMEWORKS, "matplotlib"}


def test_simulate_and_info_load_no_framework(tmp_path):
    make = ["simulate", "--output", str(tmp_path / "scan.npz"), "--N=32", "--n_positions=4", "--quiet"]
    code = f"from ptycho_backend.cli import main; main({make!r}); main(['info', {str(tmp_path / 'scan.npz')!r}])"
    _, loaded = loaded_after(code)
    assert (tmp_path / "scan.npz").is_file()
    assert not loaded & {*FRAMEWORKS, "matplotlib"}


def test_module_runs_as_a_program(tmp_path):
    good = python("-m", "ptycho_backend.cli", "--version")
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.startswith("ptychopinn ")
    bad = python("-m", "ptycho_backend.cli", "train", str(tmp_path / "nowhere.npz"), "--output", str(tmp_path / "run"))
    assert bad.returncode == 1
    assert "Traceback" not in bad.stderr
    assert list(tmp_path.iterdir()) == []
    assert python("-m", "ptycho_backend.cli", "trian").returncode == 2
