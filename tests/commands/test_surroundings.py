"""Odd surroundings of the program: streams, terminals, encodings, environment and the first second."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ptycho_backend.data.npz import write_npz
from ptycho_backend.simulation.simulate import simulate_scan

PROGRAM = [sys.executable, "-m", "ptycho_backend"]
FAST = ["--inference.iterations", "1", "--inference.half-datasets", "false", "--inference.probe-iterations", "0"]
NO_TERMINAL = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Return the file of a very small scan, and of one with an escape sequence in its metadata."""
    folder = tmp_path_factory.mktemp("small")
    write_npz(simulate_scan(N=32, n_positions=16, seed=1), folder / "scan.npz")
    arrays = dict(np.load(folder / "scan.npz"))
    name = "\x1b]0;other title\x07\x1b[2J\x9b2J\u202egnp.exe"
    np.savez(folder / "bad.npz", **(arrays | {"metadata": np.array(json.dumps({"name": name}))}))
    return folder


@pytest.fixture
def program(small):
    def run(*argv, shell="", stdout=subprocess.PIPE, **environment):
        command = [*PROGRAM, *argv]
        if shell:
            command = ["bash", "-c", f'"$@" {shell}', "bash", *command]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        settings = {"cwd": small, "env": environment, "stdout": stdout, "stderr": subprocess.PIPE, "timeout": 120}
        return subprocess.run(command, check=False, **settings)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("redirection", ["2>&-", ">&-", "<&- >&- 2>&-"])
def test_closed_streams_cost_no_result(redirection, program, small, tmp_path):
    output = tmp_path / "run"
    done = program("reconstruct", "scan.npz", "--output", str(output), *FAST, shell=redirection)
    assert done.returncode == 0
    assert (output / "reconstruction.h5").is_file()
    # A result file under the number of a closed stream would contain messages.
    assert json.loads((output / "assessment.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_reader_that_goes_costs_no_result(program, tmp_path):
    output = tmp_path / "run"
    shell = "2>&1 | head -c 1 > /dev/null; exit ${PIPESTATUS[0]}"
    assert program("reconstruct", "scan.npz", "--output", str(output), *FAST, shell=shell).returncode == 0
    assert (output / "reconstruction.h5").is_file()
    done = program("info", "scan.npz", shell="| true; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_full_disk_behind_standard_output_is_an_error(program):
    with open("/dev/full", "wb") as full:
        done = program("info", "scan.npz", stdout=full)
    assert done.returncode == 1
    assert b"standard output: No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("columns", ["0", "1", "-3", "many", "99999"])
@pytest.mark.parametrize("argv", [["--version"], ["info", "--help"], ["info", "scan.npz"], ["info", "none.npz"]])
def test_any_width_shows_the_output(columns, argv, ptychopinn, small, monkeypatch):
    monkeypatch.chdir(small)
    monkeypatch.setenv("COLUMNS", "80")
    usual = ptychopinn(*argv)
    monkeypatch.setenv("COLUMNS", columns)
    shown = ptychopinn(*argv)
    # The free memory, a number of `info`, changes.
    without_numbers = [re.sub(r"[0-9.]+", "0", one.out + one.err).split() for one in (shown, usual)]
    assert without_numbers[0] == without_numbers[1]


@pytest.mark.slow
def test_backend_of_a_notebook_keeps_the_pictures(program, tmp_path):
    for number, backend in enumerate(("module://matplotlib_inline.backend_inline", "nonsense", "tkagg")):
        output = tmp_path / str(number)
        done = program("reconstruct", "scan.npz", "--output", str(output), *FAST, "--quiet", MPLBACKEND=backend)
        assert done.returncode == 0, done.stderr
        assert b"could not be drawn" not in done.stderr
        assert (output / "object.png").is_file()


def test_control_characters_of_a_file_stay_out_of_the_terminal(ptychopinn, small):
    shown = ptychopinn("info", small / "bad.npz")
    assert shown.status == 0
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(shown.out + shown.err)
    assert r"name=\x1b]0;other" in shown.out
    assert r"\u202egnp.exe" in shown.out
    failed = ptychopinn("info", "no\x1b[2Jfile.npz")
    assert "\x1b" not in failed.err
    assert r"no\x1b[2Jfile.npz" in failed.err
    for argv in (("train", "--config", "\x1b[2J.yaml"), ("\x1b[2J",), ("info", "--\x1b[2J")):
        assert "\x1b" not in ptychopinn(*argv).err


def test_json_has_no_control_characters(ptychopinn, small):
    shown = ptychopinn("info", small / "bad.npz", "--json")
    assert shown.out.isascii()
    assert "\x1b]0;other" in json.loads(shown.out)["rows"]["attributes"]


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}, {}])
def test_terminal_with_few_characters(environment, program):
    done = program("info", "scan.npz", **NO_TERMINAL, **environment)
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode("latin-1")
    assert ("32×32 px" if environment.get("PYTHONIOENCODING") == "latin-1" else "32x32 px") in text
    missing = program("info", "sc\u00e4n.npz", **NO_TERMINAL, **environment)
    assert missing.returncode == 1
    assert b"Traceback" not in missing.stderr
    assert b"Expected:" in missing.stderr


