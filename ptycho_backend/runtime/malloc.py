"""Memory that a computation frees and wants back a moment later."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
KEEP_ALL = 2**31 - 1  # bytes
LARGEST = 32 * 2**20  # bytes: what glibc allows to come from the heap
USUAL_TRIM = 2 * LARGEST  # bytes: what glibc itself keeps once arrays of that size have come and gone


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """
    Let glibc keep freed memory while training, and give it back afterwards.

    Each step needs the same arrays again. Giving them to the system in between costs a page fault for every 4 KiB:
    about a tenth of a step on a processor. Other C libraries are left alone.

    A threshold that is set once no longer follows what is freed, so the first one stays. The 128 KiB that a process
    begins with would send every later array to the system and back: four times the time of a data-consistency step.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    libc.mallopt(MMAP_THRESHOLD, LARGEST)
    libc.mallopt(TRIM_THRESHOLD, KEEP_ALL)
    try:
        yield
    finally:
        libc.mallopt(TRIM_THRESHOLD, USUAL_TRIM)
        libc.malloc_trim(0)


def _glibc() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") and hasattr(libc, "mallopt") else None
