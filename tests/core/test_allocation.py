"""Freed memory is kept for the time of a training only."""

import sys

import pytest

from ptycho_backend.core import allocation
from ptycho_backend.core.allocation import freed_memory_kept


class Recorded:
    def __init__(self):
        self.calls = []

    def mallopt(self, option, value):
        self.calls.append((option, value))

    def malloc_trim(self, pad):
        self.calls.append("trim")


def test_the_defaults_come_back_also_after_an_error(monkeypatch):
    libc = Recorded()
    monkeypatch.setattr(allocation, "_glibc", lambda: libc)

    def fail():
        with freed_memory_kept():
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert libc.calls[:2] == [(allocation.MMAP_THRESHOLD, 2**25), (allocation.TRIM_THRESHOLD, 2**31 - 1)]
    assert libc.calls[-1] == "trim"
    assert dict(libc.calls[:-1]) == {allocation.TRIM_THRESHOLD: 131072, allocation.MMAP_THRESHOLD: 131072}


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with freed_memory_kept():
        pass


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt(3) is glibc's")
def test_the_calls_exist():
    with freed_memory_kept():
        assert bytearray(40 * 2**20)
