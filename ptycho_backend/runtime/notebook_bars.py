"""Progress bars in a notebook: those of a terminal, as one HTML output that is replaced."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ptycho_backend.events import Event, OnEvent

if TYPE_CHECKING:
    from rich.progress import Progress

DRAW_EVERY_S = 0.25  # shortest time between two versions
WIDTH = 100  # characters
STYLE = "white-space:pre;overflow-x:auto;line-height:normal;font-family:Menlo,'DejaVu Sans Mono',consolas,monospace"


class NotebookBars:
    """
    Callback that draws the bars of a terminal in a notebook.

    Parameters
    ----------
    progress : Progress
        Bars without a display of their own.
    bars : callable
        Moves them after every event.
    """

    def __init__(self, progress: Progress, bars: OnEvent) -> None:
        notebook: Any = import_module("IPython.display")
        self._progress, self._bars, self._html = progress, bars, notebook.HTML
        self._handle: Any = notebook.display(self._html(self._drawn()), display_id=True)
        self._next_draw_s = 0.0

    def __call__(self, event: Event) -> None:
        """Move the bar of an event, and draw all bars unless the last drawing is recent."""
        self._bars(event)
        if time.perf_counter() >= self._next_draw_s:
            self.draw()
            self._next_draw_s = time.perf_counter() + DRAW_EVERY_S

    def draw(self) -> None:
        """Replace the output by the present bars."""
        if self._handle is not None:  # None outside of a kernel
            self._handle.update(self._html(self._drawn()))

    def _drawn(self) -> str:
        from rich.console import Console

        console = Console(file=io.StringIO(), record=True, width=WIDTH, force_jupyter=False, force_terminal=True)
        console.print(self._progress.get_renderable())
        return console.export_html(inline_styles=True, code_format=f'<div style="{STYLE}">{{code}}</div>')


@contextmanager
def notebook_bars(progress: Progress, bars: OnEvent) -> Iterator[OnEvent]:
    """Yield a callback that draws bars in a notebook, and draw the last state at the end of the block."""
    drawn = NotebookBars(progress, bars)
    try:
        yield drawn
    finally:
        drawn.draw()
