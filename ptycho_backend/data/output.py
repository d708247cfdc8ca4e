"""Atomic writing of files, run folders, and JSON (spec: data 6)."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ptycho_backend.errors import OVERWRITE, DataError, OutputError
from ptycho_backend.runtime.plain_values import to_plain
from ptycho_backend.runtime.process_owner import ProcessOwner, start_of

# .NAME.<process>-<machine>-<random>.tmp; earlier versions wrote the random part alone.
TEMPORARY = re.compile(r"\.(?P<target>.+)\.(?:(?P<pid>[0-9]{1,10})-(?P<machine>[0-9a-f]{8})-)?[0-9a-f]{8}\.tmp", re.S)
LEFTOVER_AGE_S = 86_400.0  # older than any file that is still being written


@contextmanager
def atomic_path(path: Path | str, overwrite: bool = True) -> Iterator[Path]:
    """
    Yield a temporary path; the file is renamed to the final path if the block ends without an error.

    Readers see either the complete old file or the complete new one, also after a crash: the content is on disk before
    the renaming. An error removes the temporary file.

    Parameters
    ----------
    path : path
        Final name; its folder must exist.
    overwrite : bool
        False raises an error if the file exists.

    Raises
    ------
    OutputError
        If the file exists and `overwrite` is off, or if writing fails; the message contains the reason.

    Notes
    -----
    Spec: data 6.1.
    """
    target = Path(path)
    require_writable_name(target)
    if target.exists() and not overwrite:
        raise OutputError.exists(target)
    # Same folder, because renaming is atomic only within one file system.
    unfinished = target.parent / _temporary_name(target.name)
    try:
        remove_leftovers(target)
        yield unfinished
        with unfinished.open("rb+") as stream:
            os.fsync(stream.fileno())
        unfinished.replace(target)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError.not_writable(target, error.strerror or str(error)) from error
    finally:
        with suppress(OSError):  # a missing folder has raised an error above
            unfinished.unlink(missing_ok=True)


def require_writable_name(path: Path) -> None:
    """
    Raise an error for a path that the system refuses, or that is a folder, pipe or device.

    Raises
    ------
    OutputError
    """
    try:
        path.lstat()
        special = path.exists() and not path.is_file()
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:  # ValueError: a null character, or one that the system cannot encode
        reason = getattr(error, "strerror", None) or str(error)
        fix = "choose a shorter name of plain letters"
        shown = f"{path.name[:40]}…" if len(path.name) > 40 else path.name
        raise OutputError.not_writable(shown.encode(errors="replace").decode(), reason, fix) from error
    if special:
        raise OutputError.not_writable(path, "a folder, pipe or device", "choose the name of a file")


def is_temporary(name: str) -> bool:
    """Return whether a name is one of :func:`atomic_path`'s temporary files."""
    return TEMPORARY.fullmatch(name) is not None


def remove_leftovers(target: Path) -> None:
    """
    Remove temporary files of `target` whose process was killed.

    A process on this machine is looked up by the number in the name. Files of other machines, and of earlier versions
    without a number, are removed when they are older than a day.

    Notes
    -----
    Spec: data 6.7.
    """
    with suppress(OSError), os.scandir(target.parent) as entries:
        # A folder may hold many files, so only names that fit are examined.
        for entry in (item for item in entries if item.name.startswith(f".{target.name}.")):
            match = TEMPORARY.fullmatch(entry.name)
            if match and match["target"] == target.name:
                with suppress(OSError):  # another process has removed it, or this one may not
                    if _is_leftover(match, time.time() - entry.stat(follow_symlinks=False).st_mtime):
                        os.unlink(entry.path)


def _temporary_name(name: str) -> str:
    return f".{name}.{os.getpid()}-{_machine()}-{secrets.token_hex(4)}.tmp"


def _is_leftover(match: re.Match[str], age_s: float) -> bool:
    if age_s > LEFTOVER_AGE_S:
        return True
    return match["machine"] == _machine() and start_of(int(match["pid"])) is None


@functools.cache
def _machine() -> str:
    """Return a short hash of the host and its space of process numbers."""
    owner = ProcessOwner.current()
    return hashlib.sha256(f"{owner.host} {owner.namespace}".encode()).hexdigest()[:8]


def prepare_run_folder(path: Path | str, overwrite: bool = False) -> Path:
    """
    Create the folder of a run and check write permission before the run.

    Parameters
    ----------
    path : path
        Folder; parents are created too.
    overwrite : bool
        Accept a folder that is not empty; its files remain.

    Raises
    ------
    OutputError
        If the folder is not empty, is a file, or is not writable.

    Notes
    -----
    Spec: data 6.2.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not overwrite:
            raise OutputError(
                "A run needs an empty folder.",
                expected="a new or empty folder",
                received=f"'{folder}', which holds {len(list(folder.iterdir()))} item(s)",
                fix=f"choose another folder, or overwrite this one: {OVERWRITE}",
            )
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError.not_writable(folder, error.strerror or str(error)) from error
    return folder


def json_text(values: Any, key: str, source: str) -> str:
    """Return values as JSON; paths, NumPy numbers and arrays are converted."""
    try:
        return json.dumps(values, default=_json_value)
    except (TypeError, ValueError) as error:
        fix = "convert it, for example with str()"
        raise DataError.in_field(
            "Attributes are plain values.", "numbers, text, lists and mappings", str(error), fix, key, source
        ) from error


def _json_value(value: Any) -> Any:
    plain = to_plain(value)
    if plain is value:
        raise TypeError(f"a {type(value).__name__} is no plain value")
    return plain
