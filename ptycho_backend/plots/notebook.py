"""
HTML summaries for notebooks: an escaped table and a small embedded picture.

A picture that cannot be drawn never costs the table. It is drawn when the notebook shows the object, without pyplot.
"""

from __future__ import annotations

import base64
import html
import io
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptycho_backend.plots.figures import NO_DATA, Pair, Real, new_figure, robust_limits
from ptycho_backend.plots.objects import view_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

MAX_BYTES = 60_000  # of an embedded picture
RESOLUTIONS_DPI = (100, 70, 45, 30)  # tried in this order until the picture is small enough
MAX_SIDE_PX = 320  # of a drawn array
WIDTH, HEIGHT = 4.8, 2.3  # inches
TABLE = "border-collapse:collapse;margin:.3em 0;text-align:left"
CELL = "text-align:left;padding:.1em .9em .1em 0;vertical-align:top"

Picture = Callable[[], bytes]


def html_summary(
    title: str, rows: Mapping[str, str], picture: Picture | None = None, warnings: Sequence[str] = ()
) -> str:
    """
    Return a title, warnings, a picture and a table as HTML; all texts are escaped.

    Parameters
    ----------
    title : str
    rows : mapping of str to str
        Label and text of every row.
    picture : callable, optional
        Draws a PNG file. A failure is one line of text, and a message in the log.
    warnings : sequence of str
        Shown before the table.
    """
    lines = [f"<div><b>{html.escape(title.strip())}</b>"]
    lines += [f"<p>⚠ {html.escape(warning)}</p>" for warning in warnings]
    if picture is not None:
        lines.append(_embedded(title, picture))
    lines.append(f'<table style="{TABLE}">')
    lines += [
        f'<tr><th style="{CELL}">{html.escape(label)}</th><td style="{CELL}">{html.escape(text)}</td></tr>'
        for label, text in rows.items()
    ]
    return "\n".join([*lines, "</table></div>"])


def object_png(obj: NDArray[Any], coverage: NDArray[Any] | None = None, pixel_size_m: Pair | None = None) -> bytes:
    """
    Return a small PNG of amplitude and phase, cropped to the illuminated part; piston and ramp are removed.

    Parameters
    ----------
    obj : complex, shape (y, x)
    coverage : float, shape (y, x), optional
    pixel_size_m : (float, float), (y, x), optional
        Gives the aspect of a pixel.
    """
    view = view_of(obj, coverage, max_px=MAX_SIDE_PX)
    levelled, _ = view.levelled()
    figure = new_figure(WIDTH, HEIGHT, "")
    aspect = 1.0 if pixel_size_m is None else pixel_size_m[0] / pixel_size_m[1]
    panels = (("amplitude", "gray", np.abs(levelled)), ("phase", "cividis", np.angle(levelled)))
    for axes, (name, colours, values) in zip(figure.subplots(1, 2), panels, strict=True):
        _draw(axes, np.where(view.covered, values, np.nan), colours, name, aspect)
    return small_png(figure)


def pattern_png(pattern: NDArray[Any], positions_px: Real) -> bytes:
    """Return a small PNG of one pattern (y, x), on a logarithmic scale, and of the positions (position, 2)."""
    figure = new_figure(WIDTH, HEIGHT, "")
    left, right = figure.subplots(1, 2)
    positive = pattern[pattern > 0]
    floor = float(positive.min()) if positive.size else 1.0
    logarithm = np.log10(np.maximum(thinned(pattern), floor).astype(np.float64))
    _draw(left, logarithm, "magma", "mean pattern, log", 1.0)
    marks = positions_px[:: max(1, len(positions_px) // 2000)]
    right.plot(marks[:, 1], marks[:, 0], ".", markersize=2, color="tab:blue")
    right.set_aspect("equal", adjustable="datalim")
    right.invert_yaxis()
    right.set_title("positions, px", fontsize=7)
    right.tick_params(labelsize=6)
    return small_png(figure)


def curves_png(curves: Mapping[str, Real], x_label: str, logarithmic: bool = False) -> bytes:
    """Return a small PNG of some curves over 1, 2, 3 …; `curves` are float, shape (point,), by label."""
    figure = new_figure(WIDTH, HEIGHT, "")
    axes = figure.subplots()
    for label, values in curves.items():
        axes.plot(np.arange(1, len(values) + 1), values, linewidth=1.2, label=label)
    if logarithmic:
        axes.set_yscale("log")
    axes.set_xlabel(x_label, fontsize=7)
    axes.tick_params(labelsize=6, which="both")
    axes.legend(fontsize=6)
    return small_png(figure)


def small_png(figure: Figure) -> bytes:
    """Return a figure of this module's size as a PNG of at most 60 kB, with the finest resolution that suffices."""
    content = b""
    for resolution_dpi in RESOLUTIONS_DPI:
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=resolution_dpi)
        content = stream.getvalue()
        if len(content) <= MAX_BYTES:
            break
    return content


def thinned(values: NDArray[Any]) -> NDArray[Any]:
    """Return every second, third … pixel of an array (y, x) with more than 320 pixels on a side."""
    step = max(1, -(-max(values.shape) // MAX_SIDE_PX))
    return values[::step, ::step]


def _draw(axes: Any, values: Real, colours: str, title: str, aspect: float) -> None:
    """Draw a map (y, x) without axes; values that are not finite are light grey."""
    import matplotlib

    low, high = robust_limits(values)
    colormap = matplotlib.colormaps[colours].with_extremes(bad=NO_DATA)
    axes.imshow(values, cmap=colormap, vmin=low, vmax=high, aspect=aspect, interpolation="nearest")
    axes.set_title(title, fontsize=7)
    axes.set_axis_off()


def _embedded(title: str, picture: Picture) -> str:
    try:
        content = base64.b64encode(picture()).decode("ascii")
    except Exception as error:  # of any kind: the table is complete without a picture
        logger.info("the picture of '%s' could not be drawn: %s: %s", title, type(error).__name__, error)
        return f"<p>no picture: {html.escape(type(error).__name__)}</p>"
    return f'<img alt="{html.escape(title.strip())}" src="data:image/png;base64,{content}">'