@pytest.mark.slow
def test_names_that_are_no_utf_8(small, program, tmp_path):
    name = os.fsdecode(b"out\xff")
    done = program("reconstruct", "scan.npz", "--output", str(tmp_path / name), *FAST)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / name / "reconstruction.h5").is_file()
    assert rb"out\xff" in done.stdout
    described = program("info", str(tmp_path / name), "--json")
    assert described.returncode == 0, described.stderr
    assert json.loads(described.stdout)["file"].endswith(name)
    simulated = program("simulate", "--output", str(tmp_path / f"{name}.npz"), "--N", "32", "--n-positions", "4")
    assert simulated.returncode == 0, simulated.stderr
    reconstructed = program("info", str(tmp_path / f"{name}.npz"))
    assert reconstructed.returncode == 0, reconstructed.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "argv", [["reconstruct", "--help"], ["train", "--help-all"], ["train", "--print-config"], ["info", "scan.npz"]]
)
def test_without_docstrings(argv, program):
    done = program(*argv, PYTHONOPTIMIZE="2")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout


@pytest.mark.slow
def test_configuration_without_docstrings_is_a_valid_file(program, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_bytes(program("simulate", "--print-config", PYTHONOPTIMIZE="2").stdout)
    assert program("simulate", "--config", str(file), "--print-config").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("argv", [["info", "none.npz"], ["train", "--print-config"], ["--completion", "bash"]])
def test_ctrl_c_in_the_first_second(argv, small):
    for delay_s in (0.05, 0.1, 0.2, 0.3, 0.5):
        # The program is loaded at once, so that a signal finds its handler; the interpreter itself has none.
        code = f"import sys; sys.argv[1:] = {argv!r}; from ptycho_backend.cli import main; print('here', flush=True); "
        command = [sys.executable, "-c", code + "sys.exit(main())"]
        with subprocess.Popen(command, cwd=small, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"here\n"
            time.sleep(delay_s)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        assert b"Traceback" not in err
        # Python removes all handlers at its own end: a signal then ends the process as the system does.
        assert process.returncode in (0, 1, 130, -signal.SIGINT)
        if process.returncode == 130:
            assert err.decode().splitlines()[-1:] == ["Interrupted"]


def test_ctrl_c_during_the_imports_ends_with_one_line(small):
    code = (
        "import signal, sys; sys.argv[1:] = ['info', 'none.npz']; from ptycho_backend import cli; "
        "cli._prepare_process(); "
        "signal.raise_signal(signal.SIGINT)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=small, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"Interrupted\n")
