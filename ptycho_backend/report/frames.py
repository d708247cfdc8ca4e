"""Empty figures of a page and their shared ranges, without JavaScript of their own."""

from __future__ import annotations

from typing import Any, NamedTuple

HEIGHT_PX = 380
MAP_HEIGHT_PX = 460
LEGEND_PX = 22  # height of an entry
LABEL_CHARACTERS = 32  # as many as fit beside an axis on 320 px
TOOLS = "pan,box_zoom,reset,save"
FONT = "12px"


class Ranges(NamedTuple):
    """Ranges of several figures that zoom together."""

    x: Any
    y: Any


class Picture(NamedTuple):
    """
    Figure with its text.

    Parameters
    ----------
    title : str
    figure : bokeh figure
    caption : str
        Text below the figure.
    alternative : str
        Description for a reader without the picture.
    """

    title: str
    figure: Any
    caption: str
    alternative: str


def map_ranges() -> Ranges:
    """Return ranges for maps, with y downwards, that follow what :func:`follow` names."""
    from bokeh.models import DataRange1d

    return Ranges(*(DataRange1d(range_padding=0.02, flipped=flipped, renderers=[]) for flipped in (False, True)))


def follow(figure: Any, renderer: Any) -> None:
    """Let the ranges of a map include a renderer: the library computes those of pictures for y upwards only."""
    for limits in (figure.x_range, figure.y_range):
        limits.renderers = [*limits.renderers, renderer]


def map_figure(unit: str, ranges: Ranges) -> Any:
    """Return an empty figure whose pixels have the same size in x and y."""
    figure = _figure(x_range=ranges.x, y_range=ranges.y, match_aspect=True, height=MAP_HEIGHT_PX)
    figure.xaxis.axis_label, figure.yaxis.axis_label = f"x, {unit}", f"y, {unit}"
    figure.grid.visible = False
    figure.background_fill_color = "#f4f4f4"
    return figure


def curve_figure(x_label: str, y_label: str, logarithmic: bool = False, **ranges: Any) -> Any:
    """Return an empty figure for curves."""
    figure = _figure(y_axis_type="log" if logarithmic else "linear", height=HEIGHT_PX, **ranges)
    figure.xaxis.axis_label, figure.yaxis.axis_label = x_label, y_label
    return figure


def add_colour_bar(figure: Any, mapper: Any, title: str) -> None:
    """Add the colour bar of a map below it, so that it takes no width on a small screen."""
    from bokeh.models import ColorBar

    bar = ColorBar(color_mapper=mapper, title=title, height=10, title_text_font_size=FONT, padding=4)
    figure.add_layout(bar, "below")


def put_legend_below(figure: Any) -> None:
    """Move the legend of a figure below it, and make the figure higher by the same amount."""
    for legend in list(figure.legend):
        figure.center = [item for item in figure.center if item is not legend]
        legend.label_text_font_size, legend.border_line_color, legend.location = "11px", None, "left"
        legend.spacing = legend.padding = 2
        figure.add_layout(legend, "below")
        figure.height += LEGEND_PX * len(legend.items)


def plain(text: str) -> str:
    r"""Return a short text for a legend, in which the library finds no formula (``$$``, ``\[``, ``\(``)."""
    if len(text) > LABEL_CHARACTERS:
        text = f"{text[: LABEL_CHARACTERS // 2]}…{text[-LABEL_CHARACTERS // 2 + 1 :]}"
    return text.replace("$$", "$ $").replace("\\[", "\\ [").replace("\\(", "\\ (")


def _figure(**settings: Any) -> Any:
    from bokeh.models import WheelZoomTool
    from bokeh.plotting import figure

    drawn = figure(
        min_width=200,
        sizing_mode="stretch_width",
        tools=TOOLS,
        active_drag=None,  # a finger on a small screen scrolls the page
        toolbar_location="above",
        output_backend="canvas",
        **settings,
    )
    wheel = WheelZoomTool(modifiers={"ctrl": True})
    drawn.add_tools(wheel)
    drawn.toolbar.active_scroll = wheel
    drawn.toolbar.logo = None
    for axis in drawn.axis:
        axis.axis_label_text_font_size = axis.major_label_text_font_size = FONT
        axis.axis_label_text_font_style = "normal"
    return drawn
