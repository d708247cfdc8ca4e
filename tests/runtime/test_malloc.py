"""Freed memory stays in the process only during training."""

import subprocess
import sys

import pytest

from ptycho_backend.runtime import malloc
from ptycho_backend.runtime.malloc import freed_memory_kept


class Recorded:
    def __init__(self):
        self.calls = []

    def mallopt(self, option, value):
        self.calls.append((option, value))

    def malloc_trim(self, pad):
        self.calls.append("trim")


def test_memory_is_returned_after_an_error(monkeypatch):
    libc = Recorded()
    monkeypatch.setattr(malloc, "_glibc", lambda: libc)

    def fail():
        with freed_memory_kept():
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert libc.calls[:2] == [(malloc.MMAP_THRESHOLD, 2**25), (malloc.TRIM_THRESHOLD, 2**31 - 1)]
    assert libc.calls[-1] == "trim"
    assert dict(libc.calls[:-1]) == {malloc.TRIM_THRESHOLD: 2**26, malloc.MMAP_THRESHOLD: 2**25}


def test_other_systems_are_not_changed(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with freed_memory_kept():
        pass


AFTERWARDS = """
import resource
import numpy as np
from ptycho_backend.runtime.malloc import freed_memory_kept

with freed_memory_kept():
    pass
for _ in range(20):  # groups of eight arrays of 1 MiB, allocated and freed together
    arrays = [np.ones(2**17) for _ in range(8)]
    del arrays
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    arrays = [np.ones(2**17) for _ in range(8)]
    del arrays
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt(3) is glibc's")
def test_arrays_cost_no_page_faults_after_training():
    # In a new process, because thresholds stay once they are set. 100 times 8 MiB are 204,800 pages.
    done = subprocess.run([sys.executable, "-c", AFTERWARDS], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20_000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt(3) is glibc's")
def test_mallopt_exists():
    with freed_memory_kept():
        assert bytearray(40 * 2**20)
