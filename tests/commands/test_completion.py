"""Completion in a shell, the other names of the program, and the package `ptychopinn`."""

import shutil
import subprocess
import sys

import pytest

import ptycho_backend as pb
import ptychopinn
from ptycho_backend.commands import COMMANDS
from ptycho_backend.commands.completion import SHELLS


@pytest.fixture(scope="module")
def bash_script(ptychopinn, tmp_path_factory):
    file = tmp_path_factory.mktemp("completion") / "ptychopinn.bash"
    file.write_text(ptychopinn("--completion", "bash").out, encoding="utf-8")
    return file


@pytest.fixture
def completed(bash_script, tmp_path):
    """Return the completions of the last word of a command line, in bash."""

    def complete(*words):
        function = f"source '{bash_script}'; COMP_WORDS=({' '.join(words) or '  '}); COMP_CWORD={len(words) - 1}; "
        code = f"{function} _shtab_ptychopinn; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.stderr == ""
        return set(done.stdout.split())

    return complete


def test_commands_options_and_choices_complete(completed):
    assert completed("ptychopinn", "rec") == {"reconstruct"}
    assert completed("ptychopinn", "''") >= set(COMMANDS)
    assert completed("ptychopinn", "reconstruct", "--inference.fit-") == {
        *("--inference.fit-positions", "--inference.fit-flux", "--inference.fit-background"),
    }
    assert completed("ptychopinn", "reconstruct", "--start", "f") == {"flat"}
    assert completed("ptychopinn", "reconstruct", "--inference.half-datasets", "t") == {"true"}
    assert completed("ptychopinn", "train", "--backe") == {"--backend"}
    assert completed("ptychopinn", "info", "--backe") == set()


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_a_script(shell, ptychopinn):
    outcome = ptychopinn("--completion", shell)
    assert (outcome.status, outcome.err) == (0, "")
    assert all(command in outcome.out for command in COMMANDS)
    assert ptychopinn(f"--completion={shell}").out == outcome.out
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=outcome.out, text=True, check=False).returncode == 0


@pytest.mark.parametrize("argv", [["--completion"], ["--completion", "fish"], ["--completion", "bsh"]])
def test_unknown_shell(argv, ptychopinn, fails_with):
    fails_with(ptychopinn(*argv), 2, "one of bash, zsh, tcsh")


@pytest.mark.parametrize("package", ["ptycho_backend", "ptychopinn"])
def test_packages_run_as_programs(package):
    done = subprocess.run([sys.executable, "-m", package, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"ptychopinn {pb.__version__}\n"


def test_both_packages_have_the_same_objects():
    assert set(ptychopinn.__all__) == set(pb.__all__)
    assert all(getattr(ptychopinn, name) is getattr(pb, name) for name in pb.__all__)
    assert dir(ptychopinn) == sorted(pb.__all__)
    with pytest.raises(AttributeError, match="module 'ptychopinn' has no attribute 'reconstrct'"):
        _ = ptychopinn.reconstrct


def test_import_is_lazy():
    code = "import sys, ptychopinn; assert not {'numpy', 'torch', 'tensorflow', 'h5py'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "from ptychopinn import *; assert callable(simulate_scan) and __version__"
    subprocess.run([sys.executable, "-c", code], check=True)
