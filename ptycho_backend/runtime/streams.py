"""Terminal streams: printable text in any encoding, and no failure of a stream that ends the work."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import IO, Any, cast

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType
from rich.segment import Segment

from ptycho_backend.runtime.printable import UNPRINTABLE, encodable, printable, usable_width


class SafeStream:
    """
    Text stream that drops its text after a failure.

    A closed terminal, a reader that has gone or a full disk then costs messages, not the work.

    Parameters
    ----------
    stream : text stream, optional
        None stands for a process without this stream.

    Attributes
    ----------
    error : Exception, optional
        First failure, except that of a reader that has gone.
    """

    def __init__(self, stream: IO[str] | None) -> None:
        self._stream = stream
        self.error: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def encoding(self) -> str:
        """Encoding of the stream."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        try:
            return self._stream is not None and self._stream.isatty()
        except ValueError:  # closed
            return False

    def write(self, text: str) -> int:
        """Write a text in the characters of the stream's encoding."""
        if self._stream is not None:
            try:
                self._stream.write(encodable(text, self.encoding))
            except (OSError, ValueError) as error:
                self._drop(error)
        return len(text)

    def flush(self) -> None:
        """Write the buffered text."""
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._drop(error)

    def _drop(self, error: Exception) -> None:
        """Drop all further text; the interpreter flushes the buffer at its end, so that it needs a place."""
        stream, self._stream = self._stream, None
        if not isinstance(error, BrokenPipeError):
            self.error = error
        with suppress(OSError, ValueError, AttributeError):
            number = cast(IO[str], stream).fileno()
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, number)
            os.close(null)


class SafeConsole(Console):
    """
    Console with printable text, a usable width, and a safe stream.

    Parameters
    ----------
    stderr : bool
        Write to standard error instead of standard output.
    """

    def __init__(self, stderr: bool = False) -> None:
        self.stream = SafeStream(sys.stderr if stderr else sys.stdout)
        super().__init__(file=cast(IO[str], self.stream), highlight=False)

    @property
    def size(self) -> ConsoleDimensions:
        """Width and height of the terminal in characters."""
        size = super().size
        return ConsoleDimensions(usable_width(size.width), size.height)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        """Set the width and height of the terminal."""
        self._width, self._height = new_size

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of some content; their text is printable."""
        for segment in super().render(renderable, options):
            if segment.control or not UNPRINTABLE.search(segment.text):
                yield segment
            else:
                yield Segment(printable(segment.text), segment.style)
