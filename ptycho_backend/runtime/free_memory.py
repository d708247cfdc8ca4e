"""Memory that this process may still take: of the machine, of its control group, and of its own limit."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

MEMORY_LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def free_memory_bytes() -> int:
    """Return the least of the free memory of machine, control group and process, bytes; `sys.maxsize` if unknown."""
    return min(_of_machine(), *(_of_group(limit, used) for limit, used in MEMORY_LIMITS), _of_process())


def _of_machine() -> int:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return sys.maxsize


def _of_group(limit: str, used: str) -> int:
    with suppress(OSError, ValueError):  # "max" stands for no limit
        return max(0, int(Path(limit).read_text(encoding="ascii")) - int(Path(used).read_text(encoding="ascii")))
    return sys.maxsize


def _of_process() -> int:
    with suppress(ImportError, OSError, ValueError, IndexError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
            return max(0, limit - pages * resource.getpagesize())
    return sys.maxsize
