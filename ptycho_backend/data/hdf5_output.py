"""Writing of HDF5 files through a file object, so that a full disk is an error and not a crash (spec: data 6.1)."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class FaultRecorder(io.RawIOBase):
    """
    Binary file that records its first error instead of raising it.

    The HDF5 library keeps unwritten pages after a failed write, and a process that then ends is killed by SIGSEGV
    (https://github.com/h5py/h5py/issues/914). With this file every write of the library succeeds; the error is raised
    afterwards, outside the library.

    Parameters
    ----------
    path : path
        File that is created or replaced.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__()
        self.error: OSError | None = None
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115 - `close` closes it

    def readable(self) -> bool:
        """Return True."""
        return True

    def writable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def fileno(self) -> int:
        """Return the file descriptor."""
        return self._file.fileno()

    def readinto(self, buffer: Any) -> int:
        """Read bytes; the library reads only bytes that it has written."""
        view = memoryview(buffer).cast("B")
        count = self._file.readinto(view) or 0
        view[count:] = bytes(len(view) - count)  # bytes that an earlier error has lost
        return len(view)

    def write(self, buffer: Any) -> int:
        """Write all bytes, unless an error is recorded."""
        view = memoryview(buffer).cast("B")
        written = 0
        while self.error is None and written < len(view):
            try:
                written += os.write(self.fileno(), view[written:])
            except OSError as error:
                self.error = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the size of the file."""
        size = self.tell() if size is None else size
        try:
            self._file.truncate(size)
        except OSError as error:
            self.error = self.error or error
        return size

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._file.close()
        super().close()

    def check(self) -> None:
        """
        Raise the recorded error.

        Raises
        ------
        OSError
        """
        if self.error is not None:
            raise self.error


@contextmanager
def new_hdf5(path: Path | str) -> Iterator[tuple[Any, FaultRecorder]]:
    """
    Yield a new HDF5 file, open for writing, and the file object below it.

    Raises
    ------
    OSError
        If the file cannot be written, for example on a full disk.
    """
    import h5py

    stream = FaultRecorder(path)
    try:
        with h5py.File(stream, "w") as file:
            yield file, stream
    except RuntimeError as error:
        stream.check()
        raise OSError(str(error)) from error
    except Exception:
        stream.check()  # the cause of later errors of the library
        raise
    finally:
        stream.close()
    stream.check()
