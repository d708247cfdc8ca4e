"""Settings of glibc's allocator for computations that need the same arrays in every step."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
KEEP_ALL = 2**31 - 1  # bytes
LARGEST = 32 * 2**20  # bytes: glibc's limit for arrays on the heap
USUAL_TRIM = 2 * LARGEST  # bytes: glibc's own threshold after it has freed arrays of that size


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """
    Keep freed memory in the process during training, and return it to the system afterwards.

    Each step needs the same arrays again. Memory from the system costs a page fault for every 4 KiB: about a tenth
    of a step on a processor. Other C libraries are not changed.

    glibc adapts a threshold to the freed arrays until it is set once, so the first threshold stays set. With its
    initial value of 128 KiB every later array is mapped again, and an amplitude constraint takes four times as long.
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
