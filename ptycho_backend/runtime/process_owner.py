"""Identity of a process: host, number and start time, so that a file can name the process that owns it."""

from __future__ import annotations

import dataclasses
import functools
import os
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROCESSES = Path("/proc")
START_FIELD, STATE_FIELD = 19, 0  # of /proc/<number>/stat, counted after the name of the program (proc(5))
ZOMBIE = "Z"


@dataclass(frozen=True)
class ProcessOwner:
    """
    Process that owns a file.

    Parameters
    ----------
    host : str
        Name of the machine.
    pid : int
        Number of the process on the machine.
    started : str
        Start of the machine and of the process; "" if the system does not report it.
    namespace : str
        Space of process numbers, which differs between containers; "" if the system has none.
    """

    host: str
    pid: int
    started: str = ""
    namespace: str = ""

    @classmethod
    def current(cls) -> ProcessOwner:
        """Return the identity of this process."""
        return cls(socket.gethostname(), os.getpid(), start_of(os.getpid()) or "", _namespace())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ProcessOwner:
        """
        Return an identity from plain values.

        Raises
        ------
        ValueError
            If a value is missing or of another type.
        """
        host, pid = values.get("host"), values.get("pid")
        started, namespace = values.get("started", ""), values.get("namespace", "")
        texts = (host, started, namespace)
        if type(pid) is not int or not 0 < pid < 2**31 or not all(isinstance(text, str) for text in texts):
            raise ValueError("no host and process number")
        return cls(str(host), pid, str(started), str(namespace))

    def to_dict(self) -> dict[str, Any]:
        """Return the identity as plain values."""
        return dataclasses.asdict(self)

    def runs_here(self) -> bool:
        """Return True if the process belongs to this machine and this space of process numbers."""
        return (self.host, self.namespace) == (socket.gethostname(), _namespace())

    def has_ended(self) -> bool:
        """Return True if the process has certainly ended; False also for a process of another machine."""
        if not self.runs_here():
            return False
        found = start_of(self.pid)
        # Another start time belongs to a later process with the same number.
        return found is None or bool(found and self.started and found != self.started)


def start_of(pid: int) -> str | None:
    """Return the start of a running process as text; None without such a process, "" if the system hides it."""
    if (PROCESSES / "self" / "stat").is_file():
        return _start_in_proc(pid)
    try:
        command = ["ps", "-o", "lstart=", "-p", str(pid)]
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip() or None


def _start_in_proc(pid: int) -> str | None:
    try:
        text = (PROCESSES / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    if fields[STATE_FIELD] == ZOMBIE:
        return None
    return f"{_boot()} {fields[START_FIELD]}"


@functools.cache
def _boot() -> str:
    """Return the identity of the machine's last start, because process start times count from it."""
    try:
        return (PROCESSES / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _namespace() -> str:
    try:
        return os.readlink(PROCESSES / "self/ns/pid")
    except OSError:
        return ""
