"""
Members of a ZIP archive, read into memory by name within limits (spec: model_file 4.3).

Nothing is extracted, so no name in an archive can reach the file system.
"""

from __future__ import annotations

import os
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_MEMBER_BYTES = 2 * 2**30  # a model has megabytes; a larger member is damaged or an attack
MAX_MEMBERS = 10_000
MAX_RATIO = 1100  # DEFLATE packs 1032 bytes into one at most
UNREADABLE = (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError, MemoryError)


@contextmanager
def opened_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """
    Open a ZIP archive for reading.

    Raises
    ------
    ValueError
        If there is no such file, or it is a folder, a named pipe, a device, or no ZIP archive.
    """
    require_file(path)
    try:
        archive = zipfile.ZipFile(path)
    except UNREADABLE as error:
        raise ValueError(f"not a readable zip archive ({error})") from None
    with archive:
        if len(archive.filelist) > MAX_MEMBERS:
            raise ValueError(f"{len(archive.filelist)} members in the archive, more than {MAX_MEMBERS}")
        yield archive


def require_file(path: Path) -> None:
    """
    Check that a path is a regular file: the opening of a named pipe would wait without end.

    Raises
    ------
    ValueError
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        raise ValueError("no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        raise ValueError(getattr(error, "strerror", None) or str(error)) from None
    if not stat.S_ISREG(mode):
        raise ValueError(f"{'a folder' if stat.S_ISDIR(mode) else 'a pipe, socket or device'} instead of a file")


def read_file(path: Path, limit: int = MAX_MEMBER_BYTES) -> bytes:
    """
    Read a regular file into memory.

    Raises
    ------
    ValueError
        If it is missing, no regular file, larger than `limit` bytes, or not readable.
    """
    require_file(path)
    try:
        if path.stat().st_size > limit:
            raise ValueError(f"'{path.name}' has {path.stat().st_size} bytes, more than {limit}")
        return path.read_bytes()
    except (OSError, MemoryError) as error:
        raise ValueError(f"'{path.name}' cannot be read ({error})") from None


def read_member(archive: zipfile.ZipFile, name: str, limit: int = MAX_MEMBER_BYTES) -> bytes:
    """
    Read one member of a ZIP archive into memory.

    Raises
    ------
    ValueError
        If it is missing, there twice, damaged, larger than `limit` bytes, or claims more than its packed bytes hold.
    """
    found = [info for info in archive.filelist if info.filename == name]
    if not found:
        names = ", ".join(archive.namelist()[:6])
        raise ValueError(f"no member '{name}' (found: {names or 'nothing'})")
    if len(found) > 1:
        raise ValueError(f"{len(found)} members have the name '{name}'")
    info = found[0]
    if info.file_size > limit or info.file_size > MAX_RATIO * info.compress_size:
        raise ValueError(f"member '{name}' claims {info.file_size} bytes, packed in {info.compress_size}")
    try:
        return archive.read(info)
    except Exception as error:  # zlib and zipfile raise many classes for damaged data
        raise ValueError(f"member '{name}' is damaged ({error})") from None
