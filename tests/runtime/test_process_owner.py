"""Identity of a process: host, number and start time."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from ptycho_backend.runtime.process_owner import ProcessOwner, start_of


def test_this_process_runs_here_and_has_not_ended():
    owner = ProcessOwner.current()
    assert owner.pid == os.getpid()
    assert owner.runs_here()
    assert not owner.has_ended()
    assert ProcessOwner.from_dict(owner.to_dict()) == owner


@pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")
def test_an_ended_process_is_recognised():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    owner = replace(ProcessOwner.current(), pid=process.pid, started=start_of(process.pid))
    assert owner.started
    assert not owner.has_ended()
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, and not yet collected by its parent
    assert owner.has_ended()
    process.wait()
    assert owner.has_ended()


@pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")
def test_another_process_with_the_same_number_is_recognised():
    assert replace(ProcessOwner.current(), started="another start").has_ended()


@pytest.mark.parametrize("change", [{"host": "elsewhere"}, {"namespace": "pid:[1]"}])
def test_a_process_of_another_machine_may_still_run(change):
    owner = replace(ProcessOwner.current(), pid=2**31 - 1, **change)
    assert not owner.runs_here()
    assert not owner.has_ended()


@pytest.mark.parametrize("values", [{}, {"host": "a"}, {"host": 1, "pid": 2}, {"host": "a", "pid": -1}, {"pid": True}])
def test_other_values_are_refused(values):
    with pytest.raises(ValueError, match="no host and process number"):
        ProcessOwner.from_dict(values)
