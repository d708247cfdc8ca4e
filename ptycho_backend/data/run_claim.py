"""Claim of a run folder: a lock file that names host and process (spec: data 6.5)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ptycho_backend.errors import OutputError
from ptycho_backend.runtime.process_owner import ProcessOwner

CONTROL = "ptychopinn"  # suffix of the hidden folder beside a run folder
LOCK = "lock.json"
PROGRESS = "progress.json"  # record of the command that holds the claim, for a live view
ATTEMPTS, WAIT_S = 50, 0.02  # another process may be writing or removing the lock file


def control_folder(target: Path) -> Path:
    """
    Return the hidden folder of a run folder, with its lock and a new run until its completion.

    It is beside the run folder, ``.NAME.ptychopinn``. It is inside it, ``.ptychopinn``, for a run folder whose parent
    this process cannot write to.
    """
    folder = target.resolve()
    return folder.parent / f".{folder.name}.{CONTROL}" if can_be_replaced(folder) else folder / f".{CONTROL}"


def can_be_replaced(folder: Path) -> bool:
    """Return False for a root, a mount, and an existing folder whose parent is not writable."""
    if not folder.name or os.path.ismount(folder):
        return False
    return not folder.is_dir() or os.access(folder.parent, os.W_OK | os.X_OK)


@contextmanager
def claimed(target: Path, inside: bool = False) -> Iterator[Path]:
    """
    Hold the claim of a run folder during the block, and yield its hidden folder.

    The claim of a process that has ended is taken over.

    Parameters
    ----------
    target : path
        Run folder; its parent must exist.
    inside : bool
        Keep the lock inside the folder, for a folder that is never replaced, such as that of the checkpoints.

    Raises
    ------
    OutputError
        If another process holds the claim, or the place is not writable.

    Notes
    -----
    Spec: data 6.5.
    """
    control = target.resolve() / f".{CONTROL}" if inside else control_folder(target)
    try:
        _acquire(control, target)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError.not_writable(target, error.strerror or str(error)) from error
    try:
        yield control
    finally:
        with suppress(OSError), _exclusive(control):
            parts = (item.name for item in control.glob(f"{LOCK}.*.part"))  # of processes that were killed
            for name in (PROGRESS, f"{PROGRESS}.part", *parts, LOCK):
                (control / name).unlink(missing_ok=True)
            control.rmdir()  # a folder with a stopped run stays


def owner_of(target: Path) -> ProcessOwner | None:
    """Return the process that writes to a run folder now; None without one, or if the lock file is unreadable."""
    owner = _read_lock(control_folder(target) / LOCK)
    return None if owner is None or owner.has_ended() else owner


def _acquire(control: Path, target: Path) -> None:
    lock = control / LOCK
    text = json.dumps(ProcessOwner.current().to_dict())
    for _ in range(ATTEMPTS):
        control.mkdir(parents=True, exist_ok=True)
        try:
            with _exclusive(control):
                owner = _read_lock(lock)
                if owner is not None and owner.has_ended():
                    lock.unlink()
                _create(lock, text)
                return
        except FileNotFoundError:
            continue  # the previous owner has just removed the hidden folder
        except FileExistsError:
            if owner is not None:
                raise _in_use(target, lock, owner) from None
        time.sleep(WAIT_S)
    raise _in_use(target, lock, None)


def _create(lock: Path, text: str) -> None:
    """Create the lock file with its content at once: a process that is killed here leaves no unreadable lock."""
    complete = lock.with_name(f"{lock.name}.{os.getpid()}.part")
    try:
        complete.write_text(text, encoding="utf-8")
        try:
            os.link(complete, lock)  # an existing name is a FileExistsError
        except FileExistsError:
            raise
        except (OSError, NotImplementedError):  # a file system without links
            with lock.open("x", encoding="utf-8") as stream:
                stream.write(text)
    finally:
        complete.unlink(missing_ok=True)


@contextmanager
def _exclusive(control: Path) -> Iterator[None]:
    """Exclude other processes from the lock file; a file system without locks relies on the exclusive creation."""
    if os.name == "nt":  # it opens no folders
        yield
        return
    descriptor = os.open(control, os.O_RDONLY)
    try:
        with suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read_lock(lock: Path) -> ProcessOwner | None:
    try:
        values = json.loads(lock.read_bytes()[:10_000])
        return ProcessOwner.from_dict(values) if isinstance(values, dict) else None
    except (OSError, ValueError, RecursionError):
        return None


def _in_use(target: Path, lock: Path, owner: ProcessOwner | None) -> OutputError:
    if owner is None:
        received, fix = f"'{target}', with an unreadable '{lock}'", f"remove the lock if no command runs: rm '{lock}'"
    elif owner.runs_here():
        mine = " (this one)" if owner.pid == os.getpid() else ""
        received = f"'{target}', in use by process {owner.pid}{mine} on this machine, '{owner.host}'"
        fix = f"wait for its end, choose another folder, or stop it: kill {owner.pid}"
    else:
        received = f"'{target}', in use by process {owner.pid} on '{owner.host}'"
        fix = f"wait for its end, or choose another folder; if that process has ended: rm '{lock}'"
    expected = "a folder that no other command writes to"
    return OutputError("A run folder is written by one command at a time.", expected, received, fix)
