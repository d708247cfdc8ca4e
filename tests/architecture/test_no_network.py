"""Neither the import nor a run of the package connects, listens, or looks up a name on a network (SECURITY.md)."""

import subprocess
import sys

import pytest

WATCHED = """
import os, sys
from pathlib import Path
found = []
LOOPBACK = ("127.0.0.1", "::1")  # urllib3, which TensorFlow imports, binds one to find out whether IPv6 exists

def watch(event, arguments):
    address = arguments[-1] if arguments else None
    if event == "socket.bind" and isinstance(address, tuple) and address[0] in LOOPBACK:
        return
    if event in ("socket.connect", "socket.bind", "socket.sendto"):
        if not isinstance(address, (str, bytes)):  # a path names a socket inside of this machine
            found.append(f"{event} {address}")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        found.append(f"{event} {arguments}")
    elif event in ("urllib.Request", "http.client.connect", "ftplib.connect", "smtplib.connect"):
        found.append(f"{event} {arguments}")

def open_sockets():
    # Libraries in C++ raise no audit events, so the open files of the process are compared with the kernel's list.
    links = {os.readlink(path) for path in Path("/proc/self/fd").glob("*") if path.is_symlink()}
    for table in ("tcp", "tcp6", "udp", "udp6"):
        lines = Path("/proc/self/net", table)
        for line in lines.read_text().splitlines()[1:] if lines.exists() else ():
            if f"socket:[{line.split()[9]}]" in links:
                yield f"{table} {line.split()[2]}"

sys.addaudithook(watch)
import warnings
warnings.simplefilter("ignore")
"""
SCAN = """
import ptycho_backend as pb
scan = pb.simulate_scan(N=32, n_positions=25, seed=1)
"""
AFTERWARDS = """
found += open_sockets() if sys.platform.startswith("linux") else []
assert not found, found
"""
CORE = """
for name in dir(pb):
    getattr(pb, name)
image = pb.reconstruct(scan, iterations=2, probe_iterations=0)
"""
COMMAND = """
from ptycho_backend.cli import main
assert main(["simulate", "--output", sys.argv[1] + "/scan.npz", "--n_positions", "16", "--N", "32"]) == 0
assert main(["info", sys.argv[1] + "/scan.npz"]) == 0
"""
ENGINE = """
model = pb.load_model(backend={name!r})
pb.reconstruct(scan, model, iterations=2, probe_iterations=0)
config = pb.TrainingConfig(nepochs=1, batch_size=8, probe_iterations=0, backend={name!r})
pb.train(scan, config).save(sys.argv[1] + "/run")
"""


def run(program, folder):
    code = WATCHED + SCAN + program + AFTERWARDS
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]


OPENINGS = {
    "connect": "s = socket.socket(); s.connect_ex(('127.0.0.1', 9))",
    "bind": "s = socket.socket(); s.bind(('0.0.0.0', 0))",
    "getaddrinfo": "socket.getaddrinfo('localhost', 80)",
}


@pytest.mark.parametrize("event", OPENINGS)
def test_the_check_sees_sockets(event, tmp_path):
    with pytest.raises(AssertionError, match=event):
        run(f"import socket\n{OPENINGS[event]}", tmp_path)


def test_the_core_opens_no_socket(tmp_path):
    run(CORE, tmp_path)


def test_commands_open_no_socket(tmp_path):
    run(COMMAND, tmp_path)


@pytest.mark.slow
def test_an_engine_opens_no_socket(backend, tmp_path):
    run(ENGINE.format(name=backend.name), tmp_path)
