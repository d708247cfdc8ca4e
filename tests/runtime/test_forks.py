"""A child made by fork after a framework was used: an error at once instead of a wait without end."""

import os
import subprocess
import sys

import pytest

from ptycho_backend.errors import ProcessError
from ptycho_backend.runtime import forks

HEAD = """
import multiprocessing, warnings
warnings.simplefilter("ignore")
import ptycho_backend as pb
ENGINE = {engine!r}

def work(model=None):
    scan = pb.simulate_scan(N=32, n_positions=16, seed=2)
    try:
        pb.reconstruct(scan, {model}, iterations=1, probe_iterations=0)
    except pb.PtychoError as error:
        return f"{{error.rule}} {{error.fix}}"
    return "done"
"""
FORK = """
first = work()
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(first, "|", pool.apply_async(work).get(60))
"""
CHECK = """
pb.get_backend(ENGINE)
def check(_):
    try:
        pb.get_backend(ENGINE)
    except pb.PtychoError as error:
        return error.fix
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(pool.apply_async(check, (0,)).get(60))
"""


def output(engine, model, program):
    code = HEAD.format(engine=engine, model=model) + program
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.strip()


def test_the_check_compares_processes(monkeypatch):
    forks.require_own_process("engine of this test")
    forks.require_own_process("engine of this test")
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with pytest.raises(ProcessError, match="spawn"):
        forks.require_own_process("engine of this test")
    forks.require_own_process("engine that was not used before")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_numpy_works_after_a_fork():
    assert output("numpy", "None", FORK) == "done | done"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_an_engine_is_refused_after_a_fork(backend):
    assert "spawn" in output(backend.name, "None", CHECK)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("model", ["pb.load_model(backend=ENGINE)", "MODEL"])
def test_a_reconstruction_with_a_network_is_refused_after_a_fork(model, backend):
    program = "MODEL = pb.load_model(backend=ENGINE)\n" + FORK
    first, second = output(backend.name, model, program).split("|")
    assert first.strip() == "done"
    assert "spawn" in second
