"""The command as users start it: quick, and without a framework until one is needed."""

import subprocess
import sys

import pytest

FRAMEWORKS = ("torch", "lightning", "tensorflow", "keras")
HEAVY = ("matplotlib", "scipy", "h5py", "skimage", "pydantic", "jsonargparse")


def python(*argv):
    return subprocess.run([sys.executable, *argv], capture_output=True, text=True, timeout=120, check=False)


def loaded_after(code):
    """Return the packages that are loaded after some code, and the seconds that it took."""
    script = f"import sys, time; start = time.perf_counter(); {code}; took = time.perf_counter() - start"
    result = python("-c", f"{script}; print(took, *sorted(sys.modules), file=sys.stderr)")
    assert result.returncode == 0, result.stderr
    took, *modules = result.stderr.split()
    return float(took), {name.partition(".")[0] for name in modules}


def test_importing_the_command_is_quick_and_loads_next_to_nothing():
    took, loaded = loaded_after("import ptycho_backend.cli")
    assert not loaded & {*FRAMEWORKS, *HEAVY, "rich"}
    assert took < 1.0


@pytest.mark.parametrize("argv", [["--help"], ["train", "--help"], ["train", "--print_config"], ["simulate", "--help"]])
def test_help_loads_no_framework(argv):
    _, loaded = loaded_after(f"from ptycho_backend.cli import main; main({argv!r})")
    assert not loaded & {*FRAMEWORKS, "matplotlib"}


def test_a_scan_is_made_and_described_without_a_framework(tmp_path):
    make = ["simulate", "--output", str(tmp_path / "scan.npz"), "--N=32", "--n_positions=4", "--quiet"]
    code = f"from ptycho_backend.cli import main; main({make!r}); main(['info', {str(tmp_path / 'scan.npz')!r}])"
    _, loaded = loaded_after(code)
    assert (tmp_path / "scan.npz").is_file()
    assert not loaded & {*FRAMEWORKS, "matplotlib"}


def test_the_module_runs_as_a_program(tmp_path):
    good = python("-m", "ptycho_backend.cli", "--version")
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.startswith("ptychopinn ")
    bad = python("-m", "ptycho_backend.cli", "train", str(tmp_path / "nowhere.npz"), "--output", str(tmp_path / "run"))
    assert bad.returncode == 1
    assert "Traceback" not in bad.stderr
    assert list(tmp_path.iterdir()) == []
    assert python("-m", "ptycho_backend.cli", "trian").returncode == 2
