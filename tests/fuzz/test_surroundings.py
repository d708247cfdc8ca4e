"""Odd surroundings of a command: environment variables, streams, folders and names."""

import os
import subprocess
import sys

import pytest

import ptycho_backend as pb

COMMAND = [sys.executable, "-m", "ptycho_backend"]
VARIABLES = {
    "COLUMNS": ("0", "-1", "x", "99999999999"),
    "LINES": ("0", "x"),
    "MPLBACKEND": ("module://matplotlib_inline.backend_inline", "nothing"),
    "TERM": ("dumb", "", "unknown"),
    "LC_ALL": ("C", "xx_XX.UTF-8"),
    "PYTHONIOENCODING": ("ascii", "latin-1"),
    "PYTHONUTF8": ("0", "1"),
    "PYTHONOPTIMIZE": ("2",),
    "PYTHONWARNINGS": ("error", "ignore"),
    "TMPDIR": ("/nowhere",),
    "HOME": ("/nowhere", ""),
    "NO_COLOR": ("1",),
    "FORCE_COLOR": ("1",),
    "OMP_NUM_THREADS": ("1", "0", "x"),
    "CUDA_VISIBLE_DEVICES": ("-1", "x"),
    "HDF5_USE_FILE_LOCKING": ("FALSE", "x"),
    "HDF5_PLUGIN_PATH": ("/nowhere",),
}
NAMES = ("scan.npz", "ä b.npz", "'quoted'.npz", "-x.npz", "a\nb.npz", "\x1b[31mred.npz", "x" * 250 + ".npz")


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    return pb.write_npz(pb.simulate_scan(N=32, n_positions=9, seed=1), tmp_path_factory.mktemp("scan") / "s.npz")


def test_surroundings_of_a_command(seed, draw, scan, tmp_path):
    """The command describes the scan whatever surrounds it; a second file that is missing is a clear error."""
    chosen = [str(name) for name in draw.choice(list(VARIABLES), draw.integers(1, 5), replace=False)]
    environment = os.environ | {name: VARIABLES[name][draw.integers(len(VARIABLES[name]))] for name in chosen}
    name = NAMES[draw.integers(len(NAMES))]
    (tmp_path / name).write_bytes(scan.read_bytes())
    missing = draw.random() < 0.3
    file = f"./{name}" if not missing else f"./no {name}"
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    done = subprocess.run([*COMMAND, "info", file], env=environment, cwd=tmp_path, timeout=120, **streams)
    message = done.stderr.decode(errors="replace")
    assert "Traceback" not in message, (environment, message)
    assert done.returncode == (1 if missing else 0), (chosen, name, message)
    assert b"\x1b[31mred" not in done.stdout + done.stderr
