"""Where results go: complete files or none, and folders that no accident overwrites (spec: data 6)."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_backend.errors import DataError, OutputError


@contextmanager
def atomic_path(path: Path | str, overwrite: bool = True) -> Iterator[Path]:
    """
    Give a temporary path to write to; it takes the final name when the block ends without an error.

    Readers see the whole old file or the whole new one, also after a crash: the content is on disk before the
    name changes. On failure the temporary file is removed.

    Parameters
    ----------
    path : path
        Final name; its folder must exist.
    overwrite : bool
        False refuses to replace an existing file.

    Raises
    ------
    OutputError
        If the file exists and may not be replaced, or the system refuses to write (the message says why).

    Notes
    -----
    Spec: data 6.1.
    """
    target = Path(path)
    if target.exists() and not overwrite:
        raise OutputError(
            "An existing file is replaced only on request.",
            expected="a name that is free",
            received=f"'{target}', which exists",
            fix="choose another name, or pass overwrite=True",
        )
    # Same folder, because a rename is atomic only within one file system.
    unfinished = target.parent / f".{target.name}.{secrets.token_hex(4)}.tmp"
    try:
        yield unfinished
        with unfinished.open("rb+") as stream:
            os.fsync(stream.fileno())
        unfinished.replace(target)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise _unwritable(target, error) from error
    finally:
        with suppress(OSError):  # where the folder is missing, the first error says so
            unfinished.unlink(missing_ok=True)


def prepare_run_folder(path: Path | str, overwrite: bool = False) -> Path:
    """
    Create the folder of a run and check that it can be written to, before any work is done.

    Parameters
    ----------
    path : path
        Parents are created too.
    overwrite : bool
        Accept a folder that already holds something; nothing in it is deleted.

    Raises
    ------
    OutputError
        If the folder holds something, is a file, or cannot be written to.

    Notes
    -----
    Spec: data 6.2.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not overwrite:
            raise OutputError(
                "A run gets a folder of its own.",
                expected="a folder that is new or empty",
                received=f"'{folder}', which holds {len(list(folder.iterdir()))} item(s)",
                fix="choose another folder, or pass overwrite=True to write into this one",
            )
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise _unwritable(folder, error) from error
    return folder


def json_text(values: Any, key: str, source: str) -> str:
    """Return plain values as JSON; paths, NumPy numbers and arrays count as plain."""
    try:
        return json.dumps(values, default=_plain)
    except (TypeError, ValueError) as error:
        raise DataError(
            "Attributes are plain values.",
            expected="numbers, text, lists and mappings",
            received=f"{error}, field '{key}' of '{source}'",
            fix="convert it, for example with str()",
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} is no plain value")


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(
        "Results need a place that can be written to.",
        expected="an existing folder with write permission and free space",
        received=f"'{path}': {error.strerror or str(error)}",
        fix="create the folder, free space on the disk, or choose another place",
    )
